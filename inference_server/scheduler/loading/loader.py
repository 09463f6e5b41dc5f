"""Turns a version of the repository into engines that are warm and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from inference_server.engine.port import Engine, Tensors
from inference_server.engine.portions import in_portions
from inference_server.engine.selection.selector import AUTO, PLAN_SUFFIX, EngineSelector, ModelFile, Selection, label
from inference_server.engine.tensorrt.plans import Recipe
from inference_server.engine.tensorrt.profiles import most_rows
from inference_server.errors import ConfigurationError, DeviceFailed, ModelFailed
from inference_server.models.completion import Completed, complete
from inference_server.models.repository import ModelFolder, VersionFile
from inference_server.models.values import ConfigMessage, Configuration
from inference_server.scheduler.dispatch.executor import PlacedEngine
from inference_server.scheduler.fallback import SpareEngine, missing_devices
from inference_server.scheduler.loading.memory import Holdings, MemoryBudget
from inference_server.scheduler.loading.placement import Place, check_accelerators, options_on, pin_of, places_of, profiles_of
from inference_server.scheduler.loading.samples import Samples, rows_are_independent, specs_of
from inference_server.scheduler.port import ModelFacts
from inference_server.threads import usable_cores

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A version, ready to serve."""

    facts: ModelFacts
    # The complete configuration.
    config: ConfigMessage
    # One for each instance.
    placed: tuple[PlacedEngine, ...]
    # What it takes of the memory for models, until it is released.
    memory: Holdings
    # Names of the classes, in the order of their indices, by output.
    labels: Mapping[str, tuple[str, ...]]
    # Engines that are wanted for it, and are not built yet.
    unbuilt: tuple[Recipe, ...] = ()


class ModelLoader:
    """Loads versions of models; blocks.

    `engines`: the selector of each device, the server's own device first. `pin`: engine of the models that name none of their own.
    `default_max_batch_size`: for models that take batches and whose owner gives no size. `cpu_fallback`: whether the CPU may answer
    where a GPU fails. `memory`: for all models; `gpu_memory`: of each GPU, by device.
    """

    def __init__(
        self,
        engines: Mapping[str, EngineSelector],
        *,
        pin: str = AUTO,
        default_max_batch_size: int = 32,
        cpu_fallback: bool = False,
        memory: MemoryBudget | None = None,
        gpu_memory: Mapping[str, MemoryBudget] | None = None,
    ) -> None:
        self._engines = dict(engines)
        self.cpu_fallback = cpu_fallback
        self._memory = memory or MemoryBudget()
        self._gpu_memory = dict(gpu_memory or {})
        self._pin = pin
        self.default_max_batch_size = default_max_batch_size

    def load(self, folder: ModelFolder, file: VersionFile) -> LoadedModel:
        """Load, check and warm up one version. Raises `ConfigurationError`, `ModelFailed` or `MemoryExhausted`."""
        sha256, digest = file.digests()
        memory = Holdings()
        try:
            devices = [place.selector.device for place in self.places(folder)]
            memory.hold(folder.name, file.path.parent, devices, host=self._memory, gpus=self._gpu_memory)
            loaded = _Loading(self, folder, file, sha256=sha256, digest=digest).run(memory)
            memory.measure()
        except BaseException:
            memory.release()
            raise
        return loaded

    def model_file(self, folder: ModelFolder, file: VersionFile, device: str) -> ModelFile:
        """What engines are chosen, and built, for on a device. Raises `ModelFailed` when the file is not there."""
        sha256, digest = file.digests()
        return _Loading(self, folder, file, sha256=sha256, digest=digest).model(self._engines[device], folder.configuration.threads)

    def places(self, folder: ModelFolder) -> list[Place]:
        """Where each instance goes."""
        return places_of(folder.name, folder.configuration, self._engines)

    def pin(self, configuration: Configuration, device: str) -> str:
        """The engine that a model must have on a device, or `auto`."""
        return pin_of(configuration, device) or self._pin

    def completed(self, folder: ModelFolder, engine: Engine, *, batches: bool) -> Completed:
        """The configuration checked against a loaded file and filled in."""
        return complete(
            folder.name,
            folder.configuration,
            inputs=engine.inputs,
            outputs=engine.outputs,
            default_max_batch_size=most_rows(engine, self.default_max_batch_size) if batches else 0,
        )


class _Loading:
    """The loading of one version."""

    def __init__(self, loader: ModelLoader, folder: ModelFolder, file: VersionFile, *, sha256: str, digest: str) -> None:
        self._loader = loader
        self._folder = folder
        self._file = file
        self._sha256 = sha256
        self._digest = digest
        self._configuration = folder.configuration
        self._samples = Samples(folder.name, folder.configuration)
        self._batches = True
        self._unbuilt: tuple[Recipe, ...] = ()

    def run(self, memory: Holdings) -> LoadedModel:
        places = self._loader.places(self._folder)
        selectors = [place.selector for place in places]
        check_accelerators(self._folder.name, self._configuration, (selector.device for selector in selectors))
        threads = self._threads(selectors)
        spare = SpareEngine(partial(selectors[0].load_reference, self._file.path), model=self._folder.name)
        chosen: dict[str, str] = {}
        placed = [self._placed(place, chosen, threads, spare) for place in places]
        completed = self._checked_batches(placed[0].engine)
        self._check_plan(placed[0].engine, completed)
        for each in placed:
            self._samples.warm_up(each, completed, sample=self._sample)
        return self._loaded(placed, completed, memory)

    def _placed(self, place: Place, chosen: dict[str, str], threads: int, spare: SpareEngine) -> PlacedEngine:
        """An engine for a place: the one `chosen` for its device already, or the one that is chosen now."""
        selector, device = place.selector, place.selector.device
        may_fall_back = device != "cpu" and self._loader.cpu_fallback and self._file.path.suffix != PLAN_SUFFIX
        try:
            if device in chosen:
                engine = selector.load_instance(self.model(selector, threads), chosen[device])
            else:
                engine = self._select(selector, threads).engine
                chosen[device] = label(engine)
        except ModelFailed as error:
            if not may_fall_back:
                raise
            _log.warning("model_falls_back_to_cpu", model=self._folder.name, device=device, reason=str(error))
            cause = error.cause if isinstance(error, DeviceFailed) else "engine_not_built"
            return PlacedEngine(engine=selector.load_reference(self._file.path), device="cpu", rate=place.rate, fallback=cause)
        if device == "cpu":
            run_bytes = self._configuration.run_bytes * (threads or usable_cores())
            engine = in_portions(engine, run_bytes, self._configuration.run_rows)
        return PlacedEngine(engine=engine, device=device, rate=place.rate, spare=spare if may_fall_back else None)

    def _check_plan(self, engine: Engine, completed: Completed) -> None:
        """A plan takes no more rows than it was built for, and there is nothing else that could run them."""
        most = most_rows(engine, completed.max_batch_size)
        if self._file.path.suffix == PLAN_SUFFIX and most < completed.max_batch_size:
            raise ConfigurationError(
                f"{self._folder.name}/config.pbtxt has max_batch_size {completed.max_batch_size}; the plan was built for {most} rows"
            )

    def _threads(self, selectors: list[EngineSelector]) -> int:
        """Instances on the CPU share its cores, unless the owner says otherwise; 0 leaves it to the engine's loader."""
        on_cpu = sum(selector.device == "cpu" for selector in selectors)
        return self._configuration.threads or (max(1, usable_cores() // on_cpu) if on_cpu > 1 else 0)

    def model(self, selector: EngineSelector, threads: int) -> ModelFile:
        """The version's file with all that a choice hangs on."""
        return ModelFile(
            path=self._file.path,
            digest=self._digest,
            sample=self._sample,
            sample_key=self._samples.key(),
            sample_given=self._samples.are_given,
            threads=threads,
            tolerance=self._configuration.tolerance,
            options=options_on(self._configuration, selector.device),
            profiles=partial(
                profiles_of,
                self._configuration,
                default_max_batch_size=self._loader.default_max_batch_size,
                device=selector.device,
            ),
        )

    def _select(self, selector: EngineSelector, threads: int) -> Selection:
        model = self.model(selector, threads)
        pin = self._loader.pin(self._configuration, selector.device)
        selection = selector.select(model, pin=pin)
        self._unbuilt = (*self._unbuilt, *selection.unbuilt)
        _log.info(
            "engine_selected",
            model=self._folder.name,
            version=self._file.version,
            device=selector.device,
            engine=label(selection.engine),
            pin=pin,
            cached=selection.cached,
            candidates={
                measured.candidate: selector.refusal(measured, model.tolerance)
                or f"{measured.seconds * 1000:.2f} ms, error {measured.error:.4%}"
                for measured in selection.measurements
            },
        )
        return selection

    def _sample(self, engine: Engine) -> Tensors:
        return self._samples.of(engine, self._loader.completed(self._folder, engine, batches=self._batches))

    def _checked_batches(self, engine: Engine) -> Completed:
        """Where the batch dimension is a guess, make sure that rows do not depend on each other: else requests must not be merged."""
        completed = self._loader.completed(self._folder, engine, batches=True)
        if completed.batch_size_guessed and not rows_are_independent(engine, self._sample(engine)):
            _log.warning(
                "model_takes_no_batches", model=self._folder.name, reason="its rows depend on each other, or it refused the sample"
            )
            self._batches = False
            completed = self._loader.completed(self._folder, engine, batches=False)
        return completed

    def _loaded(self, placed: list[PlacedEngine], completed: Completed, memory: Holdings) -> LoadedModel:
        first = placed[0].engine
        facts = ModelFacts(
            name=self._folder.name,
            version=self._file.version,
            engine=label(first),
            inputs=specs_of(first.inputs, completed),
            outputs=specs_of(first.outputs, completed),
            max_batch_size=completed.max_batch_size,
            sha256=self._sha256,
            parameters=self._configuration.parameters,
            instances=len(placed),
            batching=self._configuration.batching,
            without=missing_devices(placed),
        )
        return LoadedModel(
            facts=facts,
            config=completed.message,
            placed=tuple(placed),
            memory=memory,
            labels=self._folder.labels,
            unbuilt=self._unbuilt,
        )
