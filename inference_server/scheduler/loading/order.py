"""In which order the models of a repository are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from inference_server.errors import ConfigurationError, InferenceError
from inference_server.models.repository import ModelRepository


def load_order(repository: ModelRepository) -> tuple[str, ...]:
    """The models' names, ensembles after the models that they are made of. Raises `ConfigurationError` when the repository is not there."""
    needs = {name: _needs(repository, name) for name in repository.names()}
    return tuple(sorted(needs, key=lambda name: (_depth(name, needs, ()), name)))


def check_ends(name: str, models: Iterable[str], models_of: Callable[[str], Iterable[str]]) -> None:
    """Raises `ConfigurationError` for an ensemble of these models when one of them needs the ensemble, itself or through others."""
    for model in models:
        if model == name:
            raise ConfigurationError(f"ensemble {name} would need itself, through the models that it is made of")
        check_ends(name, models_of(model), models_of)


def _needs(repository: ModelRepository, name: str) -> tuple[str, ...]:
    try:
        return tuple(step.model for step in repository.read(name).configuration.steps)
    except InferenceError:
        return ()  # it is told when it is loaded


def _depth(name: str, needs: Mapping[str, tuple[str, ...]], path: tuple[str, ...]) -> int:
    """How many models one after another must be there first; those that need each other end somewhere, for none of them can be loaded."""
    return 0 if name in path else max((1 + _depth(need, needs, (*path, name)) for need in needs.get(name, ())), default=0)
