"""Convolutions in int8 by the ranges that a file tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference_server.engine.openvino import OpenVinoLoader
from inference_server.errors import ModelFailed


@pytest.fixture
def loader() -> OpenVinoLoader:
    loader = OpenVinoLoader(threads=1)
    if "bfloat16" not in loader.precisions:
        pytest.skip("the processor does not compute in bfloat16")
    return loader


def convolution(folder: Path, ranges: str, *, name: str = "x", sides: tuple[int, ...] = (4, 4)) -> Path:
    """x [1, 16, *sides], under some name, → y: each channel doubled."""
    weights = 2 * np.eye(16, dtype=np.float32).reshape(16, 16, *(1 for _ in sides))
    graph = helper.make_graph(
        [helper.make_node("Conv", [name, "weights"], ["y"], kernel_shape=[1] * len(sides))],
        "convolution",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, *sides])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, *sides])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {"lamina.int8_ranges": ranges})
    onnx.save_model(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_what_a_convolution_takes_has_256_levels_of_its_range(tmp_path: Path, loader: OpenVinoLoader) -> None:
    x = np.linspace(-3, 3, 256, dtype=np.float32).reshape(1, 16, 4, 4)
    y = loader.load(convolution(tmp_path, "x -1.28 1.27\n"), "bfloat16").run({"x": x})["y"]
    # Levels of 0.01, in bfloat16 where they are told; what lies beyond is told as its end.
    np.testing.assert_allclose(2 * np.clip(np.round(x, 2), -1.28, 1.27), y, atol=0.025)
    assert (np.float32(-2.56), np.float32(2.54)) == pytest.approx((y.min(), y.max()), abs=0.02)


@pytest.mark.parametrize("sides", [(16,), (4, 2, 2)])
def test_convolutions_along_one_or_three_sides_are_computed_so_too(tmp_path: Path, loader: OpenVinoLoader, sides: tuple[int, ...]) -> None:
    x = np.linspace(-3, 3, 256, dtype=np.float32).reshape(1, 16, *sides)
    y = loader.load(convolution(tmp_path, "x -1.28 1.27\n", sides=sides), "bfloat16").run({"x": x})["y"]
    assert (np.float32(-2.56), np.float32(2.54)) == pytest.approx((y.min(), y.max()), abs=0.02)


def test_a_tensor_may_have_a_space_in_its_name(tmp_path: Path, loader: OpenVinoLoader) -> None:
    path = convolution(tmp_path, "the input -1.28 1.27\n", name="the input")
    y = loader.load(path, "bfloat16").run({"the input": np.full((1, 16, 4, 4), 3, np.float32)})["y"]
    assert 2.54 == pytest.approx(float(y.max()), abs=0.02)


def test_in_float32_ranges_are_passed_over(tmp_path: Path, loader: OpenVinoLoader) -> None:
    x = np.linspace(-3, 3, 256, dtype=np.float32).reshape(1, 16, 4, 4)
    y = loader.load(convolution(tmp_path, "x -1.28 1.27\n"), "float32").run({"x": x})["y"]
    np.testing.assert_allclose(2 * x, y, rtol=1e-5)


@pytest.mark.parametrize("ranges", ["x 1.27\n", "x low high\n", "x 0.5 1.27\n", "x -1.28 nan\n", "x -1.28 1e300\n"])
def test_what_is_no_range_fails_the_model(tmp_path: Path, loader: OpenVinoLoader, ranges: str) -> None:
    with pytest.raises(ModelFailed, match=r"lamina\.int8_ranges is to tell"):
        loader.load(convolution(tmp_path, ranges), "bfloat16")
