"""Which engine serves a model: the fastest of those that agree with the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import structlog

from inference_server.engine.port import Engine, Tensors, TensorSpec
from inference_server.engine.runtimes import Runtimes
from inference_server.engine.selection.agreement import DEFAULT_TOLERANCE
from inference_server.engine.selection.contest import Contest
from inference_server.engine.selection.measurements import Measurement, MeasurementCache
from inference_server.engine.selection.stopwatch import quiet_seconds, wall_seconds
from inference_server.engine.tensorrt.ahead import NATIVE, Built
from inference_server.engine.tensorrt.plans import Recipe
from inference_server.engine.tensorrt.profiles import Profile, likely_profile
from inference_server.engine.tensorrt.ranged import RangedEngine
from inference_server.errors import ConfigurationError, ModelFailed

AUTO = "auto"
# How the files of plans are named that owners built, and what they compute in: nobody else knows.
PLAN_SUFFIX, PLAN_PRECISION = ".plan", "plan"
EngineOptions = Mapping[str, Mapping[str, str]]
# Candidates whose times differ by no more than this share are as fast as each other.
_EQUAL = 0.03
# Raised when candidates are measured in another way: what was kept of the old one is measured again.
_METHOD = 2
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The engine that was chosen, warmed up, and why."""

    engine: Engine
    # How each candidate did; empty when a pin named one exactly or left the reference alone, or when the sample was a guess that the model
    # refused.
    measurements: tuple[Measurement, ...]
    # Whether they come from an earlier start.
    cached: bool
    # Engines that are wanted for the model, and are not built yet.
    unbuilt: tuple[Recipe, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model to choose an engine for."""

    path: Path
    # SHA-256 of the file and whatever lies beside it that it may read.
    digest: str
    # Makes the input to compare and measure on from the tensors that a loaded engine tells; may raise `ConfigurationError`.
    sample: Callable[[Engine], Tensors]
    # Tells one sample from another without making it.
    sample_key: str = ""
    # Whether the model's owner gave the sample: then a model that refuses it is broken.
    sample_given: bool = False
    # Computing threads of one run; 0 for the loaders' own number.
    threads: int = 0
    # Largest deviation that its owner allows; None for the selector's.
    tolerance: float | None = None
    # Its own options of runtimes, by engine and in the runtime's names.
    options: EngineOptions = field(default_factory=dict)
    # The ranges of shapes that engines are built for where they are built ahead, by the model's inputs.
    profiles: Callable[[Sequence[TensorSpec]], tuple[Profile, ...]] = lambda inputs: (likely_profile(inputs, rows=0, shapes={}),)


def label(engine: Engine) -> str:
    """An engine and its precision, as pins, facts and metrics write them."""
    return f"{engine.name}:{engine.precision}"


class EngineSelector:
    """Measures the candidates of a device on a model and keeps the fastest that agrees with the reference.

    `tolerance`: largest deviation (see `agreement`) that a candidate may have. `cache`: where measurements are kept; None for nowhere.
    """

    def __init__(self, runtimes: Runtimes, *, cache: MeasurementCache | None = None, tolerance: float = DEFAULT_TOLERANCE) -> None:
        self._runtimes = runtimes
        self._cache = cache
        self._tolerance = tolerance
        self._loaders = {loader.name: loader for loader in runtimes.candidates}
        self._ahead = runtimes.ahead

    @property
    def device(self) -> str:
        """Where the candidates run."""
        return self._runtimes.device

    @property
    def device_memory(self) -> Callable[[], tuple[int, int]] | None:
        """Tells free and total bytes of the device's own memory; None for the CPU."""
        return self._runtimes.memory

    def check_pin(self, pin: str) -> None:
        """Raises `ConfigurationError` for a pin that no candidate of this machine fulfils."""
        if pin != AUTO and not any(_pinned(candidate, pin) for candidate in self._labels()):
            raise ConfigurationError(
                f"there is no engine {pin} on {self.device}; expected {AUTO}, {', '.join([*self._loaders, *self._labels()])}"
            )

    def load(self, path: Path, candidate: str, *, threads: int = 0, options: EngineOptions | None = None) -> Engine:
        """Load a file with the engine and precision of a label, one that is not built ahead; `options` by engine."""
        name, _, precision = candidate.partition(":")
        return self._loaders[name].load(path, precision, threads=threads, options=(options or {}).get(name))

    def load_instance(self, model: ModelFile, candidate: str) -> Engine:
        """Load one more instance with the engine and precision of a label."""
        built = self._built(model, candidate) if self._is_ahead(model, candidate) else None
        if built is None:
            return self.load(model.path, candidate, threads=model.threads, options=model.options)
        name, _, precision = candidate.partition(":")
        engine = self._loaders[name].load(built.path, precision, threads=model.threads, options=built.options)
        other = next(label for label in self._labels() if not self._is_ahead(model, label))
        return RangedEngine(engine, profiles=built.recipe.profiles, load_other=lambda: self.load_instance(model, other))

    def load_reference(self, path: Path, *, threads: int = 0) -> Engine:
        """Load what the candidates are compared with: float32 on the CPU, whatever the device."""
        return self._runtimes.reference.load(path, self._runtimes.reference.precisions[0], threads=threads)

    def select(self, model: ModelFile, *, pin: str = AUTO) -> Selection:
        """The engine that is to serve; blocks for as long as the candidates take to load and run.

        `pin`: `auto`, an engine, or engine:precision, which is taken at its word and not compared. Raises `ConfigurationError` for
        a pin that names nothing here, `ModelFailed` when no candidate can serve.
        """
        self.check_pin(pin)
        if model.path.suffix == PLAN_SUFFIX:
            return Selection(engine=self._plan(model, pin), measurements=(), cached=False)
        unbuilt = self._unbuilt(model, pin)
        ready = self._ready(model)
        if pin != AUTO and not any(_pinned(label, pin) for label in ready):
            pin = AUTO  # what is pinned serves as soon as it is built
        selection = self._selected(model, pin, ready)
        return replace(selection, unbuilt=unbuilt)

    def _selected(self, model: ModelFile, pin: str, ready: tuple[str, ...]) -> Selection:
        named = tuple(label for label in ready if pin == AUTO or _pinned(label, pin))
        if pin in ready or (pin != AUTO and named == self._references()):
            return Selection(engine=self._warm(model, named[0]), measurements=(), cached=False)
        for known in self._known(model, ready, named):
            try:
                return Selection(engine=self._warm(model, self._fastest(known, pin, model)), measurements=known, cached=True)
            except ModelFailed as error:
                _log.warning("engine_measurements_outdated", file=model.path.name, reason=str(error))
        measurements = self._measured(model, named)
        if not measurements:
            return Selection(engine=self._warm(model, named[0]), measurements=(), cached=False)
        if self._cache:
            self._cache.write(self._key(model, ready, named), measurements)
        return Selection(engine=self._warm(model, self._fastest(measurements, pin, model)), measurements=measurements, cached=False)

    def _known(self, model: ModelFile, ready: tuple[str, ...], named: tuple[str, ...]) -> Iterator[tuple[Measurement, ...]]:
        """What was measured of the candidates that a pin names, first among them alone: that is measured where the other does not serve."""
        keys = [self._key(model, ready, each) for each in dict.fromkeys((named, ready))]
        return (known for key in keys if self._cache and (known := self._cache.read(key)))

    def _plan(self, model: ModelFile, pin: str) -> Engine:
        """A plan that the owner built: TensorRT alone can run it, and nothing can be compared with it."""
        loader = self._loaders.get(NATIVE)
        if loader is None or pin not in (AUTO, NATIVE):
            there = pin if loader else ", ".join(self._loaders)
            raise ConfigurationError(
                f"{model.path.name} is a plan of TensorRT, which is to run on {self.device} with {there}; run it on a GPU with TensorRT, "
                "or give the model as ONNX"
            )
        engine = loader.load(model.path, PLAN_PRECISION, options=model.options.get(NATIVE))
        self._try(model, engine)
        return engine

    def _is_ahead(self, model: ModelFile, candidate: str) -> bool:
        return self._ahead is not None and self._ahead.needed(candidate) and model.path.suffix != PLAN_SUFFIX

    def _recipe(self, model: ModelFile, candidate: str) -> Recipe | None:
        return self._ahead.recipe(model, candidate) if self._ahead and self._is_ahead(model, candidate) else None

    def _built(self, model: ModelFile, candidate: str) -> Built | None:
        recipe = self._recipe(model, candidate)
        return self._ahead.built(model, recipe) if self._ahead and recipe else None

    def _ready(self, model: ModelFile) -> tuple[str, ...]:
        """The candidates that need no building, or were built."""
        return tuple(label for label in self._labels() if not self._is_ahead(model, label) or self._built(model, label))

    def _unbuilt(self, model: ModelFile, pin: str) -> tuple[Recipe, ...]:
        wanted = self._ahead.wanted(pin) if self._ahead else []
        recipes = [recipe for label in wanted if (recipe := self._recipe(model, label))]
        return tuple(recipe for recipe in recipes if self._ahead and not self._ahead.plans.find(recipe))

    def _warm(self, model: ModelFile, candidate: str) -> Engine:
        engine = self.load_instance(model, candidate)
        self._try(model, engine)
        return engine

    def _try(self, model: ModelFile, engine: Engine) -> None:
        sample = model.sample(engine)
        try:
            engine.run(sample)
        except ModelFailed:
            if model.sample_given:
                raise

    def _measured(self, model: ModelFile, named: Sequence[str]) -> tuple[Measurement, ...]:
        """How these candidates do; empty when the sample is a guess that the reference refuses, so that nothing can be compared."""
        reference = self.load_reference(model.path, threads=model.threads)
        sample = model.sample(reference)
        try:
            expected = reference.run(sample)
        except ModelFailed as error:
            if model.sample_given:
                raise
            _log.warning("engines_not_compared", file=model.path.name, reason=str(error), hint="give the model a model_warmup")
            return ()
        contest = Contest(
            sample,
            expected,
            clock=quiet_seconds if self.device == "cpu" else wall_seconds,
            may_lead=lambda measured: not self.refusal(measured, model.tolerance),
            apart=self.device != "cpu",
        )
        # The reference is a candidate itself, or in the way of two others.
        loaded = {label(reference): reference} if label(reference) in self._references() and label(reference) in named else {}
        del reference
        return tuple(contest.measure(each, partial(self._taken, loaded, model, each)) for each in named)

    def _taken(self, loaded: dict[str, Engine], model: ModelFile, candidate: str) -> Engine:
        return loaded.pop(candidate, None) or self.load_instance(model, candidate)

    def _fastest(self, measurements: tuple[Measurement, ...], pin: str, model: ModelFile) -> str:
        candidates = [measured for measured in measurements if pin == AUTO or _pinned(measured.candidate, pin)]
        agreeing = [measured for measured in candidates if not self.refusal(measured, model.tolerance)]
        if not agreeing:
            reasons = "; ".join(f"{measured.candidate}: {self.refusal(measured, model.tolerance)}" for measured in candidates)
            raise ModelFailed(f"no engine can serve the model: {reasons or 'none was measured'}")
        least = min(measured.seconds for measured in agreeing)
        # Of equals the first, so that each start chooses the same.
        return next(measured.candidate for measured in agreeing if measured.seconds <= least * (1 + _EQUAL))

    def refusal(self, measured: Measurement, tolerance: float | None = None) -> str:
        """Why a candidate may not serve; empty when it may. `tolerance`: the model's own, None for the selector's."""
        allowed = self._tolerance if tolerance is None else tolerance
        if measured.failure:
            return measured.failure
        if not measured.error <= allowed:
            return f"deviates by {measured.error:.2%} from the float32 reference, of which {allowed:.2%} is allowed"
        return ""

    def _references(self) -> tuple[str, ...]:
        """The reference, where it may serve: alone it is compared with nothing."""
        reference = self._runtimes.reference
        return (f"{reference.name}:{reference.precisions[0]}",) if reference in self._runtimes.candidates else ()

    def _labels(self) -> list[str]:
        return [f"{loader.name}:{precision}" for loader in self._runtimes.candidates for precision in loader.precisions]

    def _key(self, model: ModelFile, ready: Sequence[str], named: Sequence[str]) -> dict[str, object]:
        versions = {label: self._loaders[label.partition(":")[0]].version for label in self._labels()}
        machine = dict(self._runtimes.machine) | {"model_threads": str(model.threads)}
        key: dict[str, object] = {"model": model.digest, "machine": machine, "versions": versions, "sample": model.sample_key}
        key["method"] = _METHOD
        built = sorted(recipe.key for candidate in ready if (recipe := self._recipe(model, candidate)))
        key |= {"built": built} if built else {}
        key |= {"candidates": list(named)} if len(named) < len(ready) else {}
        return key | ({"options": {name: dict(options) for name, options in model.options.items()}} if model.options else {})


def _pinned(candidate: str, pin: str) -> bool:
    return candidate == pin or candidate.partition(":")[0] == pin
