"""tritonclient: many requests over one stream, some of them wrong, and a stream that is cancelled."""

import json
import queue
import sys
import time

import numpy as np
import tritonclient.grpc as triton


def slow(steps):
    made = triton.InferInput("steps", [1], "INT64")
    made.set_data_from_numpy(np.array([steps], np.int64))
    return [made]


client = triton.InferenceServerClient(sys.argv[1])
answers = queue.Queue()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
client.async_stream_infer("slow", slow(1500), request_id="late")
for number in range(50):
    client.async_stream_infer("slow" if number % 5 else "none", slow(1), request_id=str(number), enable_empty_final_response=True)
ids, errors = [], 0
for _ in range(51):
    result, error = answers.get(timeout=60)
    errors += error is not None
    if error is None:
        response = result.get_response()
        assert response.parameters["triton_final_response"].bool_param
        ids.append(response.id)
client.stop_stream()


def runs():
    return int(client.get_inference_statistics("slow", as_json=True)["model_stats"][0]["execution_count"])


before = runs()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
for number in range(20):
    client.async_stream_infer("slow", slow(2000), request_id=str(number))
time.sleep(0.2)
client.stop_stream(cancel_requests=True)
client.infer("slow", slow(1))
print(json.dumps({"results": len(ids), "errors": errors, "runs": runs() - before}))
