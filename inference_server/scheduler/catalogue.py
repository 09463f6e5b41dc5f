"""What serves, by name and version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from inference_server.scheduler.ensemble import ServedEnsemble
from inference_server.scheduler.serving import ServedModel
from inference_server.scheduler.status import Statuses

Served = ServedModel | ServedEnsemble


class Catalogue:
    """The versions that serve, each put into the place of the one before it."""

    def __init__(self, statuses: Statuses) -> None:
        """`statuses`: tell why something does not serve."""
        self._statuses = statuses
        self._served: dict[str, dict[str, Served]] = {}

    def all(self) -> tuple[Served, ...]:
        """Each version of each model."""
        return tuple(served for versions in self._served.values() for served in versions.values())

    def versions(self, name: str) -> Mapping[str, Served]:
        """Those of one model; none where it does not serve."""
        return self._served.get(name, {})

    def find(self, name: str, version: str = "") -> Served:
        """The version, or the newest where it is empty. Raises as `port.Inference.facts` does."""
        versions = self.versions(name)
        if version in versions:
            return versions[version]
        if versions and not version:
            return versions[max(versions, key=int)]
        raise self._statuses.absence(name, version)

    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether a version serves, with all that it is made of; of an empty one, whether any does."""
        versions = self.versions(name)
        chosen = versions.get(version) if version else next(iter(versions.values()), None)
        steps = chosen.steps if isinstance(chosen, ServedEnsemble) else ()
        return chosen is not None and all(self.is_ready(step.model, step.version) for step in steps)

    def models_of(self, name: str) -> Iterable[str]:
        """The models that an ensemble is made of."""
        return (step.model for served in self.versions(name).values() if isinstance(served, ServedEnsemble) for step in served.steps)

    def put(self, served: Served) -> Served | None:
        """Have a version serve; returns what served in its place."""
        versions = self._served.setdefault(served.facts.name, {})
        old = versions.get(served.facts.version)
        versions[served.facts.version] = served
        return old

    def take_out(self, name: str, version: str) -> Served:
        """Have a version that serves do so no longer."""
        served = self._served[name].pop(version)
        if not self._served[name]:
            del self._served[name]
        return served
