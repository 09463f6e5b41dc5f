"""Builds the engines of models before a server starts, so that it finds them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inference_server.engine.runtimes import PLANS
from inference_server.engine.selection.selector import AUTO, PLAN_SUFFIX, EngineSelector
from inference_server.engine.tensorrt.ahead import NATIVE, AheadOfTime
from inference_server.engine.tensorrt.building import BUILDING, BUILT, FAILED, BuildState, EngineBuilds
from inference_server.engine.tensorrt.plans import Recipe
from inference_server.engine.tensorrt.profiles import read_profile
from inference_server.errors import ConfigurationError, InferenceError
from inference_server.model_serving import runtimes
from inference_server.models.repository import ModelFolder, ModelRepository
from inference_server.scheduler.loading.loader import ModelLoader
from inference_server.settings import Settings

_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One engine that was asked for, and what became of it."""

    # Model and version.
    model: str
    # As engine:precision; empty where the model has none.
    engine: str
    state: BuildState
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to build."""

    # Models; none for all of the repository.
    names: Sequence[str] = ()
    # Precisions; none for those that each model or the settings name.
    precisions: Sequence[str] = ()
    # Optimisation profiles of the one model that is named, as INPUT=MIN:OPT:MAX,…; none for its own.
    profiles: Sequence[str] = ()
    # Builds at a time.
    jobs: int = 1


@dataclass(frozen=True, kw_only=True)
class _Task:
    model: str
    recipe: Recipe
    ended: threading.Event = field(default_factory=threading.Event)


def compile_models(settings: Settings, wanted: Wanted, progress: Callable[[str, BuildState], None]) -> list[Compiled]:
    """Build what is wanted and not there; blocks. `progress` is told each engine's state now and then.

    Raises `ConfigurationError` where there is no GPU, no TensorRT, no such model, or a profile that does not fit.
    """
    if wanted.profiles and len(wanted.names) != 1:
        raise ConfigurationError(f"--profile is for one model; {len(wanted.names)} are named. Name one, such as: models compile resnet50")
    device = settings.device if settings.device != "cpu" else "cuda:0"
    found = runtimes(settings, device)
    if found.ahead is None:
        raise ConfigurationError("TensorRT is not installed; install the extra `gpu` (lamina[gpu])")
    loader = ModelLoader({device: EngineSelector(found)}, pin=settings.engine if found.ahead.needed(settings.engine) else AUTO)
    repository = ModelRepository(settings.models)
    tasks, told = _tasks(loader, repository, found.ahead, device, wanted)
    builds = EngineBuilds(settings.engine_cache / PLANS, jobs=wanted.jobs)
    try:
        return told + _build(tasks, builds, progress)
    finally:
        builds.close()


def _tasks(
    loader: ModelLoader, repository: ModelRepository, ahead: AheadOfTime, device: str, wanted: Wanted
) -> tuple[list[_Task], list[Compiled]]:
    """What is to be built, and the models of which that cannot even be told."""
    tasks: list[_Task] = []
    broken: list[Compiled] = []
    for name in wanted.names or repository.names():
        try:
            folder = repository.read(name)
            tasks.extend(_of_model(loader, folder, ahead, device, wanted))
        except InferenceError as error:
            if wanted.profiles:
                raise
            broken.append(Compiled(model=name, engine="", state=BuildState(state=FAILED, reason=str(error))))
    return tasks, broken


def _of_model(loader: ModelLoader, folder: ModelFolder, ahead: AheadOfTime, device: str, wanted: Wanted) -> list[_Task]:
    if folder.configuration.steps:
        return []  # a graph of other models has no file
    profiles = tuple(map(read_profile, wanted.profiles))
    pin = loader.pin(folder.configuration, device)
    if pin != AUTO and not ahead.needed(pin):
        return []  # its owner wants another engine
    tasks = []
    for file in folder.versions:
        if file.path.suffix == PLAN_SUFFIX:
            continue
        model = loader.model_file(folder, file, device)
        if profiles:
            ahead.keep_profiles(model, profiles)
        for label in _labels(ahead, pin, wanted):
            recipe = ahead.recipe(model, label)
            if recipe is not None:
                tasks.append(_Task(model=f"{folder.name}:{file.version}", recipe=recipe))
    return tasks


def _labels(ahead: AheadOfTime, pin: str, wanted: Wanted) -> list[str]:
    if not wanted.precisions:
        return ahead.wanted(pin) or ahead.wanted(NATIVE)
    engine = pin.partition(":")[0] if pin != AUTO else NATIVE
    return [f"{engine}:{precision}" for precision in wanted.precisions]


def _build(tasks: Sequence[_Task], builds: EngineBuilds, progress: Callable[[str, BuildState], None]) -> list[Compiled]:
    begun = time.monotonic()
    seconds: dict[str, float] = {}
    for task in tasks:
        if builds.plans.find(task.recipe):
            task.ended.set()
        else:
            builds.request(task.recipe, task.ended.set)
    while True:
        waits = False
        for task in tasks:
            state = builds.state(task.recipe) or BuildState(state=BUILDING)
            progress(f"{task.model} {task.recipe.label}", state)
            if task.ended.is_set():
                seconds.setdefault(task.recipe.key, time.monotonic() - begun)
            waits = waits or not task.ended.is_set()
        if not waits:
            break
        time.sleep(_POLL_SECONDS)
    states = {task.recipe.key: builds.state(task.recipe) or BuildState(state=BUILT) for task in tasks}
    return [
        Compiled(model=task.model, engine=task.recipe.label, state=states[task.recipe.key], seconds=seconds[task.recipe.key])
        for task in tasks
    ]
