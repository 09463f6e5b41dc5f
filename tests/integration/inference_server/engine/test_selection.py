"""Which engine is kept, and what is remembered of the others."""

from __future__ import annotations

import itertools
import json
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_server.engine.port import Engine, Tensors
from inference_server.engine.runtimes import Runtimes, discover
from inference_server.engine.selection import stopwatch
from inference_server.engine.selection.agreement import deviation
from inference_server.engine.selection.measurements import Measurement, MeasurementCache
from inference_server.engine.selection.sample import representative
from inference_server.engine.selection.selector import EngineSelector, ModelFile, label
from inference_server.engine.selection.stopwatch import ThreadTimes
from inference_server.errors import ConfigurationError, ModelFailed
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, gpu_selector
from tests.support.models.reference_engine import selector as reference_selector
from tests.support.virtual_clock import VirtualClock, measured_virtually


def _sample(engine: Engine) -> Tensors:
    return representative(engine.inputs, rows=2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    return measured_virtually(monkeypatch)


@pytest.fixture
def model(tmp_path: Path, clock: VirtualClock) -> ModelFile:
    """One that is measured by the virtual clock, as all but the real engines are here."""
    return ModelFile(path=onnx_models.write_model(tmp_path, "double", onnx_models.double()), digest="abc", sample=_sample)


REFERENCE = ReferenceLoader("exact", seconds=0.02)


def selector(*candidates: ReferenceLoader, **options: Any) -> EngineSelector:
    return EngineSelector(
        Runtimes(device="cpu", reference=REFERENCE, candidates=(REFERENCE, *candidates), machine={"cpu": "test"}), **options
    )


def chosen(selector: EngineSelector, model: ModelFile, **options: Any) -> str:
    return label(selector.select(model, **options).engine)


def test_the_fastest_that_agrees_is_kept(model: ModelFile) -> None:
    loaders = (ReferenceLoader("slow", seconds=0.03), ReferenceLoader("fast", seconds=0.001), ReferenceLoader("medium", seconds=0.01))
    assert "fast:float32" == chosen(selector(*loaders), model)


def test_on_a_gpu_the_time_on_the_wall_counts_however_long_other_threads_wait(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = ({"other": ThreadTimes(ran=number, waited=number * 10**9)} for number in itertools.count())
    monkeypatch.setattr(stopwatch, "thread_times", lambda: next(readings))
    runtimes = Runtimes(
        device="cuda:0", reference=REFERENCE, candidates=(ReferenceLoader("device", seconds=0.01),), machine={"cpu": "test"}
    )

    [measured] = EngineSelector(runtimes).select(model).measurements

    assert measured.seconds >= 0.01


def test_one_that_disagrees_is_dropped_however_fast(model: ModelFile) -> None:
    wrong = ReferenceLoader("wrong", error=0.03)
    selection = selector(wrong).select(model)
    assert "exact:float32" == label(selection.engine)
    assert [0.0, 0.03] == [pytest.approx(measured.error, abs=1e-6) for measured in selection.measurements]
    assert "deviates by 3.00% from the float32 reference, of which 2.00% is allowed" == selector().refusal(selection.measurements[1])


def test_one_that_errs_as_bfloat16_does_is_kept(model: ModelFile) -> None:
    assert "bf16:bfloat16" == chosen(selector(ReferenceLoader("bf16", error=0.006, precisions=("bfloat16",))), model)


def test_the_owner_may_allow_more(model: ModelFile) -> None:
    assert "wrong:float32" == chosen(selector(ReferenceLoader("wrong", error=0.03)), replace(model, tolerance=0.05))


def test_one_that_cannot_load_the_model_is_passed_over(model: ModelFile) -> None:
    class Refusing(ReferenceLoader):
        def load(self, path: Path, precision: str, *, threads: int = 0, options: Any = None) -> Any:
            raise ModelFailed("an operator is missing")

    selection = selector(Refusing("refusing")).select(model)
    assert "exact:float32" == label(selection.engine)
    assert "an operator is missing" == selection.measurements[1].failure


def test_a_pin_of_an_engine_leaves_its_precisions_to_the_measurement(model: ModelFile) -> None:
    other = ReferenceLoader("other", seconds=0.03, precisions=("float32", "bfloat16"))
    assert chosen(selector(other), model, pin="other").startswith("other:")


def test_a_pin_of_an_engine_has_no_other_measured_and_is_served_by_what_was_measured_of_all(model: ModelFile, tmp_path: Path) -> None:
    loaders = ReferenceLoader("pinned", seconds=0.02, precisions=("float32", "bfloat16")), ReferenceLoader("another", seconds=0.001)
    cache = MeasurementCache(tmp_path / "cache")
    pinned = selector(*loaders, cache=cache).select(model, pin="pinned")
    assert ["pinned:float32", "pinned:bfloat16"] == [measured.candidate for measured in pinned.measurements]
    assert [] == loaders[1].runs
    assert selector(*loaders, cache=cache).select(model, pin="pinned").cached
    # What was measured of some does not stand for all.
    whole = selector(*loaders, cache=cache).select(model)
    assert (False, "another:float32", 4) == (whole.cached, label(whole.engine), len(whole.measurements))
    again = selector(*loaders, cache=cache).select(model, pin="another")
    assert (True, "another:float32") == (again.cached, label(again.engine))


def test_a_pinned_engine_that_failed_among_all_is_measured_once_by_itself(model: ModelFile, tmp_path: Path) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    pinned = Small("pinned", alive, holds=0, seconds=0.01)
    cache = MeasurementCache(tmp_path / "cache")
    assert "exact:float32" == chosen(selector(pinned, cache=cache), model)
    pinned.holds = 2

    starts = [selector(pinned, cache=cache).select(model, pin="pinned") for _ in range(2)]

    assert [(False, "pinned:float32"), (True, "pinned:float32")] == [(each.cached, label(each.engine)) for each in starts]


def test_a_pin_that_leaves_the_reference_alone_has_nothing_measured(model: ModelFile) -> None:
    reference, another = ReferenceLoader("exact"), ReferenceLoader("another")
    selection = reference_selector(reference, another).select(model, pin="exact")
    assert ("exact:float32", ()) == (label(selection.engine), selection.measurements)
    # To warm it up.
    assert (1, 0) == (len(reference.runs), len(another.runs))


def test_an_exact_pin_is_taken_at_its_word(model: ModelFile) -> None:
    selection = selector(ReferenceLoader("wrong", error=0.5)).select(model, pin="wrong:float32")
    assert ("wrong:float32", ()) == (label(selection.engine), selection.measurements)


@pytest.mark.parametrize("pin", ["abacus", "exact:int3", "exact:"])
def test_a_pin_that_names_nothing_here_is_refused(model: ModelFile, pin: str) -> None:
    with pytest.raises(ConfigurationError, match=f"there is no engine {pin} on cpu; expected auto, exact, exact:float32"):
        selector().select(model, pin=pin)


def test_a_pinned_engine_that_disagrees_is_told(model: ModelFile) -> None:
    with pytest.raises(ModelFailed, match="no engine can serve the model: wrong:float32: deviates by 50"):
        selector(ReferenceLoader("wrong", error=0.5)).select(model, pin="wrong")


def test_measurements_are_kept_for_the_next_start(model: ModelFile, tmp_path: Path) -> None:
    other = ReferenceLoader("other", seconds=0.001)
    cache = MeasurementCache(tmp_path / "cache")
    first = selector(other, cache=cache).select(model)
    runs = len(other.runs)
    again = selector(other, cache=cache).select(model)
    assert (False, True) == (first.cached, again.cached)
    assert (first.measurements, "other:float32") == (again.measurements, label(again.engine))
    assert runs + 1 == len(other.runs), "one warm-up run and no measurement"


@pytest.mark.parametrize("change", ["digest", "sample_key", "threads", "version", "machine"])
def test_measurements_of_something_else_are_not_used(model: ModelFile, tmp_path: Path, change: str) -> None:
    cache = MeasurementCache(tmp_path / "cache")
    selector(cache=cache).select(model)
    other: dict[str, Any] = {"digest": "def", "sample_key": "wide", "threads": 3}
    loader, machine = ReferenceLoader("exact"), {"cpu": "test"}
    if change in other:
        model = replace(model, **{change: other[change]})
    elif change == "version":
        loader.version = "2"
    else:
        machine = {"cpu": "another"}
    runtimes = Runtimes(device="cpu", reference=loader, candidates=(loader,), machine=machine)
    assert not EngineSelector(runtimes, cache=cache).select(model).cached


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}', "null", '{"measurements": [{"candidate": 1}]}'])
def test_a_damaged_cache_is_ignored(model: ModelFile, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "cache"
    selector(cache=MeasurementCache(folder)).select(model)
    (file,) = folder.iterdir()
    content = json.loads(file.read_text())
    file.write_text(damage.replace('{"measurements"', json.dumps({"key": content["key"]})[:-1] + ', "measurements"'))
    selection = selector(cache=MeasurementCache(folder)).select(model)
    assert (False, "exact:float32") == (selection.cached, label(selection.engine))
    assert content["key"] == json.loads(file.read_text())["key"]


def test_a_cache_that_cannot_be_written_costs_only_time(model: ModelFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert "exact:float32" == chosen(selector(cache=MeasurementCache(tmp_path / "file" / "cache")), model)


def test_failures_are_kept_too(tmp_path: Path) -> None:
    cache = MeasurementCache(tmp_path)
    measurements = (Measurement(candidate="a:float32", seconds=float("inf"), error=float("inf"), failure="no such operator"),)
    cache.write({"model": "abc"}, measurements)
    assert measurements == cache.read({"model": "abc"})


def test_a_guessed_sample_that_the_model_refuses_costs_the_comparison_only(tmp_path: Path) -> None:
    path = onnx_models.write_model(tmp_path, "lookup", onnx_models.lookup())
    model = ModelFile(path=path, digest="abc", sample=lambda _: {"index": np.array([99], np.int64)})
    selection = EngineSelector(discover()).select(model)
    assert ("onnxruntime:float32", ()) == (label(selection.engine), selection.measurements)
    with pytest.raises(ModelFailed):
        EngineSelector(discover()).select(replace(model, sample_given=True))


def test_the_engines_of_this_machine_agree_and_one_is_kept(tmp_path: Path) -> None:
    path = onnx_models.write_model(tmp_path, "products", onnx_models.products(8, side=256))
    selection = EngineSelector(discover()).select(ModelFile(path=path, digest="abc", sample=_sample))
    candidates = {measured.candidate: measured for measured in selection.measurements}
    assert {"onnxruntime:float32", "openvino:float32"} <= set(candidates)
    assert label(selection.engine) in candidates
    assert all(measured.error < 0.02 for measured in selection.measurements)


def test_a_run_that_is_slow_is_timed_three_times_only(model: ModelFile) -> None:
    slow = ReferenceLoader("slow", seconds=0.4)
    selector(slow).select(model)
    # Twice before, to warm it up.
    assert 2 + 3 == len(slow.runs)


class Disturbed(ReferenceLoader):
    """Sleeps longer in the runs and at the times that `disturbance` tells, given the number of the run: seconds."""

    def __init__(self, name: str, disturbance: Callable[[int], float], *, seconds: float) -> None:
        super().__init__(name)
        self._disturbance = disturbance
        self._own = seconds

    @property
    def seconds(self) -> float:
        return self._own + self._disturbance(len(self.runs))

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        """The base sets it; ours are told by the runs."""


class Hiccup:
    """A machine that holds up whatever runs, from the moment on that it is asked first, for a while."""

    def __init__(self, clock: VirtualClock, *, lasts: float, longer: float) -> None:
        self._clock = clock
        self._lasts = lasts
        self._longer = longer
        self.begun = math.inf

    def begin(self, run: int) -> float:
        self.begun = min(self.begun, self._clock.monotonic())
        return self.now(run)

    def now(self, run: int) -> float:
        return self._longer if self.begun <= self._clock.monotonic() < self.begun + self._lasts else 0.0


def test_a_machine_that_is_held_up_while_the_fastest_is_measured_chooses_it_all_the_same(model: ModelFile, clock: VirtualClock) -> None:
    hiccup = Hiccup(clock, lasts=0.4, longer=0.03)
    reference, fast = Disturbed("exact", hiccup.now, seconds=0.02), Disturbed("fast", hiccup.begin, seconds=0.01)
    assert "fast:float32" == label(reference_selector(reference, fast).select(model).engine)


def test_a_machine_that_has_become_slower_chooses_as_before(model: ModelFile, clock: VirtualClock) -> None:
    slow_down = Hiccup(clock, lasts=math.inf, longer=0.02)
    loaders = (
        Disturbed("exact", slow_down.now, seconds=0.02),
        Disturbed("first", slow_down.now, seconds=0.012),
        Disturbed("second", slow_down.begin, seconds=0.004),
    )
    assert "second:float32" == label(reference_selector(*loaders).select(model).engine)


@pytest.mark.parametrize(("other", "expected"), [(0.01, "other"), (0.03, "exact")])
def test_runs_that_are_held_up_do_not_count_while_two_are_not(model: ModelFile, other: float, expected: str) -> None:
    faster = min(other, 0.02)

    def holds_up(seconds: float) -> Callable[[int], float]:
        return lambda run: 0.04 if seconds == faster and 2 < run <= 7 else 0.0

    loaders = (Disturbed("exact", holds_up(0.02), seconds=0.02), Disturbed("other", holds_up(other), seconds=other))
    assert f"{expected}:float32" == label(reference_selector(*loaders).select(model).engine)


def test_candidates_that_are_as_fast_as_each_other_are_timed_longer(model: ModelFile) -> None:
    equal, slower = ReferenceLoader("equal", seconds=0.02), ReferenceLoader("slower", seconds=0.06)
    selector(equal, slower).select(model)
    assert len(equal.runs) > len(slower.runs)


@pytest.mark.parametrize(("seconds", "expected"), [(0.0098, "exact"), (0.009, "other")])
def test_of_equals_the_first_is_chosen(model: ModelFile, tmp_path: Path, seconds: float, expected: str) -> None:
    folder = tmp_path / "cache"
    selector(ReferenceLoader("other"), cache=MeasurementCache(folder)).select(model)
    (file,) = folder.iterdir()
    content = json.loads(file.read_text())
    content["measurements"][0]["seconds"], content["measurements"][1]["seconds"] = 0.01, seconds
    file.write_text(json.dumps(content))
    assert f"{expected}:float32" == chosen(selector(ReferenceLoader("other"), cache=MeasurementCache(folder)), model)


class Small(ReferenceLoader):
    """On a device that holds so many engines: one more cannot be loaded."""

    alive: weakref.WeakSet[Any]

    def load(self, path: Path, precision: str, *, threads: int = 0, options: Any = None) -> Any:
        if len(self.alive) >= self.holds:
            raise ModelFailed("out of memory")
        engine = super().load(path, precision)
        self.alive.add(engine)
        return engine

    def __init__(self, name: str, alive: weakref.WeakSet[Any], *, holds: int, seconds: float) -> None:
        super().__init__(name, seconds=seconds)
        self.alive = alive
        self.holds = holds


@pytest.mark.parametrize("holds", [1, 2])
def test_a_device_that_holds_two_engines_or_one_compares_all(model: ModelFile, holds: int) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    loaders = [Small(name, alive, holds=holds, seconds=seconds) for name, seconds in (("a", 0.01), ("b", 0.03), ("c", 0.002), ("d", 0.02))]
    selection = gpu_selector(REFERENCE, *loaders).select(model)
    assert "c:float32" == label(selection.engine)
    assert [""] * 4 == [measured.failure for measured in selection.measurements]


def test_of_a_processors_engines_two_are_loaded_at_once(model: ModelFile) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    loaders = [Small(name, alive, holds=2, seconds=seconds) for name, seconds in (("a", 0.01), ("b", 0.03), ("c", 0.002), ("d", 0.02))]
    selection = reference_selector(*loaders).select(model)
    assert ("c:float32", [""] * 4) == (label(selection.engine), [measured.failure for measured in selection.measurements])


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there is no device cuda:7; there are: cpu"):
        discover(device="cuda:7")


@pytest.mark.parametrize(
    ("output", "reference", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.1, 2.2], [1.0, 2.0], 0.1),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.1, 0.0], [0.0, 0.0], float("inf")),
        ([float("nan"), 1.0], [1.0, 1.0], float("inf")),
        ([float("nan"), 1.0], [float("nan"), 1.0], 0.0),
        ([1.0], [1.0, 1.0], float("inf")),
        ([1, 2, 3, 4], [1, 2, 3, 5], 0.25),
        (["a"], ["b"], 1.0),
        ([], [], 0.0),
    ],
)
def test_deviation_is_the_relative_l2_error_or_the_share_that_differs(output: list[Any], reference: list[Any], expected: float) -> None:
    kind = object if output and isinstance(output[0], str) else None
    assert expected == pytest.approx(deviation({"y": np.array(output, kind)}, {"y": np.array(reference, kind)}))


def test_an_output_too_few_is_a_disagreement() -> None:
    assert float("inf") == deviation({}, {"y": np.zeros(1)})
