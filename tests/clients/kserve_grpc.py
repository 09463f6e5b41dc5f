"""KServe's Python client over gRPC."""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def main():
    async with InferenceGRPCClient(url=sys.argv[1]) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("sum_and_difference")
        rows = np.arange(8, dtype=np.float32).reshape(2, 4)
        inputs = [InferInput(name=name, shape=[2, 4], datatype="FP32") for name in ("a", "b")]
        for made in inputs:
            made.set_data_from_numpy(rows, binary_data=False)
        typed = await client.infer(InferRequest(model_name="sum_and_difference", infer_inputs=inputs))
        assert np.array_equal(typed.outputs[0].as_numpy(), rows + rows), typed
        for made in inputs:
            made.set_data_from_numpy(rows, binary_data=True)
        raw = await client.infer(InferRequest(model_name="sum_and_difference", infer_inputs=inputs, request_id="r-1"))
        assert (raw.id, np.array_equal(raw.outputs[0].as_numpy(), rows + rows)) == ("r-1", True)
    print("done")


asyncio.run(main())
