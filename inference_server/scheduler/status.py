"""What is known of the versions of the repository, serving or not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum

from inference_server.errors import InferenceError, ModelUnavailable, NotFound, Unavailable
from inference_server.models.repository import no_such_model
from inference_server.scheduler.metrics.scheduler import SchedulerMetrics


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


# Why a model that is known does not serve.
_ABSENT = {
    ModelState.LOADING: "is still loading",
    ModelState.UNLOADING: "is being unloaded",
    ModelState.UNLOADED: "is not loaded",
    ModelState.UNAVAILABLE: "could not be loaded",
}


class Statuses:
    """The status of each version that is known, told to the metrics too."""

    def __init__(self, metrics: SchedulerMetrics) -> None:
        self._metrics = metrics
        # By name and version.
        self._statuses: dict[str, dict[str, ModelStatus]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._statuses

    def all(self) -> tuple[ModelStatus, ...]:
        """Every version that is known."""
        return tuple(status for versions in self._statuses.values() for status in versions.values())

    def versions(self, name: str) -> set[str]:
        """The versions of a model that are known."""
        return set(self._statuses.get(name, ()))

    def set(self, status: ModelStatus) -> None:
        """Put a status in the place of the one before."""
        self._statuses.setdefault(status.name, {})[status.version] = status
        if status.version:
            self._metrics.states.labels(status.name, status.version).set(status.state is ModelState.READY)

    def unloaded(self, name: str, version: str) -> None:
        """A version that was being unloaded has finished, unless it was loaded again meanwhile."""
        status = self._statuses.get(name, {}).get(version)
        if status is not None and status.state is ModelState.UNLOADING:
            self.set(replace(status, state=ModelState.UNLOADED, reason="unloaded"))

    def broken(self, name: str, reason: str, *, serving: Collection[str]) -> None:
        """The whole model cannot be read: the versions `serving` go on, and the reason is told."""
        for version in serving or ("",):
            self.failed(name, version, reason, serves=version in serving)

    def failed(self, name: str, version: str, reason: str, *, serves: bool) -> None:
        """A load failed; `serves`: whether what was there before goes on."""
        state = ModelState.READY if serves else ModelState.UNAVAILABLE
        told = f"the version before goes on serving: {reason}" if serves else reason
        self.set(ModelStatus(name=name, version=version, state=state, reason=told))

    def forget(self, name: str, version: str) -> None:
        """A version is no longer there."""
        self._statuses.setdefault(name, {}).pop(version, None)

    def forget_model(self, name: str) -> None:
        """A model is no longer there."""
        self._statuses.pop(name, None)

    def absence(self, name: str, version: str) -> InferenceError:
        """Why a version, or any where it is empty, does not serve."""
        known = self._statuses.get(name)
        if not known:
            return no_such_model(name)
        if version and "" not in known and version not in known:
            return NotFound(f"model {name} has no version {version}; it has {', '.join(known)}")
        status = known.get(version) or next(iter(known.values()))
        # One that loads is waited for as a server is that starts.
        error = Unavailable if status.state is ModelState.LOADING else ModelUnavailable
        return error(f"model {name} {_ABSENT[status.state]}: {status.reason}")
