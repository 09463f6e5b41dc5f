"""Requests to web servers, over connections that are kept for the next ones. A redirect is an answer here, and is not followed.

Alone in importing h11.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import h11

from inference_server.places import WEB_PORTS, web_host

CONNECT_SECONDS = 5.0
# In which a server that is asked says nothing at all.
SILENT_SECONDS = 20.0
# For which a connection without requests is kept, less than servers keep them.
_IDLE_SECONDS = 4.0
_KEPT_OF_A_SERVER = 16
_READ_BYTES = 256 * 1024
_SENT_BYTES = 1024 * 1024
# Of an answer that nobody reads, for the sake of the connection.
_SKIPPED_BYTES, _SKIPPING_SECONDS = 16 * 1024, 0.5
# What stands for itself in a URL, escapes included, and a % that is none.
_SAFE = "%:@!$&'()*+,;=~-._"
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class WebFailure(Exception):
    """A web server did not answer, or not as HTTP has it; the text says how, and holds nothing secret."""

    def __init__(self, reason: str, *, passing: bool = True) -> None:
        """`passing`: whether the same request may do better at once."""
        super().__init__(reason)
        self.passing = passing


@dataclass(frozen=True, kw_only=True)
class WebRequest:
    """What a web server is asked for."""

    method: str
    # With scheme, host and, where there is one, a query; as it is sent.
    url: str
    headers: Mapping[str, str]
    # What is sent with it.
    content: bytes | Path = b""


class Reply:
    """An answer whose head has come."""

    def __init__(self, head: h11.Response, connection: _Connection) -> None:
        self.status = head.status_code
        # Names in lower case; of several of a name the last.
        self.headers = {name.decode("ascii"): value.decode("utf-8", "replace") for name, value in head.headers}
        self._connection = connection

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Its body. Raises `WebFailure` when that ends before it should."""
        with _told():
            while isinstance(event := await self._connection.next_event(), h11.Data):
                yield bytes(event.data)


class Connections:
    """Connections to any web servers, by proxies where the environment names some (`HTTPS_PROXY`, `NO_PROXY`)."""

    def __init__(self) -> None:
        # Of each event loop, by scheme and host.
        self._kept: WeakKeyDictionary[asyncio.AbstractEventLoop, defaultdict[str, list[_Connection]]] = WeakKeyDictionary()

    @contextlib.asynccontextmanager
    async def asked(self, request: WebRequest) -> AsyncIterator[Reply]:
        """The answer to a request, for as long as the block lasts. Raises `WebFailure`."""
        parts = urlsplit(request.url)
        kept = self._kept.setdefault(asyncio.get_running_loop(), defaultdict(list))[f"{parts.scheme}://{web_host(parts)}"]
        with _told():
            connection, reply = await self._ask(parts, request, kept)
        try:
            yield reply
            is_done = await connection.is_done()
        except BaseException:
            connection.abort()
            raise
        if is_done and len(kept) < _KEPT_OF_A_SERVER:
            connection.rest(kept)
        else:
            connection.abort()

    async def _ask(self, parts: SplitResult, request: WebRequest, kept: list[_Connection]) -> tuple[_Connection, Reply]:
        while True:
            rested = kept.pop() if kept else None
            if rested and not rested.wake():
                continue
            connection = rested or await self._connect(parts)
            try:
                return connection, await connection.ask(parts, request)
            except (OSError, h11.RemoteProtocolError) as error:
                connection.abort()
                # What was kept may have been closed meanwhile.
                if not rested or isinstance(error, TimeoutError):
                    raise
            except BaseException:
                connection.abort()
                raise

    async def _connect(self, parts: SplitResult) -> _Connection:
        proxy = _proxy(parts)
        at = proxy or parts
        async with asyncio.timeout(CONNECT_SECONDS):
            tls = self._tls if at.scheme == "https" else None
            streams = await asyncio.open_connection(at.hostname, _port(at), ssl=tls, limit=_READ_BYTES)
            connection = _Connection(*streams, proxy=proxy if parts.scheme == "http" else None)
            try:
                return await connection.through(proxy, parts, self._tls) if proxy and parts.scheme == "https" else connection
            except BaseException:
                connection.abort()
                raise

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


class _Connection:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, proxy: SplitResult | None = None) -> None:
        """`proxy`: that it leads to, where it passes on what it is asked."""
        self._reader = reader
        self._writer = writer
        self._proxy = proxy
        self._http = h11.Connection(h11.CLIENT)
        self._end_of_rest: asyncio.TimerHandle | None = None

    async def ask(self, parts: SplitResult, request: WebRequest) -> Reply:
        """Send a request, and wait for the head of its answer."""
        content = request.content
        size = (await asyncio.to_thread(content.stat)).st_size if isinstance(content, Path) else len(content)
        headers = {"Host": web_host(parts), "User-Agent": "lamina", "Accept": "*/*", "Accept-Encoding": "identity", **request.headers}
        if size or request.method == "PUT":
            headers["Content-Length"] = str(size)
        if self._proxy:
            headers |= _signed_in(self._proxy)
        target = _target(parts)
        await self._send(
            h11.Request(
                method=request.method,
                target=f"{parts.scheme}://{web_host(parts)}{target}" if self._proxy else target,
                headers=list(headers.items()),
            )
        )
        async for piece in _pieces(content):
            await self._send(h11.Data(data=piece))
        await self._send(h11.EndOfMessage())
        return await self._answer()

    async def through(self, proxy: SplitResult, parts: SplitResult, tls: ssl.SSLContext) -> _Connection:
        """The connection to a server with TLS behind a proxy."""
        host = f"{web_host(parts._replace(netloc=parts.netloc.removesuffix(f':{parts.port}')))}:{_port(parts)}"
        await self._send(h11.Request(method="CONNECT", target=host, headers=[("Host", host), *_signed_in(proxy).items()]))
        if (status := (await self._answer()).status) // 100 != 2:
            raise WebFailure(f"the proxy answers HTTP {status}")
        await self._writer.start_tls(tls, server_hostname=parts.hostname)
        return _Connection(self._reader, self._writer)

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        """What the server says next. Raises `OSError`, `h11.RemoteProtocolError`."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(SILENT_SECONDS):
                self._http.receive_data(await self._reader.read(_READ_BYTES))
        return cast(h11.Event, event)

    async def _answer(self) -> Reply:
        while isinstance(event := await self.next_event(), h11.InformationalResponse):
            pass
        if not isinstance(event, h11.Response):
            raise h11.RemoteProtocolError("no answer")
        return Reply(event, self)

    async def _send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        self._writer.write(self._http.send(event) or b"")
        async with asyncio.timeout(SILENT_SECONDS):
            await self._writer.drain()

    async def is_done(self) -> bool:
        """Whether the answer has come whole, a short rest that nobody read of it too, and the server takes more requests."""
        skipped = 0
        with contextlib.suppress(OSError, h11.RemoteProtocolError):
            async with asyncio.timeout(_SKIPPING_SECONDS):
                while self._http.their_state is h11.SEND_BODY and skipped < _SKIPPED_BYTES:
                    event = await self.next_event()
                    skipped += len(event.data) if isinstance(event, h11.Data) else 0
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def rest(self, kept: list[_Connection]) -> None:
        """Join what is kept, for a while."""
        self._http.start_next_cycle()
        kept.append(self)

        def end() -> None:
            kept.remove(self)
            self._writer.close()

        self._end_of_rest = asyncio.get_running_loop().call_later(_IDLE_SECONDS, end)

    def wake(self) -> bool:
        """Having left what is kept, tell whether it can be used; close it if not."""
        if self._end_of_rest:
            self._end_of_rest.cancel()
        if self._reader.at_eof() or self._writer.is_closing():
            self.abort()
            return False
        return True

    def abort(self) -> None:
        """Close it at once."""
        self._writer.transport.abort()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say `WebFailure` for whatever went wrong with a connection."""
    try:
        yield
    except h11.LocalProtocolError as error:
        raise WebFailure("its URL cannot be asked for", passing=False) from error
    except h11.RemoteProtocolError as error:
        raise WebFailure("its answer is cut short, or no HTTP") from error
    except ssl.SSLCertVerificationError as error:
        raise WebFailure(f"its certificate is not trusted: {error.verify_message}", passing=False) from error
    except ssl.SSLError as error:
        raise WebFailure("TLS could not be agreed on with it", passing=False) from error
    except socket.gaierror as error:
        raise WebFailure("the name of its host leads nowhere", passing=error.errno == socket.EAI_AGAIN) from error
    except TimeoutError as error:
        raise WebFailure("it does not answer in time") from error
    except OSError as error:
        raise WebFailure(os.strerror(error.errno) if error.errno else "it cannot be reached") from error


async def _pieces(content: bytes | Path) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        if content:
            yield content
        return
    with content.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _SENT_BYTES):
            yield piece


def _target(parts: SplitResult) -> str:
    """Path and query as they were spelled, but for what HTTP has no room for."""
    path = "/" + quote(_LONE_PERCENT.sub("%25", parts.path.lstrip("/")), safe=f"/{_SAFE}")
    return f"{path}?{quote(_LONE_PERCENT.sub('%25', parts.query), safe=f'/?{_SAFE}')}" if parts.query else path


def _port(parts: SplitResult) -> int:
    return WEB_PORTS[parts.scheme] if parts.port is None else parts.port


def _proxy(parts: SplitResult) -> SplitResult | None:
    """That which the environment names for a server."""
    proxies = getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named or proxy_bypass(parts.netloc):
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme not in WEB_PORTS or not proxy.hostname:
        raise WebFailure("the environment names a proxy for it that is none of HTTP", passing=False)
    return proxy


def _signed_in(proxy: SplitResult) -> dict[str, str]:
    """What shows a proxy who asks."""
    if not proxy.username:
        return {}
    shown = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(shown.encode()).decode()}"}
