"""What is read from a config.pbtxt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference_server.errors import ConfigurationError
from inference_server.models.config import read_configuration
from inference_server.models.repository import ModelRepository
from inference_server.models.values import DEFAULT_LEVEL, Batching, Configuration, Placement, QueuePolicy, TensorConfig


@pytest.fixture
def read(tmp_path: Path):  # type: ignore[no-untyped-def]
    def read(text: str) -> Configuration:
        folder = tmp_path / "net"
        folder.mkdir()
        (folder / "config.pbtxt").write_text(text)
        return read_configuration(folder)

    return read


def test_a_whole_configuration(read) -> None:  # type: ignore[no-untyped-def]
    configuration = read("""
        name: "net" platform: "onnxruntime_onnx" max_batch_size: 16 default_model_filename: "net.onnx"
        input [ { name: "x" data_type: TYPE_UINT8 dims: [ -1, 3 ] } ] output { name: "y" data_type: TYPE_FP32 dims: 2 }
        dynamic_batching {
          preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 500 priority_levels: 3 default_priority_level: 2
          default_queue_policy { default_timeout_microseconds: 250000 max_queue_size: 9 timeout_action: DELAY }
          priority_queue_policy { key: 1 value { max_queue_size: 5 } }
        }
        instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_GPU gpus: [ 1 ] }, { count: 7 passive: true } ]
        parameters { key: "lamina.engine" value { string_value: "openvino" } }
        parameters { key: "lamina.warmup_shape.x" value { string_value: "64x3" } }
        parameters { key: "lamina.tolerance" value { string_value: "0.05" } }
        parameters { key: "intra_op_thread_count" value { string_value: "3" } }
        parameters { key: "lamina.run_bytes" value { string_value: "350000" } }
        parameters { key: "lamina.run_rows" value { string_value: "1,2,12" } }
    """)
    assert (16, "net.onnx", "openvino", 3, 350_000, (1, 2, 12), 0.05, {"x": (64, 3)}) == (
        configuration.max_batch_size,
        configuration.filename,
        configuration.engine,
        configuration.threads,
        configuration.run_bytes,
        configuration.run_rows,
        configuration.tolerance,
        configuration.warmup_shapes,
    )
    assert (TensorConfig(name="x", dtype=np.dtype(np.uint8), dims=(-1, 3)),) == configuration.inputs
    assert (TensorConfig(name="y", dtype=np.dtype(np.float32), dims=(2,)),) == configuration.outputs
    assert (Placement(kind="cpu", count=2), Placement(kind="gpu", count=1, gpus=(1,))) == configuration.placements
    expected = Batching(
        preferred_sizes=(4, 8),
        max_delay_seconds=0.0005,
        levels=3,
        default_level=2,
        policy=QueuePolicy(timeout_seconds=0.25, delays=True, max_requests=9),
        policies={1: QueuePolicy(max_requests=5)},
        strict=True,
    )
    assert expected == configuration.batching


def test_no_configuration_leaves_every_choice_to_the_model(tmp_path: Path) -> None:
    configuration = read_configuration(tmp_path)
    assert (None, "model.onnx", (Placement(kind="auto", count=1),)) == (
        configuration.max_batch_size,
        configuration.filename,
        configuration.placements,
    )


def test_a_configuration_that_names_tensors_and_no_batch_size_means_no_batches(read) -> None:  # type: ignore[no-untyped-def]
    assert 0 == read('input { name: "x" data_type: TYPE_FP32 dims: 4 }').max_batch_size


@pytest.mark.parametrize(("priority", "level"), [(0, DEFAULT_LEVEL), (1, 1), (10, 10), (11, DEFAULT_LEVEL), (-1, DEFAULT_LEVEL)])
def test_a_priority_that_there_is_not_means_the_default(priority: int, level: int) -> None:
    assert level == Batching().level(priority)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: -1", "max_batch_size -1; expected 0 or more"),
        ('default_model_filename: "../other/1/model.onnx"', "expected a plain file name"),
        ("dynamic_batching { priority_levels: 2 }", "default_priority_level 0; expected 1 to priority_levels, 2"),
        ("dynamic_batching { priority_levels: 2 default_priority_level: 3 }", "default_priority_level 3"),
        ("sequence_batching { } optimization { graph { level: 1 } }", "asks for optimization.graph.level, sequence_batching"),
        ("optimization { cuda { busy_wait_events: true } }", "asks for optimization.cuda.busy_wait_events, which"),
        ("optimization { cuda { output_copy_stream: true } }", "asks for optimization.cuda.output_copy_stream, which"),
        ("optimization { gather_kernel_buffer_threshold: 1 }", "asks for optimization.gather_kernel_buffer_threshold, which"),
        ("optimization { cuda { graph_spec { batch_size: 1 } } }", "graph_spec without graphs: true"),
        ("max_batch_size: 4 optimization { cuda { graphs: true graph_spec { batch_size: 8 } } }", "expected 0 to max_batch_size, 4"),
        (
            "optimization { cuda { graphs: true graph_spec { graph_lower_bound { batch_size: 1 } } } }",
            "optimization.cuda.graph_spec.graph_lower_bound.batch_size, which",
        ),
        ('parameters { key: "gpu_mem_limit" value { string_value: "4G" } }', "gpu_mem_limit '4G'; expected a number of bytes"),
        ('parameters { key: "cudnn_conv_algo_search" value { string_value: "9" } }', "cudnn_conv_algo_search '9'; expected one of 0, 1, 2"),
        ('platform: "tensorrt_plan" default_model_filename: "model.onnx"', "tensorrt_plan with default_model_filename model.onnx; plans"),
        ('backend: "onnxruntime" default_model_filename: "model.plan"', "onnxruntime with default_model_filename model.plan; plans"),
        ('cc_model_filenames { key: "8.0" value: "model.plan" }', "asks for cc_model_filenames"),
        ("dynamic_batching { preserve_ordering: true }", "asks for dynamic_batching.preserve_ordering"),
        ('instance_group { profile: "1" host_policy: "0" }', "asks for instance_group.profile, instance_group.host_policy"),
        ('metric_tags { key: "a" value: "b" } runtime: "x"', "asks for metric_tags, runtime"),
        ('parameters { key: "session.use_env_allocators" value { string_value: "1" } }', "parameters.session.use_env_allocators"),
        ('parameters { key: "execution_mode" value { string_value: "1" } }', "parameters.execution_mode"),
        ('optimization { execution_accelerators { gpu_execution_accelerator { name: "auto_io" } } }', "auto_io; expected tensorrt, cuda"),
        (
            """optimization { execution_accelerators { gpu_execution_accelerator {
                 name: "tensorrt" parameters { key: "precision_mode" value: "INT4" } } } }""",
            "tensorrt with precision_mode 'INT4'; expected one of FP32, FP16, BF16",
        ),
        (
            'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" parameters { key: "streams" }}}}',
            "openvino with streams, which this server does not do",
        ),
        ("model_transaction_policy { decoupled: true }", "decoupled"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 1 reshape { } }', "asks for input.reshape"),
        ('input { name: "x" data_type: TYPE_FP32 }', "a name and dims are needed"),
        ('input { name: "x" data_type: TYPE_INVALID dims: 1 }', "TYPE_INVALID; expected one of"),
        ('parameters { key: "lamina.tolerance" value { string_value: "much" } }', "expected a share such as 0.05"),
        ('parameters { key: "intra_op_thread_count" value { string_value: "all" } }', "expected a number"),
        ('parameters { key: "intra_op_thread_count" value { string_value: "²" } }', "expected a number"),
        ('max_batch_size: 8 parameters { key: "lamina.run_bytes" value { string_value: "1 MB" } }', "expected a number"),
        ('parameters { key: "lamina.run_bytes" value { string_value: "350000" } }', "no max_batch_size of 1 or more"),
        ('max_batch_size: 8 parameters { key: "lamina.run_rows" value { string_value: "2,4" } }', "expected numbers from 1 on"),
        ('parameters { key: "lamina.run_rows" value { string_value: "1,2" } }', "no max_batch_size of 1 or more"),
        (
            'model_warmup { name: "w" inputs { key: "x" value { data_type: TYPE_FP32 dims: 1 input_data_file: "../../secret" } } }',
            "expected a plain file name in its folder warmup",
        ),
        ("\x00\x01", "is not a model configuration"),
    ],
)
def test_what_is_wrong_is_named(read, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError) as error:
        read(text)
    assert str(error.value).startswith("net/config.pbtxt")
    assert message in str(error.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read: UnicodeDecodeError"):
        read_configuration(tmp_path)


def test_digests_cover_the_weights_beside_the_model(tmp_path: Path) -> None:
    version = tmp_path / "net" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"graph")
    (file,) = ModelRepository(tmp_path).read("net").versions
    sha256, before = file.digests()
    (version / "model.onnx.data").write_bytes(b"weights")
    assert sha256 == file.digests()[0]
    assert before != file.digests()[1]
