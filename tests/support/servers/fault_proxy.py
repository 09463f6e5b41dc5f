"""A TCP proxy that misbehaves on request: it cuts, delays, or swallows what passes, as networks and fail-overs do."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class FaultProxy:
    """Stands between a client and a server of this machine. Faults apply to connections that are open and to new ones."""

    def __init__(self, target_port: int) -> None:
        # Of the server; those that are connected stay with the one that they have.
        self.target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        # Nothing passes while it is not set.
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._delay_seconds = 0.0
        # Whether something lies here that does not pass.
        self.withheld = False
        # Connections so far.
        self.connections = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """Reset every open connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self) -> None:
        """Cut, and let nobody in any more."""
        self._refuses = True
        self.cut()

    def swallow(self) -> None:
        """Keep connections open, and let nothing pass: a black hole."""
        self._flows.clear()

    def delay(self, seconds: float) -> None:
        """Hold everything up for so long, each way."""
        self._delay_seconds = seconds

    def mend(self) -> None:
        """Behave again."""
        self._refuses = False
        self._delay_seconds = 0.0
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refuses:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await self._flows.wait()
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(server_writer)
        for source, sink in ((reader, server_writer), (server_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                self.withheld = not self._flows.is_set()
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # the connection is gone, and so is its other half below
        finally:
            self._writers.discard(sink)
            sink.close()
