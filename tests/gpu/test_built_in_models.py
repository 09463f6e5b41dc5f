"""Each built-in model on the GPU, beside ONNX Runtime in float32 on the CPU. Run with: make test-gpu."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inference_server.engine import devices
from inference_server.engine.agreement import deviation
from inference_server.engine.runtimes import Runtimes, discover
from inference_server.engine.sample import representative
from inference_server.engine.selection import EngineSelector
from inference_server.errors import ConfigurationError
from inference_server.models.builders import BUILDERS
from inference_server.scheduler.port import InferenceRequest
from inference_server.scheduler.registry import ServingModels
from tests.support.built_models import built_models
from tests.support.serving import serving

pytestmark = pytest.mark.gpu
SHAPES = {"ppocrv6_small_det": (3, 640, 640), "ppocrv6_small_rec": (3, 48, 320), "he_baseline": (256, 256, 3)}


@pytest.fixture
def runtimes(tmp_path: Path) -> Runtimes:
    if not devices.gpus():
        pytest.skip("there is no GPU on this machine")
    try:
        return discover(device="cuda:0", engine_cache=tmp_path)
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.fixture
async def models(runtimes: Runtimes) -> AsyncIterator[ServingModels]:
    async with serving(built_models(), EngineSelector(runtimes)) as models:
        yield models


@pytest.mark.parametrize("name", sorted(BUILDERS))
async def test_a_built_in_model_on_the_gpu_agrees_with_the_cpu(name: str, runtimes: Runtimes, models: ServingModels) -> None:
    facts = models.facts(name)
    reference = runtimes.reference.load(built_models() / name / "1" / "model.onnx", "float32")
    shapes = {spec.name: SHAPES[name] for spec in facts.inputs if name in SHAPES}
    inputs = representative(facts.inputs, rows=1, shapes=shapes)

    response = await models.infer(InferenceRequest(model=name, inputs=inputs))

    assert response.engine.startswith(("onnxruntime-cuda", "onnxruntime-tensorrt"))
    assert deviation(response.outputs, reference.run(inputs)) <= 0.15
