"""tritonclient, sync: every call that does not need shared memory."""

import json
import sys
import threading

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def infer_input(name, array, datatype):
    made = triton.InferInput(name, array.shape, datatype)
    made.set_data_from_numpy(array)
    return made


def pair(value):
    array = np.full((2, 4), value, np.float32)
    return [infer_input("a", array, "FP32"), infer_input("b", array, "FP32")]


def status(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except InferenceServerException as error:
        return error.status()
    return "OK"


client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("sum_and_difference")
assert client.get_server_metadata().name == "lamina"
assert client.get_model_metadata("sum_and_difference").inputs[0].datatype == "FP32"
assert client.get_model_config("sum_and_difference").config.max_batch_size == 8

result = client.infer("sum_and_difference", pair(1.5), request_id="r-1", priority=2, timeout=60_000_000, headers={"lamina-client": "test"})
assert result.get_response().id == "r-1"
assert result.as_numpy("sum").tolist() == [[3.0] * 4] * 2
assert result.as_numpy("difference").tolist() == [[0.0] * 4] * 2

outputs = [triton.InferRequestedOutput("sum", class_count=2)]
assert client.infer("sum_and_difference", pair(1), outputs=outputs).as_numpy("sum").tolist()[0] == [b"2.000000:0", b"2.000000:1"]

texts = np.array([["é".encode(), b""], [b"abc", b"d"]], dtype=np.object_).reshape(4)
assert client.infer("text_identity", [infer_input("text", texts, "BYTES")]).as_numpy("same").tolist() == texts.tolist()

big = np.random.default_rng(0).random((8, 4), dtype=np.float32)
for algorithm in ("gzip", "deflate"):
    inputs = [infer_input("a", big, "FP32"), infer_input("b", big, "FP32")]
    got = client.infer("sum_and_difference", inputs, compression_algorithm=algorithm)
    assert np.array_equal(got.as_numpy("sum"), big + big)

ready, answers = threading.Event(), []
client.async_infer("sum_and_difference", pair(2), callback=lambda result, error: (answers.append((result, error)), ready.set()))
assert ready.wait(60)
assert answers[0][1] is None

wrong_type = [infer_input("a", np.zeros((1, 4), np.int64), "INT64"), infer_input("b", np.zeros((1, 4), np.int64), "INT64")]
wrong_shape = [infer_input("a", np.zeros((1, 3), np.float32), "FP32"), infer_input("b", np.zeros((1, 3), np.float32), "FP32")]
statuses = {
    "unknown model": status(client.infer, "none", pair(1)),
    "unknown version": status(client.infer, "sum_and_difference", pair(1), model_version="9"),
    "missing input": status(client.infer, "sum_and_difference", pair(1)[:1]),
    "extra input": status(client.infer, "sum_and_difference", [*pair(1), infer_input("c", np.zeros((2, 4), np.float32), "FP32")]),
    "wrong datatype": status(client.infer, "sum_and_difference", wrong_type),
    "wrong shape": status(client.infer, "sum_and_difference", wrong_shape),
    "unloaded": "",
}

client.unload_model("text_identity")
statuses["unloaded"] = status(client.infer, "text_identity", [infer_input("text", texts, "BYTES")])
client.load_model("text_identity", config=json.dumps({"max_batch_size": 4}))
assert client.get_model_config("text_identity").config.max_batch_size == 4
assert client.is_model_ready("text_identity")
index = {model.name: model.state for model in client.get_model_repository_index().models}
assert (index["text_identity"], index["broken"]) == ("READY", "UNAVAILABLE"), index

statistics = client.get_inference_statistics("sum_and_difference").model_stats[0]
assert statistics.inference_stats.success.count >= 5
assert sum(batch.compute_infer.count for batch in statistics.batch_stats) == statistics.execution_count > 0

assert client.get_log_settings(as_json=True)["settings"]["log_info"]["bool_param"] is True
assert client.update_log_settings({"log_verbose_level": 1}).settings["log_verbose_level"].uint32_param == 1
client.update_log_settings({"log_verbose_level": 0})
assert list(client.get_trace_settings().settings["trace_level"].value) == ["OFF"]
assert len(client.get_cuda_shared_memory_status().regions) == 0
client.unregister_cuda_shared_memory()

print(json.dumps(statuses))
