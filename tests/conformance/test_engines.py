"""What every engine must do, run on each of them in each of its precisions."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inference_server.engine.onnxruntime.engine import OnnxRuntimeLoader
from inference_server.engine.openvino import OpenVinoLoader
from inference_server.engine.port import EngineLoader, RunsBeside, TensorSpec
from inference_server.engine.selection.agreement import deviation
from inference_server.errors import ModelFailed
from tests.support.gpu.built_plans import BuildingLoader
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader

Loaded = tuple[EngineLoader, str]
LOADERS: dict[str, Callable[[], EngineLoader]] = {
    "onnxruntime": lambda: OnnxRuntimeLoader(threads=2),
    "openvino": lambda: OpenVinoLoader(threads=2),
    "numpy": ReferenceLoader,
    # Over a GPU of numpy and TensorRT's names.
    "tensorrt": BuildingLoader,
}


def _cases() -> Iterator[object]:
    for name, make in LOADERS.items():
        loader = make()
        for precision in loader.precisions:
            yield pytest.param((loader, precision), id=f"{name}:{precision}")


@pytest.fixture(params=_cases())
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def double(tmp_path: Path) -> Path:
    return onnx_models.write_model(tmp_path, "double", onnx_models.double())


def test_it_tells_its_name_version_and_precision(loaded: Loaded, double: Path) -> None:
    loader, precision = loaded
    engine = loader.load(double, precision)
    assert (loader.name, precision) == (engine.name, engine.precision)
    assert loader.precisions[0] == "float32"
    assert loader.version


def test_it_tells_the_tensors_of_the_model(loaded: Loaded, double: Path) -> None:
    loader, precision = loaded
    engine = loader.load(double, precision)
    expected = TensorSpec(name="x", dtype=np.dtype(np.float32), shape=(-1, 4))
    assert (expected,) == engine.inputs
    assert tuple(output.name for output in engine.outputs) == ("doubled", "negative")


def test_it_computes_all_outputs_when_none_is_named(loaded: Loaded, double: Path) -> None:
    loader, precision = loaded
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    outputs = loader.load(double, precision).run({"x": x})
    np.testing.assert_array_equal(2 * x, outputs["doubled"])
    np.testing.assert_array_equal(-x, outputs["negative"])


def test_it_computes_only_the_outputs_that_are_named(loaded: Loaded, double: Path) -> None:
    loader, precision = loaded
    assert {"negative"} == set(loader.load(double, precision).run({"x": np.ones((1, 4), np.float32)}, ("negative",)))


def test_outputs_have_the_names_of_the_file_whatever_passes_them_on(loaded: Loaded, tmp_path: Path) -> None:
    loader, precision = loaded
    engine = loader.load(onnx_models.write_model(tmp_path, "passed_on", onnx_models.passed_on()), precision)
    doubled = engine.run({"x": np.ones((2, 4), np.float32)})
    assert ["y", "z"] == sorted(output.name for output in engine.outputs) == sorted(doubled)
    assert all((tensor == 2).all() for tensor in doubled.values())


def test_it_agrees_with_numpy_within_two_percent(loaded: Loaded, tmp_path: Path) -> None:
    loader, precision = loaded
    path = onnx_models.write_model(tmp_path, "products", onnx_models.products(4, side=64))
    x = np.random.default_rng(1).random((3, 64), dtype=np.float32)
    expected = ReferenceLoader().load(path, "float32").run({"x": x})
    assert deviation(loader.load(path, precision).run({"x": x}), expected) < 0.02


def test_it_takes_shapes_as_they_come(loaded: Loaded, tmp_path: Path) -> None:
    loader, precision = loaded
    engine = loader.load(onnx_models.write_model(tmp_path, "widths", onnx_models.widths()), precision)
    for shape in ((1, 7), (5, 3), (1, 7), (2, 300)):
        assert shape == engine.run({"x": np.ones(shape, np.float32)})["doubled"].shape


def test_it_keeps_64_bit_integers(loaded: Loaded, tmp_path: Path) -> None:
    loader, precision = loaded
    engine = loader.load(onnx_models.write_model(tmp_path, "lookup", onnx_models.lookup()), precision)
    value = engine.run({"index": np.array([3, 1], np.int64)})["value"]
    assert (np.dtype(np.int64), [30, 10]) == (value.dtype, value.tolist())


def test_it_takes_tensors_that_are_read_only_or_not_contiguous(loaded: Loaded, double: Path) -> None:
    loader, precision = loaded
    engine = loader.load(double, precision)
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    read_only = np.frombuffer(x.tobytes(), np.float32).reshape(4, 4)
    for given in (read_only, np.asfortranarray(x), x[::2], x.T):
        np.testing.assert_array_equal(2 * given, engine.run({"x": given})["doubled"])


def test_its_outputs_outlive_the_next_run(loaded: Loaded, double: Path) -> None:
    loader, precision = loaded
    engine = loader.load(double, precision)
    first = engine.run({"x": np.ones((2, 4), np.float32)})["doubled"]
    engine.run({"x": np.zeros((2, 4), np.float32)})
    np.testing.assert_array_equal(np.full((2, 4), 2, np.float32), first)


def test_it_leaves_its_inputs_alone(loaded: Loaded, double: Path) -> None:
    loader, precision = loaded
    x = np.ones((2, 4), np.float32)
    loader.load(double, precision).run({"x": x})
    np.testing.assert_array_equal(np.ones((2, 4), np.float32), x)


def test_two_instances_run_at_a_time(loaded: Loaded, tmp_path: Path) -> None:
    loader, precision = loaded
    path = onnx_models.write_model(tmp_path, "products", onnx_models.products(4, side=64))
    engines = [loader.load(path, precision, threads=1) for _ in range(2)]
    x = np.random.default_rng(1).random((8, 64), dtype=np.float32)
    expected = engines[0].run({"x": x})["y"]
    with ThreadPoolExecutor(2) as threads:
        runs = threads.map(lambda engine: [engine.run({"x": x})["y"] for _ in range(10)], engines)
        results = [result for of_engine in runs for result in of_engine]
    for result in results:
        np.testing.assert_allclose(expected, result, rtol=1e-3)


def test_it_releases_the_interpreter_while_it_runs(tmp_path: Path) -> None:
    """Only of the real engines: the one in numpy is itself Python."""
    path = onnx_models.write_model(tmp_path, "products", onnx_models.products(60))
    x = np.ones((128, 768), np.float32)
    for loader in (OnnxRuntimeLoader(threads=1), OpenVinoLoader(threads=1)):
        engine = loader.load(path, "float32")
        engine.run({"x": x})
        run = threading.Thread(target=engine.run, args=({"x": x},))
        start = time.monotonic()
        run.start()
        ticks = 0
        while run.is_alive():
            time.sleep(0.001)
            ticks += 1
        assert ticks > 3, f"{loader.name} held the interpreter for {time.monotonic() - start:.3f} s"


def test_a_wrong_shape_fails_and_the_engine_goes_on(loaded: Loaded, tmp_path: Path) -> None:
    loader, precision = loaded
    engine = loader.load(onnx_models.write_model(tmp_path, "products", onnx_models.products(1, side=8)), precision)
    with pytest.raises(ModelFailed):
        engine.run({"x": np.ones((1, 5), np.float32)})
    assert engine.run({"x": np.ones((1, 8), np.float32)})["y"].shape == (1, 8)


def test_an_output_that_it_lacks_fails(loaded: Loaded, double: Path) -> None:
    loader, precision = loaded
    engine = loader.load(double, precision)
    with pytest.raises(ModelFailed):
        engine.run({"x": np.ones((1, 4), np.float32)}, ("halved",))


@pytest.mark.parametrize("content", [b"hello, this is no model", None], ids=["text", "absent"])
def test_a_broken_file_is_refused_without_telling_its_folder(loaded: Loaded, tmp_path: Path, content: bytes | None) -> None:
    loader, precision = loaded
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFailed, match=r"model\.onnx") as error:
        loader.load(path, precision)
    assert str(tmp_path) not in str(error.value)


def test_a_precision_that_it_lacks_is_refused(loaded: Loaded, double: Path) -> None:
    with pytest.raises(ModelFailed, match="int3"):
        loaded[0].load(double, "int3")


def test_a_second_run_beside_gives_the_same_to_the_last_bit(tmp_path: Path) -> None:
    path = onnx_models.write_model(tmp_path, "products", onnx_models.products(4, side=128))
    engine = OnnxRuntimeLoader(threads=2).load(path, "float32")
    beside = engine.beside()
    assert isinstance(engine, RunsBeside)
    assert beside is not None
    assert (engine.name, engine.precision, engine.inputs, engine.outputs) == (beside.name, beside.precision, beside.inputs, beside.outputs)
    inputs = [np.random.default_rng(seed).standard_normal((32, 128)).astype(np.float32) / 16 for seed in range(20)]
    expected = [engine.run({"x": x})["y"] for x in inputs]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda one: [one.run({"x": x})["y"] for x in inputs], (engine, beside)))
    np.testing.assert_array_equal([expected] * 2, found)


def test_a_second_run_beside_that_fails_is_told_and_the_next_goes_on(tmp_path: Path) -> None:
    beside = OnnxRuntimeLoader(threads=2).load(onnx_models.write_model(tmp_path, "lookup", onnx_models.lookup()), "float32").beside()
    assert beside is not None
    for wrong in (np.array([99], np.int64), np.array([1.0], np.float32)):
        with pytest.raises(ModelFailed, match="onnxruntime failed to run the model: "):
            beside.run({"index": wrong})
    assert [10] == list(beside.run({"index": np.array([1], np.int64)})["value"])


@pytest.mark.parametrize("threads", [1, 3])
def test_no_second_run_beside_one_that_has_not_two_cores(double: Path, threads: int) -> None:
    assert OnnxRuntimeLoader(threads=threads).load(double, "float32").beside() is None


def test_an_engine_may_be_freed_as_soon_as_a_run_beside_has_ended(double: Path) -> None:
    """In a process of its own, which would never end: to free a session waits for its thread, which may still want the interpreter."""
    code = """
import sys, threading
import numpy as np
from inference_server.engine.onnxruntime.engine import OnnxRuntimeLoader
threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
sys.setswitchinterval(1e-6)
for _ in range(100):
    OnnxRuntimeLoader(threads=2).load(__import__("pathlib").Path(sys.argv[1]), "float32").beside().run({"x": np.ones((1, 4), np.float32)})
print("freed", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(double)], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "freed\n"
