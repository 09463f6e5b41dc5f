"""tritonclient: inputs and outputs in system shared memory that the client made."""

import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, shared_memory

address, prefix = sys.argv[1:]
client = triton.InferenceServerClient(address)
rows = np.arange(8, dtype=np.float32).reshape(2, 4)
given = shared_memory.create_shared_memory_region("given", f"{prefix}given", 2 * rows.nbytes)
taken = shared_memory.create_shared_memory_region("taken", f"{prefix}taken", rows.nbytes)
try:
    shared_memory.set_shared_memory_region(given, [rows, rows])
    client.register_system_shared_memory("given", f"{prefix}given", 2 * rows.nbytes)
    client.register_system_shared_memory("taken", f"{prefix}taken", rows.nbytes)
    assert set(client.get_system_shared_memory_status().regions) == {"given", "taken"}
    inputs = [triton.InferInput(name, rows.shape, "FP32") for name in ("a", "b")]
    for place, made in enumerate(inputs):
        made.set_shared_memory("given", rows.nbytes, offset=place * rows.nbytes)
    wanted = triton.InferRequestedOutput("sum")
    wanted.set_shared_memory("taken", rows.nbytes)
    whole = triton.InferRequestedOutput("difference")
    result = client.infer("sum_and_difference", inputs, outputs=[wanted, whole])
    assert np.array_equal(shared_memory.get_contents_as_numpy(taken, np.float32, rows.shape), rows + rows)
    assert not result.as_numpy("difference").any()
    assert result.get_output("sum").parameters["shared_memory_region"].string_param == "taken"
    try:
        client.register_system_shared_memory("other", "another_key", 8)
        raise AssertionError("a key outside of the allowed prefixes was taken")
    except InferenceServerException as error:
        told = str(error)
    assert "another_key" not in told, told
    client.unregister_system_shared_memory()
    assert not client.get_system_shared_memory_status().regions
finally:
    shared_memory.destroy_shared_memory_region(given)
    shared_memory.destroy_shared_memory_region(taken)
print("done")
