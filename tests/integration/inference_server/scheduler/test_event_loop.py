"""Whether the event loop answers while models compute for many callers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import InferenceRequest
from tests.support.inference_server.serving import serving
from tests.support.models import onnx_models
from tests.support.thread_clock import waited_for_a_core


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
async def test_64_callers_do_not_hold_the_loop_up(tmp_path: Path, name: str) -> None:
    """Neither by its own work, nor by a lock that a computing thread keeps: it turns many times a run, and most work is others'.

    What the machine's other work costs is taken off.
    """
    onnx_models.write_model(tmp_path, "products", onnx_models.products(60), config="")
    x = np.ones((1, 768), np.float32)
    registry = CollectorRegistry()
    async with serving(
        tmp_path, EngineSelector(discover()), options=SchedulingOptions(engine=f"{name}:float32"), metrics=registry
    ) as models:
        until = time.monotonic() + 1.5

        async def caller() -> int:
            answered = 0
            while not answered or time.monotonic() < until:
                await models.infer(InferenceRequest(model="products", inputs={"x": x}))
                answered += 1
            return answered

        callers = [asyncio.create_task(caller()) for _ in range(64)]
        gaps, own, all_work = [], time.thread_time(), time.process_time()
        while len(gaps) < 20 or time.monotonic() < until:
            began, waited = time.monotonic(), waited_for_a_core()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - began - 0.005 - (waited_for_a_core() - waited))
        own, all_work = time.thread_time() - own, time.process_time() - all_work
        answered = sum(await asyncio.gather(*callers))
    assert answered >= 64
    of_the_model = {"model": "products", "version": "1"}
    seconds, runs = (registry.get_sample_value(f"lamina_compute_seconds_{part}", of_the_model) or 0 for part in ("sum", "count"))
    assert own < all_work / 2
    assert float(np.median(gaps)) < seconds / runs / 2
