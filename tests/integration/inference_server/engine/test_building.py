"""Plans on disk, and the processes that build them."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from inference_server.engine.devices import gpus
from inference_server.engine.tensorrt.building import BUILDING, BUILT, FAILED, BuildState, EngineBuilds
from inference_server.engine.tensorrt.plans import PLAN_FILE, PlanCache, Recipe
from inference_server.engine.tensorrt.profiles import read_profile
from inference_server.errors import ModelFailed
from tests.support.gpu.built_plans import build_plan, recipe
from tests.support.gpu.engine_building import builds
from tests.support.models import onnx_models


@pytest.fixture
def made(tmp_path: Path) -> Recipe:
    return recipe(onnx_models.write_model(tmp_path, "widths", onnx_models.widths()), "x=1x1:4x8:8x16", "x=1x1:4x64:8x512")


def _ended(builder: EngineBuilds, asked: Recipe) -> BuildState:
    done = threading.Event()
    builder.request(asked, done.set)
    assert done.wait(60)
    state = builder.state(asked)
    assert state is not None
    return state


def test_a_recipe_survives_the_way_to_the_process_that_builds(made: Recipe) -> None:
    asked = replace(made, options={"trt_max_workspace_size": "1024"})
    again = Recipe.from_json(asked.to_json())
    assert (asked, asked.key) == (again, again.key)


def test_everything_that_an_engine_hangs_on_is_in_its_key(made: Recipe) -> None:
    others = [
        replace(made, digest="e"),
        replace(made, version="10.17"),
        replace(made, compute_capability="8.9"),
        replace(made, precision="float16"),
        replace(made, engine="onnxruntime-tensorrt"),
        replace(made, profiles=made.profiles[:1]),
        replace(made, profiles=(read_profile("x=1x1:4x8:8x17"), made.profiles[1])),
        replace(made, options={"trt_builder_optimization_level": "5"}),
    ]
    assert len(others) + 1 == len({each.key for each in (made, *others)})
    assert made.key == replace(made, path=Path("elsewhere/model.onnx"), device=1).key


def test_a_build_that_fails_halfway_leaves_nothing(tmp_path: Path, made: Recipe) -> None:
    cache = PlanCache(tmp_path / "cache")

    def fail() -> None:
        with cache.building(made) as folder:
            assert folder is not None
            (folder / PLAN_FILE).write_bytes(b"half")
            raise ModelFailed("no kernel")

    with pytest.raises(ModelFailed):
        fail()
    assert cache.find(made) is None
    assert [] == [entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]


def test_what_a_build_that_was_killed_left_is_removed_by_the_next(tmp_path: Path, made: Recipe) -> None:
    left = tmp_path / "cache" / f".{made.key[:32]}-killed"
    left.mkdir(parents=True)
    (left / PLAN_FILE).write_bytes(b"half")
    with PlanCache(tmp_path / "cache").building(made) as folder:
        assert folder is not None
        assert not left.exists()
        (folder / PLAN_FILE).write_bytes(b"whole")
    assert PlanCache(tmp_path / "cache").find(made)
    with PlanCache(tmp_path / "cache").building(made) as folder:
        assert folder is None


def test_a_built_engine_is_found_by_its_recipe_alone(tmp_path: Path, made: Recipe) -> None:
    builder = builds(tmp_path / "cache")
    try:
        assert builder.state(made) is None
        assert BUILT == _ended(builder, made).state
    finally:
        builder.close()
    found = PlanCache(tmp_path / "cache").find(made)
    assert found is not None
    assert {"x": [[1, 1], [4, 64], [8, 512]]} == json.loads((found / PLAN_FILE).read_text())["profiles"][1]
    assert b"timings" == PlanCache(tmp_path / "cache").timing_cache(made).read_bytes()
    assert PlanCache(tmp_path / "cache").find(replace(made, precision="float16")) is None


def test_what_the_owner_asks_of_a_build_reaches_the_builder(tmp_path: Path, made: Recipe) -> None:
    asked = replace(made, precision="bfloat16", options={"trt_max_workspace_size": "4096", "trt_sparsity_enable": "1"})
    plan = json.loads(build_plan(tmp_path / "plan", asked).read_text())
    assert (["BF16", "SPARSE_WEIGHTS"], 4096) == (plan["flags"], plan["workspace"])


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path: Path, made: Recipe) -> None:
    made.path.write_bytes(b"no model")
    with pytest.raises(ModelFailed, match=r"TensorRT cannot read model\.onnx: .*the file cannot be parsed") as caught:
        build_plan(tmp_path / "plan", made)
    assert str(tmp_path) not in str(caught.value)


def test_a_failed_build_is_not_tried_again(tmp_path: Path, made: Recipe) -> None:
    builder = builds(tmp_path / "cache", fault="fails")
    try:
        assert (FAILED, True) == ((state := _ended(builder, made)).state, "no kernel" in state.reason)
        builder.request(made, pytest.fail)
        assert FAILED == getattr(builder.state(made), "state", None)
    finally:
        builder.close()


def test_closing_ends_the_build_that_runs(tmp_path: Path, made: Recipe) -> None:
    builder = builds(tmp_path / "cache", fault="waits")
    done = threading.Event()
    builder.request(made, done.set)
    until = time.monotonic() + 60
    while not (state := builder.state(made)) or not state.total:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert (BUILDING, "Building Engine", 3, 10) == (state.state, state.phase, state.done, state.total)
    builder.close()
    assert done.is_set()
    assert PlanCache(tmp_path / "cache").find(made) is None


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_the_real_process_tells_in_one_line_what_this_machine_lacks(tmp_path: Path, made: Recipe) -> None:
    builder = EngineBuilds(tmp_path / "cache")
    try:
        state = _ended(builder, made)
    finally:
        builder.close()
    assert FAILED == state.state
    assert "is not installed; install the extra `gpu`" in state.reason or "the GPU failed" in state.reason
