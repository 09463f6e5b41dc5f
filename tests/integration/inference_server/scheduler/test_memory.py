"""The memory that models may take."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry

from inference_server.engine.devices import usable_memory
from inference_server.engine.onnxruntime.engine import OnnxRuntimeLoader
from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.errors import MemoryExhausted
from inference_server.scheduler.dispatch import executor
from inference_server.scheduler.loading.memory import MemoryBudget, resident_bytes
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.status import ModelState
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models, small_models
from tests.support.models.reference_engine import ReferenceEngine, ReferenceLoader, selector

MIB = 2**20


async def test_a_model_that_is_too_large_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path = onnx_models.write_model(tmp_path, "large", onnx_models.double())
    (path.parent / "weights.data").write_bytes(bytes(3 * MIB))
    onnx_models.write_model(tmp_path, "double", onnx_models.double())
    engine = ReferenceLoader()
    async with serving(tmp_path, selector(engine), options=SchedulingOptions(model_memory_bytes=4 * MIB)) as models:
        statuses = {status.name: status for status in models.index()}
        assert ModelState.UNAVAILABLE == statuses["large"].state
        assert "is likely to take 6.0 MiB" in statuses["large"].reason
        assert "of the 4.0 MiB for models are free; unload another one or raise INFERENCE_MODEL_MEMORY_BYTES" in statuses["large"].reason
        with pytest.raises(MemoryExhausted):
            await models.load("large")


async def test_a_model_that_is_unloaded_makes_room(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    for name in ("one", "two"):
        path = onnx_models.write_model(tmp_path, name, onnx_models.double())
        (path.parent / "weights.data").write_bytes(bytes(100 * MIB))
    async with serving(
        tmp_path, selector(ReferenceLoader()), metrics=registry, options=SchedulingOptions(model_memory_bytes=250 * MIB)
    ) as models:
        assert [True, False] == [models.is_ready(name) for name in ("one", "two")]
        assert 100 * MIB <= (registry.get_sample_value("lamina_model_memory_bytes") or 0) < 250 * MIB
        await models.unload("one")
        await models._retiring.wait()
        await models.load("two")
        assert 2.0 == (await ask(models, "two")).outputs["doubled"][0, 0]


async def test_an_unloaded_models_engine_is_freed_without_the_garbage_collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there when a server became ready it looks at no more."""
    freed: list[str] = []
    monkeypatch.setattr(ReferenceEngine, "__del__", lambda engine: freed.append(engine.name), raising=False)
    onnx_models.write_model(tmp_path, "double", onnx_models.double())
    async with serving(tmp_path, selector(ReferenceLoader())) as models:
        await ask(models)
        gc.collect()
        freed.clear()
        gc.disable()
        try:
            await models.unload("double")
            await models._retiring.wait()
            until = time.monotonic() + 30
            while not freed and time.monotonic() < until:  # its thread tells that it ends a moment before it has
                await asyncio.sleep(0.01)
            assert ["numpy"] == freed
        finally:
            gc.enable()


async def test_what_a_runtime_keeps_of_a_large_batch_is_given_back_once_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_IDLE_SECONDS", 0.2)
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config="max_batch_size: 16777216")
    async with serving(tmp_path, EngineSelector(discover()), options=SchedulingOptions(engine="onnxruntime:float32")) as models:
        await ask(models)
        gc.collect()
        before = resident_bytes()
        rows = 128 * MIB // 16
        answer = await ask(models, rows=rows)
        assert rows == len(answer.outputs["doubled"])
        del answer
        until = time.monotonic() + 30
        while resident_bytes() - before > 32 * MIB and time.monotonic() < until:
            await asyncio.sleep(0.05)
        assert resident_bytes() - before <= 32 * MIB
        assert 2.0 == (await ask(models)).outputs["doubled"][0, 0]


@pytest.mark.parametrize(("kind", "dtype"), [(onnx.TensorProto.FLOAT, np.float32), (onnx.TensorProto.BFLOAT16, ml_dtypes.bfloat16)])
def test_tensors_of_either_kind_that_a_runtime_keeps_are_given_back(tmp_path: Path, kind: onnx.TensorProto.DataType, dtype: type) -> None:
    path = onnx_models.write_model(tmp_path, "identity", small_models.identity(kind))
    engine = OnnxRuntimeLoader(threads=1).load(path, "float32")
    engine.run({"x": np.ones((1, 4), dtype)})
    before = resident_bytes()
    engine.run({"x": np.ones((32 * MIB // np.dtype(dtype).itemsize, 4), dtype)})
    assert (True, True) == (engine.keeps_much, resident_bytes() - before > 96 * MIB)

    engine.give_back()

    assert (False, True) == (engine.keeps_much, resident_bytes() - before < 32 * MIB)


def test_what_a_model_took_counts_once_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(MIB))
    gc.collect()  # what earlier tests left must not shrink the process meanwhile
    budget = MemoryBudget(40 * MIB)
    holding = budget.hold("m", tmp_path, 2)
    assert 4 * MIB == budget.used_bytes
    weights = np.ones(300 * MIB, np.uint8)
    with pytest.raises(MemoryExhausted, match=r"model m took \d+\.\d MiB, and 40\.0 MiB"):
        holding.measure()
    assert (0, 300 * MIB) == (budget.used_bytes, weights.nbytes)


def test_without_a_number_models_may_take_most_of_the_machines_memory(tmp_path: Path) -> None:
    assert int(usable_memory() * 0.8) == MemoryBudget().most_bytes
    (tmp_path / "memory.max").write_text("1000\n")
    assert 1000 == usable_memory(cgroup=tmp_path)
    assert 10 * MIB < resident_bytes() < usable_memory()
    assert 0 == resident_bytes(statm=tmp_path / "absent")
