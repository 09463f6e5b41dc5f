"""TensorRT's adapter over a GPU of numpy: what is copied where, in which profile it runs, and what it refuses."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from inference_server.engine.tensorrt.engine import TensorRtEngine, TensorRtLoader
from inference_server.errors import DeviceFailed, ModelFailed
from tests.support.gpu import fake_tensorrt
from tests.support.gpu.built_plans import build_plan, recipe, write_plan
from tests.support.gpu.fake_device import FakeDevice, FakeStream
from tests.support.models import onnx_models

SMALL, LARGE = "x=1x1:4x8:8x16", "x=1x1:8x64:32x256"


def _loader(device: FakeDevice, **faults: Any) -> TensorRtLoader:
    return TensorRtLoader(device=device, api=fake_tensorrt.fake_tensorrt(device, **faults))


def _engine(tmp_path: Path, device: FakeDevice, *profiles: str, options: dict[str, str] | None = None, **faults: Any) -> TensorRtEngine:
    path = onnx_models.write_model(tmp_path, "widths", onnx_models.widths())
    return _loader(device, **faults).load(build_plan(tmp_path / "plan", recipe(path, *profiles)), "float32", options=options)


def _x(*shape: int, value: float = 1.0) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.full(shape, value, np.float32)}


def _stream(device: FakeDevice) -> FakeStream:
    (stream,) = device.streams.values()
    return stream


def test_a_run_takes_the_tightest_profile_that_holds_its_shapes(tmp_path: Path) -> None:
    device = FakeDevice()
    api = fake_tensorrt.fake_tensorrt(device)
    path = onnx_models.write_model(tmp_path, "widths", onnx_models.widths())
    plan = build_plan(tmp_path / "plan", recipe(path, LARGE, SMALL))
    engine = TensorRtLoader(device=device, api=api).load(plan, "float32")
    ran: list[int] = []
    for context in api.kept.contexts:
        run = context.execute_async_v3
        context.execute_async_v3 = lambda stream, run=run, context=context: (ran.append(context.active_optimization_profile), run(stream))[
            1
        ]
    for shape in ((2, 8), (2, 100), (8, 16), (9, 16)):
        assert shape == engine.run(_x(*shape))["doubled"].shape
    assert [1, 0, 1, 0] == ran


def test_shapes_that_lie_in_no_profile_are_refused_with_the_ranges(tmp_path: Path) -> None:
    engine = _engine(tmp_path, FakeDevice(), SMALL, LARGE)
    with pytest.raises(ModelFailed, match=r"x \[33, 8\] lie in no optimisation profile: x=1x1:4x8:8x16; x=1x1:8x64:32x256"):
        engine.run(_x(33, 8))
    assert (2, 8) == engine.run(_x(2, 8))["doubled"].shape


def test_memory_is_kept_from_run_to_run_grown_when_needed_and_let_go_of_with_the_engine(tmp_path: Path) -> None:
    device = FakeDevice()
    engine = _engine(tmp_path, device, LARGE)
    engine.run(_x(2, 8))
    before = device.allocations
    for value in range(5):
        np.testing.assert_array_equal(np.full((2, 8), 2 * value, np.float32), engine.run(_x(2, 8, value=value))["doubled"])
    assert before == device.allocations
    engine.run(_x(32, 256))
    assert before < device.allocations
    assert 0 == _stream(device).unpinned
    del engine
    gc.collect()
    assert 0 == device.live_bytes


def test_tensors_pass_by_page_locked_memory_where_the_owner_wants_it_so(tmp_path: Path) -> None:
    device = FakeDevice()
    engine = _engine(tmp_path, device, LARGE, options={"pinned_input": "0", "pinned_output": "0"})
    kept = [engine.run(_x(2, 8, value=value))["doubled"] for value in (1, 2)]
    assert [2.0, 4.0] == [float(output.max()) for output in kept]
    assert 4 == _stream(device).unpinned


def test_the_time_of_the_device_is_told(tmp_path: Path) -> None:
    engine = _engine(tmp_path, FakeDevice(), LARGE)
    engine.run(_x(2, 8))
    first = engine.device_seconds
    engine.run(_x(2, 8))
    assert 0 < first < engine.device_seconds


def test_cuda_graphs_are_recorded_once_for_each_shape_and_launched_after(tmp_path: Path) -> None:
    device = FakeDevice()
    engine = _engine(tmp_path, device, LARGE, options={"cuda_graphs": "1"})
    for shape, value in (((2, 8), 1.0), ((2, 8), 3.0), ((3, 8), 5.0), ((2, 8), 7.0)):
        np.testing.assert_array_equal(np.full(shape, 2 * value, np.float32), engine.run(_x(*shape, value=value))["doubled"])
    assert (2, 4) == (_stream(device).recorded, _stream(device).launched)


def test_a_graph_is_recorded_on_the_values_of_the_request_and_not_on_what_lay_in_the_memory(tmp_path: Path) -> None:
    path = onnx_models.write_model(tmp_path, "lookup", onnx_models.lookup())  # indices beyond its table make it fail
    device = FakeDevice()
    engine = _loader(device).load(build_plan(tmp_path / "plan", recipe(path)), "float32", options={"cuda_graphs": "1"})
    for index in ([3, 1], [0, 2]):
        assert [10 * each for each in index] == engine.run({"index": np.array(index, np.int64)})["value"].tolist()
    assert 1 == _stream(device).recorded


def test_only_the_shapes_that_the_owner_names_are_recorded(tmp_path: Path) -> None:
    device = FakeDevice()
    shapes = json.dumps([[4, {"x": [8]}], [8, {}]])
    engine = _engine(tmp_path, device, LARGE, options={"cuda_graphs": "1", "graph_shapes": shapes})
    for shape in ((4, 8), (4, 9), (8, 9), (3, 8)):
        assert shape == engine.run(_x(*shape))["doubled"].shape
    assert (2, 2) == (_stream(device).recorded, _stream(device).launched)


@pytest.mark.parametrize("options", [{}, {"cuda_graphs": "1"}], ids=["plain", "graphs"])
def test_outputs_whose_size_hangs_on_values_are_taken_as_they_come_and_never_recorded(tmp_path: Path, options: dict[str, str]) -> None:
    path = onnx_models.write_model(tmp_path, "widths", onnx_models.widths())
    plan = build_plan(tmp_path / "plan", recipe(path, LARGE))
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"data_dependent": ["doubled"]}))
    device = FakeDevice()
    engine = _loader(device).load(plan, "float32", options=options)
    for shape in ((2, 8), (4, 100), (1, 3)):
        np.testing.assert_array_equal(np.full(shape, 2, np.float32), engine.run(_x(*shape))["doubled"])
    assert 0 == _stream(device).recorded


def test_bfloat16_is_served_as_it_is(tmp_path: Path) -> None:
    tensors = [{"name": name, "mode": mode, "dtype": "BF16", "shape": [-1]} for name, mode in (("a", "INPUT"), ("b", "OUTPUT"))]
    plan = write_plan(tmp_path / "model.plan", tensors, {"a": [[1], [4], [8]]})
    a = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    b = _loader(FakeDevice()).load(plan, "plan").run({"a": a})["b"]
    assert (a.dtype, a.tolist()) == (b.dtype, b.tolist())


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        ({"dtype": "FP8"}, "tensor a of the plan is of type FP8, which is not served; expected one of FLOAT, HALF, BF16"),
        ({"dtype": "INT4"}, "of type INT4"),
        ({"dtype": "FLOAT", "shape_tensor": True}, "tensor a of the plan is a shape tensor"),
        ({"dtype": "FLOAT", "location": "HOST"}, "tensor a of the plan is a shape tensor"),
        ({"dtype": "FLOAT", "format": "CHW32"}, "tensor a of the plan is in the format CHW32; build it with LINEAR ones"),
    ],
)
def test_tensors_that_are_not_served_are_refused_by_name(tmp_path: Path, tensor: dict[str, Any], reason: str) -> None:
    plan = write_plan(tmp_path / "model.plan", [{"name": "a", "mode": "INPUT", "shape": [-1], **tensor}], {"a": [[1], [1], [1]]})
    with pytest.raises(ModelFailed, match=reason):
        _loader(FakeDevice()).load(plan, "plan")


def test_what_is_no_plan_is_refused_with_the_reason_and_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"no plan")
    with pytest.raises(ModelFailed, match=r"cannot load model\.plan: the magic tag does not match; plans serve with the version") as caught:
        _loader(FakeDevice()).load(tmp_path / "model.plan", "plan")
    assert str(tmp_path) not in str(caught.value)


def test_an_onnx_file_whose_plan_is_not_built_is_told_so(tmp_path: Path) -> None:
    path = onnx_models.write_model(tmp_path, "double", onnx_models.double())
    with pytest.raises(DeviceFailed) as caught:
        _loader(FakeDevice()).load(path, "float16")
    assert "engine_not_built" == caught.value.cause


@pytest.mark.parametrize(
    ("reason", "kind"), [("Cuda Runtime (out of memory)", DeviceFailed), ("Myelin: the shapes of the operands differ", ModelFailed)]
)
def test_a_failing_run_tells_the_reason_and_whether_the_device_is_at_fault(tmp_path: Path, reason: str, kind: type[Exception]) -> None:
    engine = _engine(tmp_path, FakeDevice(), LARGE, execution=reason)
    with pytest.raises(ModelFailed) as caught:
        engine.run(_x(2, 8))
    assert (kind, True) == (type(caught.value), reason in str(caught.value))


def test_a_gpu_without_room_refuses_the_engine(tmp_path: Path) -> None:
    with pytest.raises(DeviceFailed, match="out of memory"):
        _engine(tmp_path, FakeDevice(total=512), LARGE)


@pytest.mark.parametrize(
    "inputs", [{}, {"y": np.ones((2, 8), np.float32)}, {"x": np.ones((2, 8), np.float64)}], ids=["none", "name", "type"]
)
def test_inputs_of_other_names_or_types_are_refused(tmp_path: Path, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
    with pytest.raises(ModelFailed, match="expected x float32"):
        _engine(tmp_path, FakeDevice(), LARGE).run(inputs)


def test_the_fake_has_only_names_that_the_package_has() -> None:
    """The names are those of the package's own bindings, of the version that is locked."""
    told = json.loads((Path(fake_tensorrt.__file__).parent / "tensorrt_names.json").read_text())
    assert fake_tensorrt.VERSION == told["version"]
    fakes = {name: getattr(fake_tensorrt, name) for name in told["names"] if hasattr(fake_tensorrt, name)}
    strange = {
        f"{name}.{attribute}"
        for name, fake in fakes.items()
        for attribute in vars(fake)
        if not attribute.startswith("_") and attribute not in told["names"][name]
    }
    assert len(fakes) > 15
    assert set() == strange
    assert set(fake_tensorrt.ILogger.Severity.__members__) <= set(told["names"]["ILogger.Severity"])
    package = vars(fake_tensorrt.fake_tensorrt(FakeDevice()))
    assert set(package) - {"__version__", "kept"} <= set(told["names"]["module"])
