"""The Open Inference Protocol's numbers and types, which clients of Triton rely on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from inference import grpc_service_pb2, model_config_pb2

ROOT = Path(__file__).parents[3]

RPCS = {
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
}

FIELDS = {
    "ModelInferRequest": "1 model_name string, 2 model_version string, 3 id string, 4 parameters message*, 5 inputs message*, "
    "6 outputs message*, 7 raw_input_contents bytes*",
    "ModelInferRequest.InferInputTensor": "1 name string, 2 datatype string, 3 shape int64*, 4 parameters message*, 5 contents message",
    "ModelInferRequest.InferRequestedOutputTensor": "1 name string, 2 parameters message*",
    "ModelInferResponse": "1 model_name string, 2 model_version string, 3 id string, 4 parameters message*, 5 outputs message*, "
    "6 raw_output_contents bytes*",
    "ModelInferResponse.InferOutputTensor": "1 name string, 2 datatype string, 3 shape int64*, 4 parameters message*, 5 contents message",
    "InferTensorContents": "1 bool_contents bool*, 2 int_contents int32*, 3 int64_contents int64*, 4 uint_contents uint32*, "
    "5 uint64_contents uint64*, 6 fp32_contents float*, 7 fp64_contents double*, 8 bytes_contents bytes*",
    "InferParameter": "1 bool_param bool, 2 int64_param int64, 3 string_param string, 4 double_param double, 5 uint64_param uint64",
    "ModelStreamInferResponse": "1 error_message string, 2 infer_response message",
    "ModelMetadataResponse": "1 name string, 2 versions string*, 3 platform string, 4 inputs message*, 5 outputs message*",
    "RepositoryIndexResponse.ModelIndex": "1 name string, 2 version string, 3 state string, 4 reason string",
    "ModelStatistics": "1 name string, 2 version string, 3 last_inference uint64, 4 inference_count uint64, 5 execution_count uint64, "
    "6 inference_stats message, 7 batch_stats message*, 8 memory_usage message*, 9 response_stats message*",
    "ModelRepositoryParameter": "1 bool_param bool, 2 int64_param int64, 3 string_param string, 4 bytes_param bytes",
    "ModelConfig": "1 name string, 2 platform string, 3 version_policy message, 4 max_batch_size int32, 5 input message*, "
    "6 output message*, 7 instance_group message*, 8 default_model_filename string, 9 cc_model_filenames message*, "
    "10 metric_tags message*, 11 dynamic_batching message, 12 optimization message, 13 sequence_batching message, "
    "14 parameters message*, 15 ensemble_scheduling message, 16 model_warmup message*, 17 backend string, 18 model_operations message, "
    "19 model_transaction_policy message, 20 batch_input message*, 21 batch_output message*, 23 model_repository_agents message, "
    "24 response_cache message, 25 runtime string, 26 model_metrics message",
    "ModelInput": "1 name string, 2 data_type enum, 3 format enum, 4 dims int64*, 5 reshape message, 6 is_shape_tensor bool, "
    "7 allow_ragged_batch bool, 8 optional bool, 9 is_non_linear_format_io bool",
    "ModelDynamicBatching": "1 preferred_batch_size int32*, 2 max_queue_delay_microseconds uint64, 3 preserve_ordering bool, "
    "4 priority_levels uint64, 5 default_priority_level uint64, 6 default_queue_policy message, 7 priority_queue_policy message*",
    "ModelInstanceGroup": "1 name string, 2 count int32, 3 gpus int32*, 4 kind enum, 5 profile string*, 6 rate_limiter message, "
    "7 passive bool, 8 secondary_devices message*, 9 host_policy string",
}

TYPES = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in ("string", "message", "bytes", "int64", "uint64", "int32", "uint32", "bool", "double", "float", "enum")
}


def _message(name: str) -> Descriptor:
    first, *rest = name.split(".")
    files = (grpc_service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
    found = next(file.message_types_by_name[first] for file in files if first in file.message_types_by_name)
    for part in rest:
        found = found.nested_types_by_name[part]
    return found


def test_the_service_has_tritons_twenty_rpcs() -> None:
    service = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == "inference.GRPCInferenceService"
    assert {method.name for method in service.methods} == RPCS


def test_only_model_stream_infer_streams_and_it_does_both_ways() -> None:
    service = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    streaming = [(method.name, method.client_streaming, method.server_streaming) for method in service.methods]
    assert [entry for entry in streaming if any(entry[1:])] == [("ModelStreamInfer", True, True)]


@pytest.mark.parametrize("name", FIELDS)
def test_a_message_has_tritons_numbers_names_and_types(name: str) -> None:
    fields = sorted(_message(name).fields, key=lambda field: field.number)
    described = ", ".join(f"{field.number} {field.name} {TYPES[field.type]}{'*' if field.is_repeated else ''}" for field in fields)
    assert described == FIELDS[name]


def test_data_types_have_tritons_numbers() -> None:
    names = (
        "INVALID",
        "BOOL",
        *(f"{sign}INT{bits}" for sign in ("U", "") for bits in (8, 16, 32, 64)),
        "FP16",
        "FP32",
        "FP64",
        "STRING",
        "BF16",
    )
    assert dict(model_config_pb2.DataType.items()) == {f"TYPE_{name}": number for number, name in enumerate(names)}


def test_the_committed_stubs_are_those_of_the_proto_files() -> None:
    pytest.importorskip("grpc_tools", reason="the development dependencies are not installed")
    done = subprocess.run([ROOT / "scripts" / "proto", "--check"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
