"""The half of a stream that its caller fills: messages, received into memory of their own size."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import grpc

from inference_server.service.http2 import frames
from inference_server.service.http2.compression import NotDecompressed, TooLarge, decompress
from inference_server.service.http2.headers import CallHead, Metadata
from inference_server.service.http2.messages import OVERHEAD, PREFIX, PREFIX_SIZE, PUSHBACK, Content, MessageLimits, Status

# Bytes that a caller may send before they are asked for. A larger message is let in as soon as its size is known.
RECEIVE_WINDOW = 2**20

# Bytes of a message that room is held for at a time: what is told and never sent holds no more.
STEP = 2**20


class Grantor(Protocol):
    """Lets the caller know that it may send more."""

    def write(self, *parts: bytes | memoryview) -> None:
        """Send a frame."""


class Incoming:
    """What has arrived of a call, and what it waits for."""

    __slots__ = (
        "_advanced",
        "_bodies",
        "_body",
        "_body_held",
        "_compressed",
        "_failed",
        "_filled",
        "_grantor",
        "_held",
        "_limits",
        "_mark",
        "_marked",
        "_messages",
        "_owed",
        "_prefix",
        "_waiter",
        "head",
        "needs_message",
        "no_more",
        "number",
        "over",
        "receive_window",
    )  # fmt: skip

    def __init__(self, grantor: Grantor, number: int, head: CallHead, limits: MessageLimits) -> None:
        self._grantor = grantor
        self._limits = limits
        self.number = number
        self.head = head
        self.receive_window = RECEIVE_WINDOW
        # The caller has sent its last message, or is gone.
        self.no_more = False
        # The last frame was sent, or nobody waits for one.
        self.over = False
        # The method takes one message, and waits for it.
        self.needs_message = False
        # Messages that have arrived, whole.
        self._messages: deque[tuple[Content, bool]] = deque()
        # Why none will follow.
        self._failed: Status | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._prefix = b""
        # The message that is arriving, how much of it is there, and how much of it there is room held for.
        self._body: bytearray | None = None
        self._filled = self._body_held = 0
        self._bodies = 0
        self._compressed = False
        # Bytes of room held by what has arrived.
        self._held = 0
        # Bytes of window that are due to the caller, and those that it got ahead of time.
        self._owed = self._advanced = 0
        # How far the message that is arriving had come, and when.
        self._mark = (-1, 0)
        self._marked = 0.0

    def feed(self, data: memoryview, coming: int) -> None:
        """Take bytes of messages, in the order of their arrival; `coming` more are in the same frame."""
        at, size = 0, len(data)
        while at < size and self._failed is None and not self.over:
            if self._body is None:
                at = self._begin(data, at, coming)
                continue
            taken = min(len(self._body) - self._filled, size - at)
            self._body[self._filled : self._filled + taken] = data[at : at + taken]
            at += taken
            self.filled(taken)

    def _begin(self, data: memoryview, at: int, coming: int) -> int:
        """Read the bytes before a message, and the message with them when it is all there; where to go on."""
        available = len(data) - at
        if self._prefix or available < PREFIX_SIZE:
            taken = min(PREFIX_SIZE - len(self._prefix), available)
            self._prefix += bytes(data[at : at + taken])
            at += taken
            if len(self._prefix) < PREFIX_SIZE:
                return at
            prefix: tuple[int, int] = PREFIX.unpack(self._prefix)
            self._prefix = b""
        else:
            prefix = PREFIX.unpack_from(data, at)
            at += PREFIX_SIZE
        flag, size = prefix
        if not self._admit(flag, size):
            return at
        available = len(data) - at
        if available >= size:
            self._deliver(bytes(data[at : at + size]))
            return at + size
        self._expect(size, size - available - coming)
        return at

    def _expect(self, size: int, to_be_sent: int) -> None:
        """Make room for a message, and let its caller send what it has not sent yet."""
        self._body = bytearray(size)
        self._filled = 0
        self._bodies += 1
        missing = to_be_sent - self.receive_window
        if missing > 0:
            self._advanced += missing
            self._grant(missing)

    def _admit(self, flag: int, size: int) -> bool:
        most = self._limits.most_bytes
        step = min(size, STEP)
        held = step + OVERHEAD
        if flag > 1:
            self.fail(grpc.StatusCode.INTERNAL, f"a message begins with the flag {flag}; expected 0 or 1.")
        elif size > most:
            self.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Received message larger than max ({size} vs. {most})")
        elif not self._limits.arriving.try_hold(held):
            self._fail_for_room(size)
        else:
            self._held += held
            self._body_held = step
            self._compressed = flag == 1
            return True
        return False

    def _fail_for_room(self, size: int) -> None:
        words = f"the messages that arrive hold too many bytes for another {size}; try again shortly."
        self.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, words, PUSHBACK)

    def space(self) -> memoryview | None:
        """Where the rest of the message that is arriving goes; None when none is."""
        if self._body is None or self._failed is not None:
            return None
        return memoryview(self._body)[self._filled :]

    def filled(self, size: int) -> None:
        """So many bytes were put there."""
        self._filled += size
        body = self._body
        if body is None:
            return
        while self._filled > self._body_held:
            step = min(len(body) - self._body_held, STEP)
            if not self._limits.arriving.try_hold(step, own=self._held):
                self._fail_for_room(len(body))
                return
            self._held += step
            self._body_held += step
        if self._filled == len(body):
            self._body = None
            self._deliver(body)

    def _deliver(self, content: Content) -> None:
        self._messages.append((content, self._compressed))
        self._wake()

    def end(self) -> None:
        """The caller sends nothing more."""
        self.no_more = True
        if self._body is not None or self._prefix:
            self.fail(grpc.StatusCode.INTERNAL, "the request ends inside a message.")
        self._wake()

    def fail(self, code: grpc.StatusCode, details: str, metadata: Metadata = ()) -> None:
        """Read nothing more of the caller; who reads next learns why."""
        self._failed = Status(code=code, details=details, metadata=metadata)
        self._body = None
        self._prefix = b""
        self._wake()

    def is_slow(self, now: float, seconds: float) -> bool:
        """Whether a message that is due, and has not failed, has not come by `STEP` or to its end for so long."""
        if self._failed is not None or self.over or not (self._body is not None or self._prefix or self.needs_message):
            self._mark = (-1, 0)
            return False
        mark = (self._bodies, -1 if self._body is None else self._filled // STEP)
        if mark != self._mark:
            self._mark, self._marked = mark, now
        return now - self._marked > seconds

    def give_up(self) -> None:
        """The caller is waited for no longer."""
        self.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "the request did not arrive in time; send it faster, or in smaller messages.")

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Content | Status | None:
        """The next message; the status to end with when it cannot be had; None when there are no more."""
        while not self._messages:
            if self._failed is not None:
                return self._failed
            if self.no_more:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        content, compressed = self._messages.popleft()
        size = len(content)
        self._held -= size + OVERHEAD
        self._limits.arriving.release(size + OVERHEAD)
        self.repay(size + PREFIX_SIZE)
        return await self._decompressed(content) if compressed else content

    async def _decompressed(self, content: Content) -> bytes | Status:
        budget = self._limits.arriving
        held = 0

        def hold(size: int) -> bool:
            nonlocal held
            if not budget.try_hold(size, own=held):
                return False
            held += size
            return True

        try:
            return await decompress(content, self.head.encoding, most_bytes=self._limits.most_bytes, hold=hold)
        except TooLarge as error:
            return Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details=str(error))
        except NotDecompressed as error:
            return Status(code=grpc.StatusCode.INTERNAL, details=str(error))
        finally:
            budget.release(held)

    def repay(self, size: int) -> None:
        """Let the caller send as much again as was read, or was padding."""
        ahead = min(size, self._advanced)
        self._advanced -= ahead
        self._owed += size - ahead
        if self._owed >= RECEIVE_WINDOW // 2 and not self.no_more:
            self._grant(self._owed)
            self._owed = 0

    def _grant(self, size: int) -> None:
        self.receive_window += size
        self._grantor.write(frames.window_update(self.number, size))

    def forget(self) -> None:
        """Nobody reads any more: give back the room of what has arrived."""
        self.no_more = True
        self._limits.arriving.release(self._held)
        self._held = 0
        self._messages.clear()
        self._body = None
        self._wake()
