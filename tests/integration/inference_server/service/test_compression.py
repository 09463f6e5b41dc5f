"""gRPC's compression of messages, in both directions, as the bytes on the wire tell it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from inference import grpc_service_pb2_grpc as wire_grpc

from inference_server.application import Application
from tests.support.inference_server.running_application import running_application
from tests.support.models.requests import infer_request

TEXT = np.array(["x" * 200_000], np.object_)


class Wire:
    """A relay to a server that counts what passes."""

    def __init__(self, server: str) -> None:
        self._host, _, port = server.rpartition(":")
        self._port = int(port)
        self.up = self.down = 0

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(self._pump(reader, server_writer, "up"), self._pump(server_reader, writer, "down"))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        try:
            while content := await reader.read(65_536):
                setattr(self, way, getattr(self, way) + len(content))
                writer.write(content)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def through_a_wire(application: Application) -> AsyncIterator[tuple[Any, Wire]]:
    wire = Wire(application.grpc.address)
    server = await asyncio.start_server(wire.relay, "127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as channel:
            yield wire_grpc.GRPCInferenceServiceStub(channel), wire
    finally:
        server.close()


async def _echo(stub: Any, way: str, compression: grpc.Compression | None) -> bytes:
    """The text that comes back."""
    request = infer_request("text_identity", text=TEXT)
    if way == "call":
        return (await stub.ModelInfer(request, compression=compression)).raw_output_contents[0]
    answers = [answer async for answer in stub.ModelStreamInfer(iter([request]), compression=compression)]
    return answers[0].infer_response.raw_output_contents[0]


@pytest.mark.parametrize("way", ["call", "stream"])
@pytest.mark.parametrize("requests", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("responses", ["none", "gzip", "deflate"])
async def test_messages_are_compressed_in_the_direction_that_asks_for_it(
    small_repository: Path, tmp_path: Path, way: str, requests: grpc.Compression | None, responses: str
) -> None:
    async with (
        running_application(small_repository, tmp_path, response_compression=responses) as application,
        through_a_wire(application) as (stub, wire),
    ):
        assert await _echo(stub, way, requests) == infer_request("text_identity", text=TEXT).raw_input_contents[0]
        assert (wire.up < 50_000, wire.down < 50_000) == (requests is not None, responses != "none")


async def test_a_compressed_message_counts_with_its_whole_size(small_repository: Path, tmp_path: Path) -> None:
    """Else a small message could take all the memory there is."""
    async with (
        running_application(small_repository, tmp_path, max_message_bytes=2**17) as application,
        through_a_wire(application) as (stub, wire),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _echo(stub, "call", grpc.Compression.Gzip)
        assert (caught.value.code(), wire.up < 50_000) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
