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


def convolution(folder: Path, ranges: str, *, name: str = "x", sides: tuple[int, ...] = (4, 4), wide: int = 1) -> Path:
    """x [1, 16, *sides], under some name, → y: each channel doubled; or the sums of `wide` x `wide` pixels of it, padded by zeros."""
    pixels = (wide,) * len(sides)
    weights = 2 * np.eye(16, dtype=np.float32).reshape(16, 16, *(1 for _ in sides)) * np.ones(pixels, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", [name, "weights"], ["y"], kernel_shape=pixels, pads=[wide // 2] * 2 * len(sides))],
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
    y = loader.load(convolution(tmp_path, "x -1.28 1.27 0\n"), "bfloat16").run({"x": x})["y"]
    # Levels of 0.01, in bfloat16 where they are told; what lies beyond is told as its end.
    np.testing.assert_allclose(2 * np.clip(np.round(x, 2), -1.28, 1.27), y, atol=0.025)
    assert (np.float32(-2.56), np.float32(2.54)) == pytest.approx((y.min(), y.max()), abs=0.02)


@pytest.mark.parametrize("sides", [(16,), (4, 2, 2)])
def test_convolutions_along_one_or_three_sides_are_computed_so_too(tmp_path: Path, loader: OpenVinoLoader, sides: tuple[int, ...]) -> None:
    x = np.linspace(-3, 3, 256, dtype=np.float32).reshape(1, 16, *sides)
    y = loader.load(convolution(tmp_path, "x -1.28 1.27 0\n", sides=sides), "bfloat16").run({"x": x})["y"]
    assert (np.float32(-2.56), np.float32(2.54)) == pytest.approx((y.min(), y.max()), abs=0.02)


def test_a_tensor_may_have_a_space_in_its_name(tmp_path: Path, loader: OpenVinoLoader) -> None:
    path = convolution(tmp_path, "the input -1.28 1.27 0\n", name="the input")
    y = loader.load(path, "bfloat16").run({"the input": np.full((1, 16, 4, 4), 3, np.float32)})["y"]
    assert 2.54 == pytest.approx(float(y.max()), abs=0.02)


def test_in_float32_ranges_are_passed_over(tmp_path: Path, loader: OpenVinoLoader) -> None:
    x = np.linspace(-3, 3, 256, dtype=np.float32).reshape(1, 16, 4, 4)
    y = loader.load(convolution(tmp_path, "x -1.28 1.27 0\n"), "float32").run({"x": x})["y"]
    np.testing.assert_allclose(2 * x, y, rtol=1e-5)


@pytest.mark.parametrize(
    "ranges",
    [
        "x 1.27\n",
        "x -1.28 1.27\n",
        "x low high mean\n",
        "x 1.27 1.27 1\n",
        "x -1,0 1 0\n x 2\n",
        "x -1.28 nan 0\n",
        "x -1.28 1e300 0\n",
        "x -1.28 1.27 inf\n",
        "x -3e38 3e38 0\n",
        "x 0 1e-40 0\n",
        "x -1,-1 1,1,1 0\n",
    ],
)
def test_what_is_no_range_fails_the_model(tmp_path: Path, loader: OpenVinoLoader, ranges: str) -> None:
    with pytest.raises(ModelFailed, match=r"lamina\.int8_ranges is to tell"):
        loader.load(convolution(tmp_path, ranges), "bfloat16")


@pytest.mark.parametrize(
    ("ranges", "wide"), [("x 1e38 2e38 1.5e38", 1), ("x -1.5e38 1.5e38 0", 1), ("x 0 1e-20 1e30", 1), ("x -1.5e38 1.5e38 0", 3)]
)
def test_ranges_that_are_absurd_for_the_weights_fail_the_model(tmp_path: Path, loader: OpenVinoLoader, ranges: str, wide: int) -> None:
    with pytest.raises(ModelFailed, match=r"lamina\.int8_ranges tells ranges or means that are too large for the weights"):
        loader.load(convolution(tmp_path, f"{ranges}\n", wide=wide), "bfloat16")


def listed(values: np.ndarray) -> str:
    return ",".join(map(str, values.ravel()))


def test_each_channel_may_have_a_range_of_its_own(tmp_path: Path, loader: OpenVinoLoader) -> None:
    # One channel a hundred times the other, and one that lies far from zero.
    least, most = np.linspace(-1, -100, 16), np.linspace(1, 100, 16)
    least[3], most[3] = 50, 51
    x = np.random.default_rng(0).uniform(least[:, None], most[:, None], (16, 16)).astype(np.float32).reshape(1, 16, 4, 4)
    told = f"x {listed(least)} {listed(most)} {listed((least + most) / 2)}\n"
    y = loader.load(convolution(tmp_path, told), "bfloat16").run({"x": x})["y"]
    # Half a level of its own channel, and what bfloat16 tells of the answer.
    error = np.abs(y - 2 * x).max(axis=(0, 2, 3))
    assert (error <= (most - least) / 255 + 2 * np.maximum(np.abs(least), np.abs(most)) / 128).all()
    assert error[0] < 0.03


@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_what_is_padded_by_zeros_is_so_in_int8_too(tmp_path: Path, loader: OpenVinoLoader, lowest: float) -> None:
    x = np.full((1, 16, 4, 4), 0.75, np.float32)
    path = convolution(tmp_path, f"x {lowest} {listed(np.linspace(1, 8, 16))} 0.3\n", wide=3)
    y = loader.load(path, "bfloat16").run({"x": x})["y"]
    pixels = np.array([[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])
    np.testing.assert_allclose(np.broadcast_to(2 * 0.75 * pixels, y.shape), y, rtol=0.05)


def test_zeros_around_a_convolution_of_one_pixel_are_zeros(tmp_path: Path, loader: OpenVinoLoader) -> None:
    model = onnx.load(convolution(tmp_path, "x 3 4 3.5\n"))
    model.graph.node[0].attribute[1].CopyFrom(helper.make_attribute("pads", [1] * 4))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 6, 6]))
    onnx.save_model(model, tmp_path / "model.onnx")
    y = loader.load(tmp_path / "model.onnx", "bfloat16").run({"x": np.full((1, 16, 4, 4), 3.5, np.float32)})["y"]
    np.testing.assert_allclose(np.pad(np.full((1, 16, 4, 4), 7.0), ((0, 0), (0, 0), (1, 1), (1, 1))), y, atol=0.07)


def test_a_convolution_may_take_what_another_one_answers(tmp_path: Path, loader: OpenVinoLoader) -> None:
    model = onnx.load(convolution(tmp_path, "x -1.28 1.27 0\ny -0.64 0.635 0\n"))
    model.graph.node.append(helper.make_node("Conv", ["y", "weights"], ["z"], kernel_shape=[1, 1]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 16, 4, 4]))
    onnx.save_model(model, tmp_path / "model.onnx")
    answer = loader.load(tmp_path / "model.onnx", "bfloat16").run({"x": np.linspace(-3, 3, 256, dtype=np.float32).reshape(1, 16, 4, 4)})
    # Of the first one 2 * 1.28, of the second one twice what is left of that.
    assert (2.54, 1.27) == pytest.approx((answer["y"].max(), answer["z"].max()), abs=0.02)


def test_a_tensor_that_something_else_takes_too_stays_as_it_is_there(tmp_path: Path, loader: OpenVinoLoader) -> None:
    model = onnx.load(convolution(tmp_path, "x -1.28 1.27 0\n"))
    model.graph.node.append(helper.make_node("Relu", ["x"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 16, 4, 4]))
    onnx.save_model(model, tmp_path / "model.onnx")
    x = np.linspace(-3, 3, 256, dtype=np.float32).reshape(1, 16, 4, 4)
    answer = loader.load(tmp_path / "model.onnx", "bfloat16").run({"x": x})
    assert (np.float32(-2.56), np.float32(2.54)) == pytest.approx((answer["y"].min(), answer["y"].max()), abs=0.02)
    np.testing.assert_allclose(np.maximum(x, 0), answer["z"], rtol=0.01)


def test_ranges_of_another_number_of_channels_fail_the_model(tmp_path: Path, loader: OpenVinoLoader) -> None:
    with pytest.raises(ModelFailed, match="another number of channels than the 16"):
        loader.load(convolution(tmp_path, "x -1,-1,-1 1 0\n"), "bfloat16")
