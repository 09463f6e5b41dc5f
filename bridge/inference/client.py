"""The client of the inference servers: what can be asked of them, as values of ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from grpc import ChannelCredentials
from lamina.v1 import labs_pb2

from bridge.errors import TransientError
from bridge.inference import convert, requests
from bridge.inference.calls import Calls
from bridge.inference.credentials import ServerTrust, Token, channel_credentials
from bridge.inference.documents import DocumentEvent, DocumentOptions, DocumentSummary
from bridge.inference.fleet import Fleet
from bridge.inference.labs import Alias, LabClassifications, LabTest
from bridge.inference.policies import RetryPolicy, Timeouts, Watchfulness
from bridge.inference.replicas import Replica, replicas
from bridge.inference.server import Metadata, Server
from bridge.inference.slides import SlideEvent, SlideOptions, SlideResult
from bridge.inference.statuses import TELL_BEGIN_KEY
from bridge.tracing.port import Carrier, NullTracer, Tracer

_MESSAGE_BYTES = 256 * 1024 * 1024


class InferenceClient:
    """Calls the inference servers at `address`, and nothing else. Made and closed in a running event loop.

    A call goes to the server that is healthy and has the fewest calls of ours, and to the next one when that refuses it.
    Every method raises `OverloadError` when all are down or full after the tries of `retries`, `TransientError` when the
    same call may go better next time, and `PermanentError` when it will fail again. Cancelling the awaiting task cancels the call.
    """

    def __init__(
        self,
        address: str,
        *,
        client_name: str = "bridge",
        timeouts: Timeouts | None = None,
        retries: RetryPolicy | None = None,
        watchfulness: Watchfulness | None = None,
        message_bytes: int = _MESSAGE_BYTES,
        trust: ServerTrust | None = None,
        tracer: Tracer | None = None,
        server_name: str = "",
    ) -> None:
        """`address`: host:port, or several, separated by commas; a name may stand for many servers, which may come and go.

        `client_name`: whom the server's queue is fair to, unless a token tells. `message_bytes`: the largest message sent or taken.
        `server_name`: that its certificate must have, where `address` is another; empty for that of the address.

        Raises `ConfigurationError` when the files of `trust` are wrong, or a token would go over the network in the clear.
        """
        self._client_name = client_name
        self._timeouts = timeouts or Timeouts()
        trust = trust or ServerTrust()
        self._token = Token(trust)
        self._fleet = Fleet(
            lambda: replicas(address, name=server_name),
            _connecting(channel_credentials(trust, address), message_bytes),
            metadata=lambda: self._metadata("", {}),
            watchfulness=watchfulness or Watchfulness(),
        )
        self._calls = Calls(
            self._fleet,
            address=address,
            retries=retries or RetryPolicy(),
            idle_seconds=self._timeouts.idle,
            metadata=self._metadata,
            tracer=tracer or NullTracer(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what runs and close the channels."""
        await self._fleet.close()

    async def server_ready(self) -> bool:
        """Whether a server answers and takes requests. Never raises because of them."""
        return await self._fleet.look()

    def standings(self) -> Mapping[str, int]:
        """How many servers are `serving`, `full`, `away` and `unknown`."""
        return self._fleet.standings()

    def analyze_slide(self, slide_uri: str, *, request_id: str, options: SlideOptions | None = None) -> AsyncGenerator[SlideEvent, None]:
        """Analyse a slide: progress, and checkpoints where they are asked for, then the result, last."""
        return self._calls.stream(
            lambda server: server.slides.AnalyzeSlide,
            requests.slide_request(slide_uri, request_id, options or SlideOptions()),
            convert.slide_event,
            SlideResult,
            seconds=self._timeouts.slide,
            request_id=request_id,
        )

    def recognize_document(
        self, *, request_id: str, content: bytes = b"", document_uri: str = "", options: DocumentOptions | None = None
    ) -> AsyncGenerator[DocumentEvent, None]:
        """Read a document: its pages in order, with pieces of the files between them, then the summary, last.

        Give either the bytes, or a path or URL that the server may read.
        """
        return self._calls.stream(
            lambda server: server.documents.RecognizeDocument,
            requests.document_request(content, document_uri, request_id, options or DocumentOptions()),
            convert.document_event,
            DocumentSummary,
            seconds=self._timeouts.document,
            request_id=request_id,
        )

    async def classify_lab_tests(self, tests: Sequence[LabTest], *, request_id: str, top_k: int = 0) -> LabClassifications:
        """Give each test its category and LOINC candidates, in the order of the tests."""
        request = labs_pb2.ClassifyLabTestsRequest(tests=map(convert.lab_test, tests), top_k=top_k, request_id=request_id)
        reply = await self._calls.unary(
            lambda server: server.labs.ClassifyLabTests, request, seconds=self._timeouts.labs, request_id=request_id
        )
        found = convert.lab_classifications(reply)
        if len(found.tests) != len(tests):
            raise TransientError(f"the inference server answered for {len(found.tests)} of {len(tests)} lab tests.")
        return found

    async def upsert_aliases(self, aliases: Sequence[Alias], *, request_id: str) -> None:
        """Have reviewed names remembered: all, or none."""
        request = labs_pb2.UpsertAliasesRequest(aliases=map(convert.alias, aliases))
        await self._calls.unary(lambda server: server.labs.UpsertAliases, request, seconds=self._timeouts.labs, request_id=request_id)

    def _metadata(self, request_id: str, trace: Carrier) -> Metadata:
        named = (("lamina-client", _header(self._client_name)), *self._token.metadata(), *trace.items())
        return (*named, ("lamina-request-id", _header(request_id)), (TELL_BEGIN_KEY, "1")) if request_id else named


def _connecting(credentials: ChannelCredentials | None, message_bytes: int) -> Callable[[Replica], Server]:
    return lambda replica: Server(replica, credentials, message_bytes=message_bytes)


def _header(text: str) -> str:
    # Metadata is printable ASCII; job keys are what others make them.
    return "".join(character if " " <= character <= "~" else "?" for character in text).strip()
