"""The engines that are built for models while others serve them, and what is told of that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry, Gauge

from inference_server.engine.tensorrt.building import BUILDING, BUILT, FAILED, BuildState
from inference_server.engine.tensorrt.plans import Recipe
from inference_server.errors import InferenceError

_log = structlog.get_logger()
_Model = tuple[str, str]


class Builder(Protocol):
    """Builds engines somewhere else."""

    def request(self, recipe: Recipe, changed: Callable[[], None]) -> None:
        """Build, unless it was asked for already; `changed` is called from another thread when the build has ended."""

    def state(self, recipe: Recipe) -> BuildState | None:
        """How far a build is; None for one that nobody asked for and that is not there."""

    def close(self) -> None:
        """End what runs."""


class ModelBuilds:
    """Asks for the engines that models lack, and has a model loaded anew when one is there.

    `builder`: None where nothing is built while the server runs. `reload`: loads a model anew.
    """

    def __init__(self, builder: Builder | None, registry: CollectorRegistry, reload: Callable[[str], Awaitable[None]]) -> None:
        self._builder = builder
        self._reload = reload
        self._recipes: dict[_Model, tuple[Recipe, ...]] = {}
        self._reloads: set[asyncio.Task[None]] = set()
        self._states = Gauge(
            "lamina_model_engine_build_state",
            "1 for the state of an engine that is built for a model: building, built or failed.",
            ("model", "version", "engine", "precision", "state"),
            registry=registry,
        )

    def loaded(self, model: str, version: str, unbuilt: Sequence[Recipe]) -> None:
        """A version serves; ask for what it lacks. Engines that were asked for before stay told."""
        if self._builder is None:
            if unbuilt:
                hint = "build them with: inference-server models compile"
                _log.warning("engines_not_built", model=model, version=version, engines=[each.label for each in unbuilt], hint=hint)
            return
        known = self._recipes.get((model, version), ())
        lacking = [recipe for recipe in unbuilt if recipe not in known]
        self._recipes[model, version] = (*(recipe for recipe in known if recipe in unbuilt or self._state(recipe) == BUILT), *lacking)
        loop = asyncio.get_running_loop()
        for recipe in unbuilt:
            self._builder.request(recipe, partial(self._told, loop, model, version, recipe))
        self._tell(model, version)

    def gone(self, model: str, version: str) -> None:
        """A version serves no more."""
        for recipe in self._recipes.pop((model, version), ()):
            self._forget(model, version, recipe)

    def reason(self, model: str, version: str) -> str:
        """What of a version's engines is not as it is wanted; empty where all is."""
        states = [(recipe, self._builder.state(recipe)) for recipe in self._recipes.get((model, version), ()) if self._builder]
        return "; ".join(_words(recipe, state) for recipe, state in states if state is not None and state.state != BUILT)

    def state(self, model: str, version: str) -> str:
        """The state of a version's engines, of an empty version of all: building, failed, built; empty where none is built for it."""
        keys = [key for key in self._recipes if key[0] == model and version in ("", key[1])]
        states = {self._state(recipe) for key in keys for recipe in self._recipes[key]}
        return next((state for state in (BUILDING, FAILED, BUILT) if state in states), "")

    async def close(self) -> None:
        """End the builds."""
        for reload in self._reloads:
            reload.cancel()
        if self._builder is not None:
            await asyncio.to_thread(self._builder.close)

    def _told(self, loop: asyncio.AbstractEventLoop, model: str, version: str, recipe: Recipe) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._ended, model, version, recipe)

    def _ended(self, model: str, version: str, recipe: Recipe) -> None:
        if (model, version) not in self._recipes:
            return
        self._tell(model, version)
        if self._state(recipe) != BUILT:
            return
        reload = asyncio.get_running_loop().create_task(self._load_anew(model))
        self._reloads.add(reload)
        reload.add_done_callback(self._reloads.discard)

    async def _load_anew(self, model: str) -> None:
        try:
            await self._reload(model)
        except InferenceError as error:
            _log.error("built_engine_not_taken", model=model, reason=str(error))

    def _tell(self, model: str, version: str) -> None:
        for recipe in self._recipes.get((model, version), ()):
            self._forget(model, version, recipe)
            self._states.labels(model, version, recipe.engine, recipe.precision, self._state(recipe)).set(1)

    def _forget(self, model: str, version: str, recipe: Recipe) -> None:
        for state in (BUILDING, BUILT, FAILED):
            with contextlib.suppress(KeyError):
                self._states.remove(model, version, recipe.engine, recipe.precision, state)

    def _state(self, recipe: Recipe) -> str:
        state = self._builder.state(recipe) if self._builder else None
        return state.state if state else ""


def _words(recipe: Recipe, state: BuildState) -> str:
    if state.state == FAILED:
        return f"{recipe.label} could not be built: {state.reason}"
    steps = f", {state.done} of {state.total}" if state.total else ""
    return f"{recipe.label} is being built ({state.phase}{steps}); another engine serves until then"
