"""ONNX Runtime with tensors bound where they lie: the real runtime on the CPU, whose memory stands for a GPU's."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from inference_server.engine.onnxruntime.device import DeviceRuns
from inference_server.engine.port import TensorSpec
from inference_server.engine.transfers import GraphShapes, Transfers
from tests.support.gpu.host_device import HostDevice
from tests.support.models import onnx_models


def _runs(path: Path, device: HostDevice, *outputs: str, dtype: type = np.float32, **transfers: object) -> DeviceRuns:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    specs = [TensorSpec(name=name, dtype=np.dtype(dtype), shape=(-1, -1)) for name in outputs]
    return DeviceRuns(session, device, number=0, outputs=specs, transfers=Transfers(**transfers), kind="cpu")  # type: ignore[arg-type]


@pytest.fixture
def double(tmp_path: Path) -> Path:
    return onnx_models.write_model(tmp_path, "double", onnx_models.double())


@pytest.mark.parametrize("graphs", [None, GraphShapes()], ids=["plain", "graphs"])
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "pageable"])
def test_outputs_are_right_for_shapes_that_come_and_go_and_outlive_the_next_run(
    double: Path, pinned: bool, graphs: GraphShapes | None
) -> None:
    device = HostDevice()
    runs = _runs(double, device, "doubled", "negative", pinned_input=pinned, pinned_output=pinned, graphs=graphs)
    kept = []
    for rows in (2, 300, 2, 5, 300, 2, 0):
        x = np.random.default_rng(rows).random((rows, 4), dtype=np.float32)
        kept.append((x, runs.run(("negative", "doubled"), {"x": x})))
    for x, (negative, doubled) in kept:
        np.testing.assert_array_equal(-x, negative)
        np.testing.assert_array_equal(2 * x, doubled)
    assert pinned == (sum(stream.pageable for stream in device.streams) == 0)
    assert runs.seconds > 0


def test_memory_is_kept_from_run_to_run(double: Path) -> None:
    device = HostDevice()
    runs = _runs(double, device, "doubled", "negative")
    x = np.ones((8, 4), np.float32)
    runs.run(("doubled",), {"x": x})
    before = device.allocations
    for _ in range(5):
        runs.run(("doubled",), {"x": x})
    assert before == device.allocations


def test_each_recorded_shape_has_memory_of_its_own_that_stays(double: Path) -> None:
    device = HostDevice()
    runs = _runs(double, device, "doubled", "negative", graphs=GraphShapes(specs=((4, {}),)))
    for rows in (4, 4, 6, 4):
        x = np.full((rows, 4), rows, np.float32)
        np.testing.assert_array_equal(2 * x, runs.run(("doubled",), {"x": x})[0])
    before = device.allocations
    runs.run(("doubled",), {"x": np.ones((4, 4), np.float32)})
    assert before == device.allocations


def test_bfloat16_is_bound_as_it_is(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["n", 2]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "same", value[:1], value[1:])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    a = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    (b,) = _runs(path, HostDevice(), "b", dtype=ml_dtypes.bfloat16).run(("b",), {"a": a})
    assert (a.dtype, a.tolist()) == (b.dtype, b.tolist())
