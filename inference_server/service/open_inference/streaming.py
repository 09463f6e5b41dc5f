"""Many requests over one stream, each answered as it completes.

An answer to a request that has an id is sent when it is there. Requests without one can be told apart by their order only: their answers
keep it, as all answers do at Triton. An error is the answer to its request, and the stream goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog
from inference import grpc_service_pb2 as wire

from inference_server.errors import InferenceError, Unavailable
from inference_server.service.lifecycle import BytesInFlight, Lifecycle, Phase
from inference_server.service.open_inference.wire_format import InferRequest, InferResponse, StreamResponse

_FINAL = "triton_final_response"
_log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class _Turn:
    """The place of one request in the order of those without an id."""

    answer: StreamResponse | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """No request comes any more. When all are answered the stream ends, with the error if there is one."""

    error: Exception | None


class InferStream:
    """One stream. `most_requests`: read and not yet answered; beyond them the client is kept waiting."""

    def __init__(
        self,
        infer: Callable[[InferRequest], Awaitable[InferResponse]],
        *,
        lifecycle: Lifecycle,
        bytes_in_flight: BytesInFlight,
        most_requests: int,
        ends_at_errors: bool = False,
        refused: Callable[[str], None] = lambda limit: None,
        waits: Callable[[str], None] = lambda limit: None,
    ) -> None:
        """`refused`: told the limit that a request passed; `waits`: the one that keeps the next request waiting.

        `ends_at_errors`: whether the first error ends the stream with its status, as the metadata `triton_grpc_error` asks.
        """
        self._infer = infer
        self._lifecycle = lifecycle
        self._bytes = bytes_in_flight
        self._ends_at_errors = ends_at_errors
        self._refused = refused
        self._waits = waits
        self._free = asyncio.Semaphore(most_requests)
        # What is to be sent next; an error ends the stream at once.
        self._ready: asyncio.Queue[StreamResponse | InferenceError | _End] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: deque[_Turn] = deque()
        self._unanswered = 0

    async def responses(self, requests: AsyncGenerator[InferRequest]) -> AsyncGenerator[StreamResponse]:
        """The answers. When their reader goes away, all that waits or runs is cancelled."""
        self._start(self._read(requests))
        self._start(self._watch_shutdown())
        end: _End | None = None
        try:
            while end is None or self._unanswered:
                item = await self._ready.get()
                if isinstance(item, InferenceError):
                    raise item
                if isinstance(item, _End):
                    end = end or item
                    continue
                yield item
                self._unanswered -= 1
                self._free.release()
            if end.error is not None:
                raise end.error
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, requests: AsyncGenerator[InferRequest]) -> None:
        try:
            async with aclosing(requests):
                await self._free.acquire()
                async for request in requests:
                    self._unanswered += 1
                    turn = _Turn()
                    if not request.id:
                        self._turns.append(turn)
                    self._start(self._serve(request, turn))
                    if self._free.locked():
                        self._waits("stream_requests")
                    await self._free.acquire()
        except Exception as error:  # the next message cannot be taken: those before it are answered, and the stream ends with its error
            self._ready.put_nowait(_End(error))
        else:
            self._ready.put_nowait(_End(None))

    async def _watch_shutdown(self) -> None:
        """End a stream on which nothing is asked any more, lest it hold the shutdown up."""
        await self._lifecycle.draining()
        self._ready.put_nowait(_End(_refusal()))

    async def _serve(self, request: InferRequest, turn: _Turn) -> None:
        try:
            answer = await self._answer(request)
        except InferenceError as error:
            if self._ends_at_errors:
                self._ready.put_nowait(error)
                return
            if error.limit:
                self._refused(error.limit)
            answer = _failed(request, str(error))
        except Exception:  # what one request causes must not end the others
            _log.exception("stream request failed", request_id=request.id)
            answer = _failed(request, "the server failed on this request; its log tells why.")
        if request.id:
            self._ready.put_nowait(answer)
            return
        turn.answer = answer
        while self._turns and (first := self._turns[0].answer) is not None:
            self._ready.put_nowait(first)
            self._turns.popleft()

    async def _answer(self, request: InferRequest) -> StreamResponse:
        if self._lifecycle.phase is Phase.DRAINING:
            raise _refusal()
        with self._bytes.holding(request.size):
            response = await self._infer(request)
        response.message.parameters[_FINAL].bool_param = True
        return StreamResponse(response=response)


def _refusal() -> Unavailable:
    return Unavailable(f"{Phase.DRAINING.value}; call another one, or try again.")


def _failed(request: InferRequest, reason: str) -> StreamResponse:
    message = wire.ModelInferResponse(id=request.id, model_name=request.message.model_name, model_version=request.message.model_version)
    message.parameters[_FINAL].bool_param = True
    return StreamResponse(response=InferResponse(message=message), error=reason)
