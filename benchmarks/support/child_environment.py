"""The environment of the programs that are compared: none of our settings, and compiled modules, as installed programs have them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_BYTECODE = Path(__file__).parents[2] / ".cache" / "bytecode"
_NOT_PASSED_ON = "PYTHONDONTWRITEBYTECODE"


def child_environment(own: Mapping[str, str]) -> dict[str, str]:
    """That of this process with `own`, where modules are compiled once and kept, even where this process may not keep any."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_") and name != _NOT_PASSED_ON}
    return {**inherited, "PYTHONPYCACHEPREFIX": str(_BYTECODE), **own}
