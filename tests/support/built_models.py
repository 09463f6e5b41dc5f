"""The built-in models, built once and kept between runs."""

from __future__ import annotations

import fcntl
from pathlib import Path

from inference_server.models.builders import BUILDERS

_FOLDER = Path(__file__).parents[2] / ".cache" / "test-models"


def built_models(*names: str) -> Path:
    """The repository's folder, which holds at least the models named, or all of them. Test processes wait for each other."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in names or tuple(BUILDERS):
            BUILDERS[name](_FOLDER)
    return _FOLDER
