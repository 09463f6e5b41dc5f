"""The engines of a GPU with everything that can be asked of them: profiles, graphs, page-locked memory, both ways to TensorRT."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_server.engine.runtimes import Runtimes
from inference_server.engine.selection.selector import EngineSelector, ModelFile
from inference_server.engine.tensorrt.building import BUILT, EngineBuilds
from inference_server.engine.tensorrt.profiles import read_profile
from inference_server.errors import ModelFailed
from tests.support.models import onnx_models

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
PROFILES = ("x=1x64:8x64:32x64", "x=33x64:64x64:128x64")
LABELS = ("onnxruntime-cuda:float32", "onnxruntime-tensorrt:float32", "tensorrt:float32", "tensorrt:float16")
OPTIONS: dict[str, dict[str, dict[str, str]]] = {
    "plain": {},
    "pageable": {name: {"pinned_input": "0", "pinned_output": "0"} for name in ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")},
    "graphs": {
        "onnxruntime-cuda": {"enable_cuda_graph": "1"},
        "onnxruntime-tensorrt": {"trt_cuda_graph_enable": "1"},
        "tensorrt": {"cuda_graphs": "1"},
    },
}


@pytest.fixture(scope="module")
def model(found: Runtimes, engine_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """Products of matrices, with two profiles, its engines built."""
    path = onnx_models.write_model(tmp_path_factory.mktemp("models"), "products", onnx_models.products(4, side=64))
    profiles = tuple(map(read_profile, PROFILES))
    made = ModelFile(path=path, digest="products", sample=lambda engine: _x(8), profiles=lambda inputs: profiles)
    assert found.ahead
    builds = EngineBuilds(engine_cache / "plans")
    for label in LABELS[1:]:
        # The provider of ONNX Runtime is built for one range.
        one = replace(made, profiles=lambda inputs: profiles[:1]) if label.startswith("onnx") else made
        recipe, done = found.ahead.recipe(one, label), threading.Event()
        assert recipe
        builds.request(recipe, done.set)
        assert done.wait(600)
        state = builds.state(recipe)
        assert state
        assert (BUILT, "") == (state.state, state.reason)
    builds.close()
    return made


def _x(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.random.default_rng(rows).random((rows, 64), dtype=np.float32)}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("label", LABELS)
def test_an_engine_agrees_with_the_cpu_for_all_shapes_run_after_run(label: str, options: str, model: ModelFile, found: Runtimes) -> None:
    profiles = model.profiles(())
    asked = replace(model, profiles=lambda inputs: profiles[:1] if label.startswith("onnx") else profiles, options=OPTIONS[options])
    engine = EngineSelector(found).load_instance(asked, label)
    reference = found.reference.load(model.path, "float32")
    for rows in (1, 8, 8, 8, 32, 8, 1, 100, 200):  # the last two lie beyond one profile, and the last beyond both
        expected, outputs = reference.run(_x(rows))["y"], engine.run(_x(rows))["y"]
        np.testing.assert_allclose(expected, outputs, rtol=0.02, atol=0.02 * float(np.abs(expected).max()))
    assert 0 < getattr(engine, "device_seconds", 0)


def test_a_gpu_gets_its_memory_back(model: ModelFile, found: Runtimes) -> None:
    assert found.memory
    selector = EngineSelector(found)

    def used() -> int:
        assert found.memory
        free, total = found.memory()
        return total - free

    selector.load_instance(model, "tensorrt:float32").run(_x(8))
    gc.collect()
    before = used()
    for _ in range(5):
        engine = selector.load_instance(model, "tensorrt:float32")
        engine.run(_x(128))
        del engine
        gc.collect()
    assert used() - before < 64 * 2**20


def test_a_plan_of_something_else_is_refused(found: Runtimes, tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"no plan")
    loader = next(loader for loader in found.candidates if loader.name == "tensorrt")
    with pytest.raises(ModelFailed, match=r"cannot load model\.plan"):
        loader.load(tmp_path / "model.plan", "plan")


def test_four_instances_run_at_a_time(model: ModelFile, found: Runtimes) -> None:
    selector = EngineSelector(found)
    expected = found.reference.load(model.path, "float32").run(_x(32))["y"]
    wrong: list[float] = []

    def run() -> None:
        engine = selector.load_instance(model, "tensorrt:float32")
        for _ in range(50):
            wrong.append(float(np.abs(engine.run(_x(32))["y"] - expected).max()))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 200 == len(wrong)
    assert max(wrong) < 0.02 * float(np.abs(expected).max())
