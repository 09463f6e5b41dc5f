"""Requests to web servers, over connections that are kept for the next ones. A redirect is an answer here, and is not followed.

Alone in importing httpx2.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit
from weakref import WeakKeyDictionary

import httpx2

from inference_server.storage.places import web_host

CONNECT_SECONDS = 5.0
# In which a server that is asked says nothing at all.
SILENT_SECONDS = 20.0
# For which a connection without requests is kept, less than servers keep them.
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=4.0)
_SENT_BYTES = 1024 * 1024
# Of an answer that nobody reads, for the sake of the connection.
_SKIPPED_BYTES, _SKIPPING_SECONDS = 16 * 1024, 0.5
# What stands for itself in a URL, escapes included, and a % that is none.
_SAFE = "/?%:@!$&'()*+,;=~-._"
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
    # With scheme, host and, where there is one, a query.
    url: str
    headers: Mapping[str, str]
    # What is sent with it.
    content: bytes | Path = b""


class Reply:
    """An answer whose head has come."""

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        # Names in lower case.
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Its body, as it was sent. Raises `WebFailure` when that ends before it should."""
        with _told():
            async for piece in self._response.aiter_raw():
                yield piece

    async def skip(self) -> None:
        """Take in what is left of a short body, so that the connection can be used again."""
        if self._response.is_stream_consumed:
            return
        with contextlib.suppress(httpx2.HTTPError, TimeoutError):
            async with asyncio.timeout(_SKIPPING_SECONDS), contextlib.aclosing(self._response.aiter_raw()) as pieces:
                async for _ in pieces:
                    if self._response.num_bytes_downloaded > _SKIPPED_BYTES:
                        break


class Connections:
    """Connections to any web servers, by proxies where the environment names some (`HTTPS_PROXY`, `NO_PROXY`)."""

    def __init__(self) -> None:
        # One of each event loop.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = WeakKeyDictionary()

    @contextlib.asynccontextmanager
    async def asked(self, request: WebRequest) -> AsyncIterator[Reply]:
        """The answer to a request, for as long as the block lasts. Raises `WebFailure`."""
        async with contextlib.AsyncExitStack() as stack:
            with _told():
                client = self._client()
                headers = {"Accept-Encoding": "identity", **request.headers}
                if request.method == "PUT":
                    headers["Content-Length"] = str(await size_of(request.content))
                response = await stack.enter_async_context(
                    client.stream(
                        request.method,
                        _spelled(request.url),
                        headers=headers,
                        content=_pieces(request.content) if request.content else None,
                        timeout=httpx2.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
                    )
                )
            reply = Reply(response)
            yield reply
            await reply.skip()

    def _client(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            # The system's certificates, or those of SSL_CERT_FILE.
            tls = ssl.create_default_context()
            try:
                self._clients[loop] = httpx2.AsyncClient(
                    verify=tls, follow_redirects=False, limits=_LIMITS, headers={"User-Agent": "lamina"}
                )
            except (ImportError, ValueError) as error:
                raise WebFailure("the environment names a proxy for it that is none of HTTP", passing=False) from error
        return self._clients[loop]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say `WebFailure` for whatever went wrong with a connection."""
    try:
        yield
    except (httpx2.LocalProtocolError, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise WebFailure("its URL cannot be asked for", passing=False) from error
    except httpx2.RemoteProtocolError as error:
        raise WebFailure("its answer is cut short, or no HTTP") from error
    except httpx2.ProxyError as error:
        raise WebFailure(f"the proxy answers HTTP {str(error)[:3]}") from error
    except httpx2.TimeoutException as error:
        raise WebFailure("it does not answer in time") from error
    except (httpx2.TransportError, OSError) as error:
        raise _unreached(error) from error


def _unreached(error: Exception) -> WebFailure:
    """Why a server was not reached, which an error of the system tells below those of libraries."""
    cause = next((each for each in _causes(error) if isinstance(each, OSError) and each.errno), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return WebFailure(f"its certificate is not trusted: {cause.verify_message}", passing=False)
    if isinstance(cause, ssl.SSLError):
        return WebFailure("TLS could not be agreed on with it", passing=False)
    if isinstance(cause, socket.gaierror):
        return WebFailure("the name of its host leads nowhere", passing=cause.errno == socket.EAI_AGAIN)
    return WebFailure(os.strerror(cause.errno) if cause and cause.errno else "it cannot be reached")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error:
        yield error
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error.__context__


async def size_of(content: bytes | Path) -> int:
    """Bytes of what is sent. Raises `OSError`."""
    return len(content) if isinstance(content, bytes) else (await asyncio.to_thread(content.stat)).st_size


async def _pieces(content: bytes | Path) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _SENT_BYTES):
            yield piece


def _spelled(url: str) -> str:
    """A URL whose host is spelled as it was held against the roots, and the rest as it was given, but for what HTTP has no room for."""
    parts = urlsplit(url)
    path, query = (quote(_LONE_PERCENT.sub("%25", each), safe=_SAFE) for each in (parts.path, parts.query))
    return f"{parts.scheme}://{web_host(parts)}/{path.lstrip('/')}{'?' if query else ''}{query}"
