"""tritonclient, aio: calls at a time, and a stream."""

import asyncio
import sys

import numpy as np
import tritonclient.grpc.aio as triton


def pair(value):
    made = []
    for name in ("a", "b"):
        made.append(triton.InferInput(name, [1, 4], "FP32"))
        made[-1].set_data_from_numpy(np.full((1, 4), value, np.float32))
    return made


async def requests(count):
    for number in range(count):
        yield {"model_name": "sum_and_difference", "inputs": pair(number), "request_id": str(number)}


async def main():
    async with triton.InferenceServerClient(sys.argv[1]) as client:
        assert await client.is_server_ready()
        results = await asyncio.gather(*(client.infer("sum_and_difference", pair(number)) for number in range(64)))
        assert [result.as_numpy("sum")[0, 0] for result in results] == [2 * number for number in range(64)]
        sums = {}
        async for result, error in client.stream_infer(requests(64)):
            assert error is None, error
            sums[result.get_response().id] = result.as_numpy("sum")[0, 0]
        assert sums == {str(number): 2 * number for number in range(64)}
    print("done")


asyncio.run(main())
