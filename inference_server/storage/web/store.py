"""One file of a web server: looked at, read in parts and written, nothing outside the roots asked for.

obstore would do that too, and follow redirects wherever they lead. Its errors are raised here, so that stores fail alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urldefrag, urljoin, urlsplit

from obstore.exceptions import NotFoundError, PermissionDeniedError, PreconditionError

from inference_server.errors import AccessDenied, InvalidInput
from inference_server.storage.places import Roots, web_host
from inference_server.storage.web import answers
from inference_server.storage.web.requests import Connections, Reply, WebFailure, WebRequest, size_of

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Those that ask for the same again, in the case of what is written too.
_REDIRECTS_OF_WRITING = frozenset({307, 308})
_MOST_REDIRECTS = 5
# Seconds before another try of what may pass: a server that starts anew, a connection that breaks.
_WAITS = (0.1, 0.5, 2.0)
_PASSING = frozenset({408, 425, 429})
# What an answer may take: some seconds, and as long as its bytes take on a slow line.
_ANSWER_SECONDS = 30.0
_LEAST_BYTES_A_SECOND = 64 * 1024
# As much of a file's start is read of servers that send whole files alone.
_START_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class WebAnswer:
    """Bytes of a file, and what the server told of it with them."""

    meta: ObjectMeta
    content: bytes

    async def bytes_async(self) -> bytes:
        """The bytes, as obstore gives them."""
        return self.content


class WebStore:
    """One file of a web server. Its parts are asked for one by one, each by the redirects that there are at the time."""

    def __init__(self, uri: str, roots: Roots, connections: Connections) -> None:
        """`uri`: under one of the roots, as must be whatever it redirects to."""
        self.uri = uri
        self._roots = roots
        self._connections = connections
        # Whether the server sends parts of it, and not only all; known once it was looked at, or its start was read.
        self.sends_parts = True

    async def head(self) -> ObjectMeta:
        """Look at the file. Raises obstore's errors, `WebFailure`, `AccessDenied`, `InvalidInput`."""
        return await _tried(self._look)

    async def get(self, span: tuple[int, int] | None, *, condition: str, size_bytes: int) -> WebAnswer:
        """Read the file, or a part of it from a start to an end. Raises as `head` does.

        `condition`: the entity tag that it must have, if any; `size_bytes`: its size when it was looked at.
        """
        return await _tried(lambda: self._get(span, condition, size_bytes), span[1] - span[0] if span else size_bytes)

    @contextlib.asynccontextmanager
    async def whole(self, *, condition: str, size_bytes: int) -> AsyncIterator[tuple[ObjectMeta, AsyncIterator[bytes]]]:
        """What the server tells of the file, and all of it, piece by piece as it comes; as `get`."""
        async with contextlib.AsyncExitStack() as stack:
            # What is awaited between pieces is others' to limit.
            async with _limited():
                reply = await stack.enter_async_context(self._asked("GET", answers.asking_for(None, condition)))
            self._check_content(reply, 200)
            size = answers.length(reply) if "content-length" in reply.headers else size_bytes
            if size != size_bytes:
                raise PreconditionError("of another size")
            yield answers.meta(self.uri, size, reply), self._exactly(reply, size)

    async def put(self, content: bytes | Path) -> None:
        """Write the file, in the place of what was there, and the folders that it lacks where the server speaks WebDAV; as `head`."""
        await _tried(lambda: self._put(content), await size_of(content))

    async def _put(self, content: bytes | Path) -> None:
        async with self._asked("PUT", {}, content) as reply:
            if reply.status not in (404, 409):
                self._check(reply, 200, 201, 204)
                return
        await self._make_folders()
        async with self._asked("PUT", {}, content) as reply:
            self._check(reply, 200, 201, 204)

    async def _make_folders(self) -> None:
        parts = urlsplit(self.uri)
        names = parts.path.strip("/").split("/")[:-1]
        for depth in range(1, len(names) + 1):
            path = "/" + "/".join(names[:depth]) + "/"
            if not self._roots.hold_web(parts._replace(path=path).geturl()):
                continue
            request = WebRequest(method="MKCOL", url=parts._replace(path=path).geturl(), headers={})
            async with self._connections.asked(request):
                pass

    async def _look(self) -> ObjectMeta:
        """By HEAD, and by asking for a byte where that does not tell enough."""
        async with self._asked("HEAD", {}) as reply:
            head = reply
        told = [head] if head.status == 200 and not answers.is_encoded(head) else []
        size = answers.length(head) if told else 0
        if size and head.headers.get("accept-ranges", "").strip().lower() == "bytes":
            self.sends_parts = True
            return answers.meta(self.uri, size, head)
        async with self._asked("GET", answers.asking_for((0, 1), "")) as reply:
            self._check_content(reply, 200, 206, 416)
            size = answers.whole_size(reply) or size
            if not size and not answers.says_empty(reply):
                raise InvalidInput(f"the web server of {self.uri} does not tell how large it is; have it send Content-Length.")
            self.sends_parts = reply.status == 206
            return answers.meta(self.uri, size, *([] if reply.status == 416 else [reply]), *told)

    async def _get(self, span: tuple[int, int] | None, condition: str, size_bytes: int) -> WebAnswer:
        if span is None:
            async with self.whole(condition=condition, size_bytes=size_bytes) as (meta, pieces):
                return WebAnswer(meta=meta, content=b"".join([piece async for piece in pieces]))
        async with self._asked("GET", answers.asking_for(span, condition)) as reply:
            self._check_content(reply, 200, 206, 416)
            size = answers.whole_size(reply) or size_bytes
            if reply.status == 416 and size == size_bytes:
                raise WebFailure("it has no such bytes", passing=False)
            if size != size_bytes:
                raise PreconditionError("of another size")
            end = min(span[1], size)
            # Some say that they send parts, and do not.
            self.sends_parts = reply.status == 206
            if not self.sends_parts:
                content = await self._start(reply, span[0], end)
            else:
                self._check_part(reply, span[0], end)
                content = b"".join([piece async for piece in self._exactly(reply, end - span[0])])
            return WebAnswer(meta=answers.meta(self.uri, size, reply), content=content)

    def _check_part(self, reply: Reply, start: int, end: int) -> None:
        """Raise `InvalidInput` for a part that is another than was asked for."""
        if answers.span(reply) != (start, end):
            raise InvalidInput(
                f"the web server of {self.uri} sends other parts than are asked for (bytes {start} to {end - 1}). Have it serve ranges as "
                "RFC 9110 says, or put the file into S3, GCS or Azure, or on disk."
            )

    async def _start(self, reply: Reply, start: int, end: int) -> bytes:
        """The start of a file that is sent whole though a part of it was asked for."""
        if start or end > _START_BYTES:
            raise InvalidInput(
                f"the web server of {self.uri} sends whole files alone, though it says otherwise, and parts are needed. Switch its range "
                "requests on, or put the file into S3, GCS or Azure, or on disk."
            )
        content = b""
        async with contextlib.aclosing(reply.pieces()) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) >= end:
                    break
        if len(content) < end:
            raise WebFailure("its answer is cut short")
        return content[:end]

    async def _exactly(self, reply: Reply, size: int) -> AsyncIterator[bytes]:
        """A body that must have so many bytes."""
        left, end = size, time.monotonic() + _seconds(size)
        async with contextlib.aclosing(reply.pieces()) as pieces:
            async for piece in pieces:
                left -= len(piece)
                if left < 0:
                    break
                if time.monotonic() > end:
                    raise _late(size)
                yield piece
        if left:
            raise WebFailure("its answer has more or less bytes than it says")

    @contextlib.asynccontextmanager
    async def _asked(self, method: str, headers: Mapping[str, str], content: bytes | Path = b"") -> AsyncIterator[Reply]:
        """The answer of the server that the file is at, at the end of redirects."""
        url = self.uri
        for _ in range(_MOST_REDIRECTS + 1):
            async with self._connections.asked(WebRequest(method=method, url=url, headers=headers, content=content)) as reply:
                if reply.status not in _REDIRECTS or not reply.headers.get("location"):
                    yield reply
                    return
                target = self._target(url, reply.headers["location"])
                if method == "PUT" and reply.status not in _REDIRECTS_OF_WRITING:
                    self._check(reply)
            url = target
        raise InvalidInput(f"{self.uri} is sent on more than {_MOST_REDIRECTS} times; name the place that it leads to.")

    def _target(self, url: str, location: str) -> str:
        """Where a redirect leads. Raises `AccessDenied` for a place outside the roots, or one that could be read in two ways."""
        try:
            target = urldefrag(urljoin(url, location)).url
            host = f"{urlsplit(target).scheme}://{web_host(urlsplit(target))}"
        except (KeyError, ValueError):
            target, host = "", "a place that is no URL"
        if not self._roots.hold_web(target):
            raise AccessDenied(
                f"{self.uri} is sent on to {host}, to a place that may not be {self._roots.verb}. Name the URL prefix that it leads to in "
                f"{self._roots.setting}, or the file by a URL that is not sent on."
            )
        return target

    def _check(self, reply: Reply, *wanted: int) -> None:
        """Raise the error that an answer stands for, unless it is a wanted one."""
        status = reply.status
        if status in (404, 410):
            raise NotFoundError("no such file")
        if status in (401, 403):
            raise PermissionDeniedError("not for the server")
        if status == 412:
            raise PreconditionError("another state")
        if status in _PASSING or status >= 500:
            raise WebFailure(f"HTTP {status}")
        if status not in wanted:
            raise InvalidInput(
                f"{self.uri} cannot be {self._roots.verb}: its web server answers HTTP {status}. Check that the URL names a file."
            )

    def _check_content(self, reply: Reply, *wanted: int) -> None:
        """As `_check`, and raise `InvalidInput` for a body that is not the file's."""
        self._check(reply, *wanted)
        if reply.status != 416 and answers.is_encoded(reply):
            raise InvalidInput(
                f"the web server of {self.uri} sends it compressed ({reply.headers['content-encoding'][:20]}) though it was asked not to. "
                "Have it send the file as it is."
            )


async def _tried(ask: Callable[[], Awaitable[T]], size_bytes: int = 0) -> T:
    """An answer of so many bytes, asked for again where the cause may pass. Raises `WebFailure` if not."""
    for wait in _WAITS:
        try:
            async with _limited(size_bytes):
                return await ask()
        except WebFailure as error:
            if not error.passing:
                raise
        await asyncio.sleep(wait)
    async with _limited(size_bytes):
        return await ask()


@contextlib.asynccontextmanager
async def _limited(size_bytes: int = 0) -> AsyncIterator[None]:
    """Give an answer of so many bytes its time. Raises `WebFailure` when that is over."""
    try:
        async with asyncio.timeout(_seconds(size_bytes)):
            yield
    except TimeoutError as error:
        raise _late(size_bytes) from error


def _seconds(size_bytes: int) -> float:
    return _ANSWER_SECONDS + size_bytes / _LEAST_BYTES_A_SECOND


def _late(size_bytes: int) -> WebFailure:
    return WebFailure(f"it takes more than {_seconds(size_bytes):.0f} s", passing=False)
