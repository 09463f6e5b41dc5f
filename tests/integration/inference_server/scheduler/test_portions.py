"""A batch that is more than an execution may take at once is run in portions, and nobody but the engine sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference_server.engine.onnxruntime.engine import OnnxRuntimeLoader
from inference_server.engine.portions import in_portions
from inference_server.errors import ModelFailed
from inference_server.scheduler.port import Caller, InferenceRequest
from tests.support.inference_server.serving import serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, selector

# A row of x has 16 bytes.
CONFIG = """
    max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [4] } dynamic_batching { }
    parameters { key: "lamina.run_bytes" value { string_value: "%d" } }
    parameters { key: "intra_op_thread_count" value { string_value: "%d" } }
"""


@pytest.mark.parametrize(
    ("run_bytes", "threads", "expected"),
    [(47, 1, [2, 2, 1]), (64, 1, [3, 2]), (1, 1, [1] * 5), (80, 1, [5]), (0, 1, [5]), (16, 2, [2, 2, 1]), (16, 4, [3, 2])],
)
async def test_a_batch_is_run_in_portions_that_stay_within_the_bytes_of_its_configuration(
    tmp_path: Path, run_bytes: int, threads: int, expected: list[int]
) -> None:
    engine = ReferenceLoader()
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=CONFIG % (run_bytes, threads))
    x = np.arange(20, dtype=np.float32).reshape(5, 4)
    async with serving(tmp_path, selector(engine)) as models:
        engine.runs.clear()
        answer = await models.infer(InferenceRequest(model="double", inputs={"x": x}, outputs=("negative", "doubled"), caller=Caller()))
    assert expected == [len(run["x"]) for run in engine.runs]
    np.testing.assert_array_equal(2 * x, answer.outputs["doubled"])
    np.testing.assert_array_equal(-x, answer.outputs["negative"])


async def test_a_batch_is_run_in_the_numbers_of_rows_that_its_configuration_tells(tmp_path: Path) -> None:
    engine = ReferenceLoader()
    config = CONFIG % (0, 1) + 'parameters { key: "lamina.run_rows" value { string_value: "1,2" } }'
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=config)
    async with serving(tmp_path, selector(engine)) as models:
        engine.runs.clear()
        await models.infer(InferenceRequest(model="double", inputs={"x": np.ones((5, 4), np.float32)}, caller=Caller()))
    assert [2, 2, 1] == [len(run["x"]) for run in engine.runs]


@pytest.mark.parametrize(
    ("run_bytes", "run_rows", "rows", "expected"),
    [
        (0, (1, 2, 4, 8), 7, [4, 2, 1]),
        (0, (1, 2, 4, 8), 8, [8]),
        (80, (1, 2, 4), 7, [4, 2, 1]),
        (64, (2, 1), 5, [2, 2, 1]),
        (16, (1, 2), 3, [1, 1, 1]),
        (47, (), 5, [2, 2, 1]),
        (0, (1, 3), 3, [3]),
    ],
)
def test_an_execution_has_one_of_the_numbers_of_rows_that_are_told(
    tmp_path: Path, run_bytes: int, run_rows: tuple[int, ...], rows: int, expected: list[int]
) -> None:
    file = onnx_models.write_model(tmp_path, "double", onnx_models.double())
    engine = ReferenceLoader()
    x = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
    answer = in_portions(engine.load(file, "float32"), run_bytes, run_rows).run({"x": x})
    assert expected == [len(run["x"]) for run in engine.runs]
    np.testing.assert_array_equal(2 * x, answer["doubled"])


def test_an_output_that_has_not_a_row_for_each_row_is_told(tmp_path: Path) -> None:
    file = onnx_models.write_model(tmp_path, "total", onnx_models.total())
    engine = in_portions(OnnxRuntimeLoader(threads=1).load(file, "float32"), 32)
    with pytest.raises(ModelFailed, match=r"output total has the shape \[1, 4\] for a portion of 2 rows"):
        engine.run({"x": np.ones((4, 4), np.float32)})
