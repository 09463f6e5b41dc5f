"""Which engine serves a model: the fastest of those that agree with the reference."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from inference_server.engine.agreement import DEFAULT_TOLERANCE, deviation
from inference_server.engine.measurements import Measurement, MeasurementCache
from inference_server.engine.port import Engine, Tensors
from inference_server.engine.runtimes import Runtimes
from inference_server.errors import ConfigurationError, ModelFailed

AUTO = "auto"
EngineOptions = Mapping[str, Mapping[str, str]]
_WARM_UP_RUNS = 2
_TIMED_RUNS = 7
# Timing of one candidate ends after this many seconds, given at least three runs.
_TIMING_SECONDS = 0.5
_FEWEST_RUNS = 3
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The engine that was chosen, warmed up, and why."""

    engine: Engine
    # How each candidate did; empty when a pin named one exactly, or when the sample was a guess that the model refused.
    measurements: tuple[Measurement, ...]
    # Whether they come from an earlier start.
    cached: bool


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

    @property
    def device(self) -> str:
        """Where the candidates run."""
        return self._runtimes.device

    def check_pin(self, pin: str) -> None:
        """Raises `ConfigurationError` for a pin that no candidate of this machine fulfils."""
        if pin != AUTO and not any(_pinned(candidate, pin) for candidate in self._labels()):
            raise ConfigurationError(
                f"there is no engine {pin} on {self.device}; expected {AUTO}, {', '.join([*self._loaders, *self._labels()])}"
            )

    def load(self, path: Path, candidate: str, *, threads: int = 0, options: EngineOptions | None = None) -> Engine:
        """Load one more instance with the engine and precision of a label; `options` by engine."""
        name, _, precision = candidate.partition(":")
        return self._loaders[name].load(path, precision, threads=threads, options=(options or {}).get(name))

    def load_reference(self, path: Path, *, threads: int = 0) -> Engine:
        """Load what the candidates are compared with: float32 on the CPU, whatever the device."""
        return self._runtimes.reference.load(path, self._runtimes.reference.precisions[0], threads=threads)

    def select(self, model: ModelFile, *, pin: str = AUTO) -> Selection:
        """The engine that is to serve; blocks for as long as the candidates take to load and run.

        `pin`: `auto`, an engine, or engine:precision, which is taken at its word and not compared. Raises `ConfigurationError` for
        a pin that names nothing here, `ModelFailed` when no candidate can serve.
        """
        self.check_pin(pin)
        if pin in self._labels():
            return Selection(engine=self._warm(model, pin), measurements=(), cached=False)
        key = self._key(model)
        known = self._cache.read(key) if self._cache else ()
        if known:
            try:
                return Selection(engine=self._warm(model, self._fastest(known, pin, model)), measurements=known, cached=True)
            except ModelFailed as error:
                _log.warning("engine_measurements_outdated", file=model.path.name, reason=str(error))
        measurements = self._measured(model)
        if not measurements:
            candidate = next(label for label in self._labels() if pin == AUTO or _pinned(label, pin))
            return Selection(engine=self._warm(model, candidate), measurements=(), cached=False)
        if self._cache:
            self._cache.write(key, measurements)
        return Selection(engine=self._warm(model, self._fastest(measurements, pin, model)), measurements=measurements, cached=False)

    def _warm(self, model: ModelFile, candidate: str) -> Engine:
        engine = self.load(model.path, candidate, threads=model.threads, options=model.options)
        sample = model.sample(engine)
        try:
            engine.run(sample)
        except ModelFailed:
            if model.sample_given:
                raise
        return engine

    def _measured(self, model: ModelFile) -> tuple[Measurement, ...]:
        """How the candidates do; empty when the sample is a guess that the reference refuses, so that nothing can be compared."""
        reference = self.load_reference(model.path, threads=model.threads)
        sample = model.sample(reference)
        try:
            expected = reference.run(sample)
        except ModelFailed as error:
            if model.sample_given:
                raise
            _log.warning("engines_not_compared", file=model.path.name, reason=str(error), hint="give the model a model_warmup")
            return ()
        return tuple(self._measure(model, reference, sample, expected))

    def _measure(self, model: ModelFile, reference: Engine, sample: Tensors, expected: Tensors) -> Iterator[Measurement]:
        for loader in self._runtimes.candidates:
            for precision in loader.precisions:
                candidate = f"{loader.name}:{precision}"
                try:
                    again = loader is self._runtimes.reference and precision == reference.precision
                    options = model.options.get(loader.name)
                    engine = reference if again else loader.load(model.path, precision, threads=model.threads, options=options)
                    error = deviation(engine.run(sample), expected)
                    yield Measurement(candidate=candidate, seconds=_median_seconds(engine, sample), error=error)
                except ModelFailed as failure:
                    yield Measurement(candidate=candidate, seconds=math.inf, error=math.inf, failure=str(failure))

    def _fastest(self, measurements: tuple[Measurement, ...], pin: str, model: ModelFile) -> str:
        candidates = [measured for measured in measurements if pin == AUTO or _pinned(measured.candidate, pin)]
        agreeing = [measured for measured in candidates if not self.refusal(measured, model.tolerance)]
        if not agreeing:
            reasons = "; ".join(f"{measured.candidate}: {self.refusal(measured, model.tolerance)}" for measured in candidates)
            raise ModelFailed(f"no engine can serve the model: {reasons or 'none was measured'}")
        return min(agreeing, key=lambda measured: measured.seconds).candidate

    def refusal(self, measured: Measurement, tolerance: float | None = None) -> str:
        """Why a candidate may not serve; empty when it may. `tolerance`: the model's own, None for the selector's."""
        allowed = self._tolerance if tolerance is None else tolerance
        if measured.failure:
            return measured.failure
        if not measured.error <= allowed:
            return f"deviates by {measured.error:.2%} from the float32 reference, of which {allowed:.2%} is allowed"
        return ""

    def _labels(self) -> list[str]:
        return [f"{loader.name}:{precision}" for loader in self._runtimes.candidates for precision in loader.precisions]

    def _key(self, model: ModelFile) -> dict[str, object]:
        versions = {label: self._loaders[label.partition(":")[0]].version for label in self._labels()}
        machine = dict(self._runtimes.machine) | {"model_threads": str(model.threads)}
        key: dict[str, object] = {"model": model.digest, "machine": machine, "versions": versions, "sample": model.sample_key}
        return key | ({"options": {name: dict(options) for name, options in model.options.items()}} if model.options else {})


def _pinned(candidate: str, pin: str) -> bool:
    return candidate == pin or candidate.partition(":")[0] == pin


def _median_seconds(engine: Engine, sample: Tensors) -> float:
    """Median of the warm runs: the first ones set up memory and kernels, and one may be disturbed by other work."""
    for _ in range(_WARM_UP_RUNS - 1):
        engine.run(sample)
    seconds: list[float] = []
    while len(seconds) < _TIMED_RUNS and (len(seconds) < _FEWEST_RUNS or sum(seconds) < _TIMING_SECONDS):
        start = time.perf_counter()
        engine.run(sample)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
