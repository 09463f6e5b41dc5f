"""What a servicer sees of its call: grpc.aio's interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from inference_server.service.http2.headers import Metadata
from inference_server.service.http2.messages import Content, Status
from inference_server.service.http2.stream import Stream

Serializer = Callable[[Any], bytes]
_COMPRESSIONS = {grpc.Compression.Gzip: "gzip", grpc.Compression.Deflate: "deflate", grpc.Compression.NoCompression: ""}


class CallContext(grpc.aio.ServicerContext[Any, Any]):
    """One call, from its headers to its status."""

    def __init__(self, stream: Stream, *, peer: str, identity: Callable[[], Mapping[str, Iterable[bytes]]]) -> None:
        """`identity`: what the caller's certificate proves, looked up when it is asked for."""
        self._stream = stream
        self._peer = peer
        self._identity = identity
        timeout = stream.head.timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        # Its deadline was seen to pass.
        self.expired = False
        # The server stops, and gave it up.
        self.given_up = False
        self._code: Any = grpc.StatusCode.OK
        self._details = ""
        self._trailing: Metadata = ()
        self._serialize: Serializer | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    # What came.

    def invocation_metadata(self) -> Any:
        """The caller's metadata."""
        return self._stream.head.metadata

    def peer(self) -> str:
        """The caller's address, as ipv4:address:port."""
        return self._peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What its certificate proves; empty without one."""
        return self._identity()

    def peer_identities(self) -> Iterable[bytes] | None:
        """Names of its certificate."""
        return self._identity().get("x509_subject_alternative_name")

    def peer_identity_key(self) -> str | None:
        """Where they are in `auth_context`."""
        return "x509_subject_alternative_name" if self.peer_identities() else None

    def time_remaining(self) -> float | None:  # type: ignore[override]  # as grpc.aio itself does without a deadline
        """Seconds until the deadline, 0 when it has passed; None without one."""
        if self._deadline is None:
            return None
        return 0.0 if self.expired else max(0.0, self._deadline - time.monotonic())

    @property
    def cut_off_as(self) -> grpc.StatusCode:
        """The status of a call whose task is cancelled, by whoever did it: the deadline, the server that stops, else the caller."""
        if self.time_remaining() == 0:
            return grpc.StatusCode.DEADLINE_EXCEEDED
        return grpc.StatusCode.UNAVAILABLE if self.given_up else grpc.StatusCode.CANCELLED

    async def read(self) -> Any:
        """The next message as it came; `grpc.aio.EOF` when there are no more. Ends the call when the message cannot be had."""
        message = await self._stream.next()
        if isinstance(message, Status):
            await self.abort(message.code, message.details, message.metadata)
        return grpc.aio.EOF if message is None else message

    async def read_one(self) -> Content:
        """The one message of a method that takes one."""
        self._stream.needs_message = True
        message = await self.read()
        self._stream.needs_message = False
        if message is grpc.aio.EOF:
            await self.abort(grpc.StatusCode.INTERNAL, "the request has no message.")
        content: Content = message
        return content

    # What goes.

    def serialize_with(self, serialize: Serializer | None) -> None:
        """Make `write` and `finish_with` take messages rather than their bytes."""
        self._serialize = serialize

    async def write(self, message: Any) -> None:
        """Send a message; returns when there is room for the next one."""
        await self._stream.send(self._bytes(message))

    async def finish_with(self, message: Any) -> None:
        """Send the last message, and the status when that is OK; returns when the caller has taken most of it."""
        plain = self._code is grpc.StatusCode.OK and not self._trailing and not self._details
        await self._stream.send(self._bytes(message), last=plain)

    def _bytes(self, message: Any) -> bytes:
        content: bytes = message if self._serialize is None else self._serialize(message)
        return content

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send metadata before the first message."""
        self._stream.send_head(tuple(initial_metadata))
        self._stream.send_head_now()

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> Any:
        """End the call with a status; always raises."""
        self._code, self._details = code, details
        if trailing_metadata:
            self._trailing = tuple(trailing_metadata)
        raise grpc.aio.AbortError(details)

    async def abort_with_status(self, status: grpc.Status) -> Any:
        """The same with code, details and metadata in one; always raises."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Metadata to send with the status."""
        self._trailing = tuple(trailing_metadata)

    def set_code(self, code: Any) -> None:
        """The status to end with."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Its words."""
        self._details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress what is sent, when the caller can read it."""
        encoding = _COMPRESSIONS[compression]
        if not encoding or encoding in self._stream.head.accepted:
            self._stream.response_encoding = encoding

    def disable_next_message_compression(self) -> None:
        """Nothing: each message is small or was asked to be compressed."""

    def code(self) -> Any:
        """The status as it is now."""
        return self._code

    def details(self) -> str:
        """Its words as they are now."""
        return self._details

    def trailing_metadata(self) -> Any:
        """Its metadata as it is now."""
        return self._trailing

    # How it ends.

    def expire(self) -> None:
        """The deadline has passed."""
        self.expired = True

    def give_up(self) -> None:
        """The server stops: another one may do the same, or this one when it is back. Not a call whose caller has gone away before."""
        self.given_up = not self.done()

    def end(self, failure: Status | None = None) -> None:
        """Send the status; `failure` when the servicer came to none."""
        if failure is None:
            self._stream.finish(Status(code=_status(self._code), details=self._details, metadata=self._trailing))
        elif self.given_up:
            # Behind what waits for the caller: a stream that is reset would tell that it was cancelled, one whose connection ends does not.
            self._stream.finish(failure)
        else:
            self._stream.break_off(failure)
        for callback in self._callbacks:
            callback(self)

    def cancelled(self) -> bool:
        """Whether the caller has gone away."""
        return self._stream.over and self._code is grpc.StatusCode.OK

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._stream.over

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call it when the call ends."""
        self._callbacks.append(callback)


def _status(code: Any) -> grpc.StatusCode:
    """A status that servicers may also give as its number."""
    if isinstance(code, grpc.StatusCode):
        return code
    return next((status for status in grpc.StatusCode if status.value[0] == code), grpc.StatusCode.UNKNOWN)
