"""The client of the inference server: one channel kept, a deadline on every call, retries by status, our own errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lamina.v1 import documents_pb2, documents_pb2_grpc, labs_pb2, labs_pb2_grpc, slides_pb2, slides_pb2_grpc

from bridge.errors import OverloadError, TransientError
from bridge.inference import convert
from bridge.inference.credentials import ServerTrust, Token, channel_credentials
from bridge.inference.retries import attempts
from bridge.inference.spans import followed
from bridge.inference.statuses import translate
from bridge.inference.values import (
    Alias,
    DocumentEvent,
    DocumentSummary,
    LabClassifications,
    LabTest,
    RetryPolicy,
    SlideEvent,
    SlideResult,
    SlideResume,
    Timeouts,
)
from bridge.tracing.port import Carrier, NullTracer, Tracer

_MESSAGE_BYTES = 256 * 1024 * 1024
_CLOSE_GRACE = 1.0

Event = TypeVar("Event")
Reply = TypeVar("Reply")


class InferenceClient:
    """Calls the inference server at `address` (host:port), and nothing else. Made and closed in a running event loop.

    Every method raises `OverloadError` when the server is down or full after the tries of `retries`, `TransientError` when the
    same call may go better next time, and `PermanentError` when it will fail again. Cancelling the awaiting task cancels the call.
    """

    def __init__(
        self,
        address: str,
        *,
        client_name: str = "bridge",
        timeouts: Timeouts | None = None,
        retries: RetryPolicy | None = None,
        message_bytes: int = _MESSAGE_BYTES,
        trust: ServerTrust | None = None,
        tracer: Tracer | None = None,
        server_name: str = "",
    ) -> None:
        """`client_name`: whom the server's queue is fair to, unless a token tells. `message_bytes`: the largest message sent or taken.

        `server_name`: that its certificate must have, where `address` is another; empty for that of the address.

        Raises `ConfigurationError` when the files of `trust` are wrong, or a token would go over the network in the clear.
        """
        self._address = address
        self._client_name = client_name
        self._timeouts = timeouts or Timeouts()
        self._retries = retries or RetryPolicy()
        self._tracer = tracer or NullTracer()
        trust = trust or ServerTrust()
        self._token = Token(trust)
        self._channel = _channel(address, channel_credentials(trust, address), _channel_options(message_bytes, server_name))
        self._slides = slides_pb2_grpc.SlideServiceStub(self._channel)
        self._documents = documents_pb2_grpc.DocumentServiceStub(self._channel)
        self._labs = labs_pb2_grpc.LabServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what runs and close the channel."""
        await self._channel.close(grace=_CLOSE_GRACE)

    async def server_ready(self) -> bool:
        """Whether the server answers and takes requests. Never raises because of the server."""
        try:
            reply = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=self._timeouts.ready, metadata=self._metadata(""))
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def analyze_slide(
        self,
        slide_uri: str,
        *,
        request_id: str,
        analysis: str = "",
        output_uri: str = "",
        mpp: float | None = None,
        tile_size: int = 0,
        priority: int = 0,
        checkpoints: bool = False,
        resume: SlideResume | None = None,
        artifacts: Sequence[str] = (),
        share: tuple[int, int] | None = None,
    ) -> AsyncGenerator[SlideEvent, None]:
        """Analyse a slide: progress, and checkpoints where they are asked for, then the result, last.

        With an empty `output_uri` the artifacts and the parts of checkpoints come as chunks before they are told of. `mpp`: micrometres
        per pixel of level 0, for slides that do not tell it. `share`: which part of the tiles, from 0, and of how many; it needs
        checkpoints, and makes no artifacts. Other arguments left empty take the server's defaults.
        """
        request = slides_pb2.AnalyzeSlideRequest(
            slide_uri=slide_uri,
            analysis=analysis,
            output_uri=output_uri,
            mpp=mpp,
            tile_size=tile_size,
            request_id=request_id,
            priority=priority,
            checkpoints=checkpoints,
            artifacts=artifacts,
            share=None if share is None else slides_pb2.SlideShare(index=share[0], count=share[1]),
        )
        if resume is not None:
            request.resume.CopyFrom(slides_pb2.SlideResume(part_uris=resume.uris, parts=resume.parts))
        return self._stream(self._slides.AnalyzeSlide, request, convert.slide_event, SlideResult, seconds=self._timeouts.slide)

    def recognize_document(
        self,
        *,
        request_id: str,
        content: bytes = b"",
        document_uri: str = "",
        dpi: int = 0,
        password: str = "",
        pages: Sequence[int] = (),
        priority: int = 0,
        text_mode: str = "",
        formats: Sequence[str] = (),
    ) -> AsyncGenerator[DocumentEvent, None]:
        """Read a document: its pages in order, with pieces of the files between them, then the summary, last.

        Give either the bytes, or a path or URL that the server may read. `pages`: those to read, counted from 1; empty for all.
        `text_mode`: ocr, layer or auto; empty for the server's own. `formats`: files to make: json, txt, hocr, alto, pdf, tsv.
        """
        request = documents_pb2.RecognizeDocumentRequest(
            request_id=request_id,
            dpi=dpi,
            password=password,
            pages=pages,
            priority=priority,
            text_mode=convert.TEXT_MODES[text_mode] if text_mode else documents_pb2.TEXT_MODE_UNSPECIFIED,
            formats=[convert.FORMATS[name] for name in formats],
        )
        if document_uri:
            request.document_uri = document_uri
        else:
            request.content = content
        call = self._documents.RecognizeDocument
        return self._stream(call, request, convert.document_event, DocumentSummary, seconds=self._timeouts.document)

    async def classify_lab_tests(self, tests: Sequence[LabTest], *, request_id: str, top_k: int = 0) -> LabClassifications:
        """Give each test its category and LOINC candidates, in the order of the tests."""
        request = labs_pb2.ClassifyLabTestsRequest(tests=map(convert.lab_test, tests), top_k=top_k, request_id=request_id)
        reply = await self._unary(self._labs.ClassifyLabTests, request, seconds=self._timeouts.labs, request_id=request_id)
        found = convert.lab_classifications(reply)
        if len(found.tests) != len(tests):
            raise TransientError(f"the inference server answered for {len(found.tests)} of {len(tests)} lab tests.")
        return found

    async def upsert_aliases(self, aliases: Sequence[Alias], *, request_id: str) -> None:
        """Have reviewed names remembered: all, or none."""
        request = labs_pb2.UpsertAliasesRequest(aliases=map(convert.alias, aliases))
        await self._unary(self._labs.UpsertAliases, request, seconds=self._timeouts.labs, request_id=request_id)

    async def _unary(self, method: Callable[..., Any], request: Any, *, seconds: float, request_id: str) -> Any:
        try:
            with followed(self._tracer, request, address=self._address) as trace:
                async for attempt in attempts(self._retries):
                    with attempt:
                        return await method(request, timeout=seconds, metadata=self._metadata(request_id, trace))
        except grpc.aio.AioRpcError as error:
            raise translate(error, address=self._address) from error
        except asyncio.CancelledError as error:
            raise self._told_apart(error) from error
        raise AssertionError("the last try returns or raises")

    async def _stream(
        self,
        method: Callable[..., Any],
        request: Any,
        read_event: Callable[[Any], Event | None],
        last: type[Any],
        *,
        seconds: float,
    ) -> AsyncGenerator[Event, None]:
        call: grpc.aio.UnaryStreamCall[Any, Any] | None = None
        try:
            with followed(self._tracer, request, address=self._address) as trace:
                call, message = await self._begin(method, request, trace, seconds=seconds)
                result: Event | None = None
                while message is not grpc.aio.EOF:
                    event = read_event(message)
                    if isinstance(event, last):
                        # Held back until the call has ended well, so that leaving the stream at its result cancels nothing.
                        result = event
                    elif event is not None:
                        yield event
                    message = await self._read(call)
                if result is None:
                    raise TransientError(f"the inference server at {self._address} ended the stream without a result.")
            yield result
        except grpc.aio.AioRpcError as error:
            raise translate(error, address=self._address) from error
        except asyncio.CancelledError as error:
            raise self._told_apart(error) from error
        finally:
            if call is not None:
                call.cancel()

    async def _begin(self, method: Callable[..., Any], request: Any, trace: Carrier, *, seconds: float) -> tuple[Any, Any]:
        """Start a stream and read its first message; only so far may it be tried again."""
        async for attempt in attempts(self._retries):
            with attempt:
                call = method(request, timeout=seconds, metadata=self._metadata(request.request_id, trace))
                return call, await self._read(call)
        raise AssertionError("the last try returns or raises")

    async def _read(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeouts.idle):
                return await call.read()
        except TimeoutError as error:
            call.cancel()
            raise TransientError(f"the inference server at {self._address} sent nothing for {self._timeouts.idle:g} s.") from error

    def _told_apart(self, error: asyncio.CancelledError) -> BaseException:
        """Our own cancellation as it is; one that grpc made up because the channel was closed, as an overload."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return error
        return OverloadError(f"the call to the inference server at {self._address} was cut off: its channel was closed.")

    def _metadata(self, request_id: str, trace: Carrier | None = None) -> tuple[tuple[str, str], ...]:
        named = (("lamina-client", _header(self._client_name)), *self._token.metadata(), *(trace or {}).items())
        return (*named, ("lamina-request-id", _header(request_id))) if request_id else named


def _channel(address: str, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, int | str]]) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _header(text: str) -> str:
    # Metadata is printable ASCII; job keys are what others make them.
    return "".join(character if " " <= character <= "~" else "?" for character in text).strip()


def _channel_options(message_bytes: int, server_name: str) -> list[tuple[str, int | str]]:
    return [
        *((("grpc.ssl_target_name_override", server_name),) if server_name else ()),
        ("grpc.max_send_message_length", message_bytes),
        ("grpc.max_receive_message_length", message_bytes),
        # A peer that vanished is found within a minute and a half.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        # A server that comes back is found again within seconds.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3_000),
        ("grpc.enable_retries", 0),
        # Several addresses of one name share the load.
        ("grpc.lb_policy_name", "round_robin"),
        # The settings say where the server is; a proxy of the environment has no say.
        ("grpc.enable_http_proxy", 0),
    ]
