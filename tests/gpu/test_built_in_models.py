"""Each built-in model on each engine of the GPU, beside ONNX Runtime in float32 on the CPU. Run with: make test-gpu."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_server.compilation import Wanted, compile_models
from inference_server.engine.runtimes import Runtimes
from inference_server.engine.selection.agreement import deviation
from inference_server.engine.selection.sample import representative
from inference_server.engine.selection.selector import EngineSelector
from inference_server.models.builders import BUILDERS
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import InferenceRequest
from inference_server.settings import Settings
from tests.support.inference_server.serving import serving
from tests.support.models.built_models import built_models

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]
SHAPES = {"ppocrv6_small_det": (3, 640, 640), "ppocrv6_small_rec": (3, 48, 320), "he_baseline": (256, 256, 3)}
# As a share; half precision moves the steep edges of the detector's likelihood by a fraction of a pixel.
TOLERANCES = {"ppocrv6_small_det": 0.15}


@pytest.fixture(scope="module")
def compiled(settings: Settings, found: Runtimes) -> Path:
    """The built-in models, their engines built."""
    told = settings.model_copy(update={"models": built_models()})
    results = compile_models(told, Wanted(names=sorted(BUILDERS), precisions=("float32", "float16")), lambda engine, state: None)
    assert {} == {each.model: each.state.reason for each in results if each.state.state != "built"}
    return told.models


@pytest.mark.parametrize("engine", ["auto", "onnxruntime-cuda:float32", "tensorrt:float32"])
@pytest.mark.parametrize("name", sorted(BUILDERS))
async def test_a_built_in_model_on_the_gpu_agrees_with_the_cpu(name: str, engine: str, found: Runtimes, compiled: Path) -> None:
    async with serving(compiled, {found.device: EngineSelector(found)}, options=SchedulingOptions(engine=engine)) as models:
        facts = models.facts(name)
        shapes = {spec.name: SHAPES[name] for spec in facts.inputs if name in SHAPES and -1 in spec.shape[1:]}
        inputs = representative(facts.inputs, rows=1, shapes=shapes)
        response = await models.infer(InferenceRequest(model=name, inputs=inputs))

    reference = found.reference.load(compiled / name / "1" / "model.onnx", "float32")
    assert engine == "auto" or response.engine == engine
    assert response.engine.startswith(("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt"))
    assert deviation(response.outputs, reference.run(inputs)) <= TOLERANCES.get(name, 0.02)
