"""What is known of the versions of the repository, serving or not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ModelState(Enum):
    """Whether a version serves."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"
    # Taken out of service by someone.
    UNLOADED = "UNLOADED"
    # In the repository, and never asked to load.
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """One version of a model of the repository."""

    name: str
    # Empty where the model is too broken to have one.
    version: str
    state: ModelState
    # Why it does not serve; empty when it does.
    reason: str = ""
