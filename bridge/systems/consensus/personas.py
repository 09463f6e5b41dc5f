"""Who reviews, and with which words: files with a version."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import ConfigurationError

_FOLDER = Path(__file__).parent / "prompts"
_TOLERANCE = 1e-4
GUARDIAN = "security_guardian"


@dataclass(frozen=True, kw_only=True)
class Persona:
    """One reviewer."""

    id: str
    name: str
    # Of the whole confidence; all sum to 1.
    weight: float
    instructions: str


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """One version of all prompts."""

    version: str
    # In the order of their reviews.
    personas: Sequence[Persona]
    expand: str
    revise: str
    # With `{persona_id}`, `{persona_name}` and `{persona_instructions}`.
    review: str


def load_prompts(version: str) -> PromptSet:
    """The prompts of a version. Raises `ConfigurationError` when there is none, or its weights do not sum to 1."""
    folder = _FOLDER / version
    if not version or not (folder / "personas.toml").is_file():
        known = ", ".join(sorted(path.name for path in _FOLDER.iterdir()))
        raise ConfigurationError(f"PERSONA_TEMPLATE_VERSION: there are no prompts of version {version!r}; expected one of {known}")
    told = tomllib.loads((folder / "personas.toml").read_text(encoding="utf-8"))["personas"]
    personas = tuple(Persona(**{**entry, "instructions": entry["instructions"].strip()}) for entry in told)
    if not math.isclose(sum(persona.weight for persona in personas), 1.0, abs_tol=_TOLERANCE):
        raise ConfigurationError(f"the personas' weights of version {version} do not sum to 1")
    texts = {name: (folder / f"{name}.txt").read_text(encoding="utf-8").strip() for name in ("expand", "revise", "review")}
    return PromptSet(version=version, personas=personas, **texts)
