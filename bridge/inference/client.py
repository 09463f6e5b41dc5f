"""The client of the inference servers: what can be asked of them, as values of ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Self

from lamina.v1 import documents_pb2, labs_pb2, slides_pb2

from bridge.errors import TransientError
from bridge.inference import convert
from bridge.inference.calls import Calls
from bridge.inference.credentials import ServerTrust, Token, channel_credentials
from bridge.inference.documents import DocumentEvent, DocumentSummary
from bridge.inference.fleet import Fleet
from bridge.inference.labs import Alias, LabClassifications, LabTest
from bridge.inference.policies import RetryPolicy, Timeouts, Watchfulness
from bridge.inference.replicas import replicas
from bridge.inference.server import Metadata, Server
from bridge.inference.slides import SlideEvent, SlideResult, SlideResume
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
        credentials = channel_credentials(trust, address)
        self._fleet = Fleet(
            lambda: replicas(address, name=server_name),
            lambda replica: Server(replica, credentials, message_bytes=message_bytes),
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
        apply_icc_profile: bool = False,
        assumed_mpp: float | None = None,
    ) -> AsyncGenerator[SlideEvent, None]:
        """Analyse a slide: progress, and checkpoints where they are asked for, then the result, last.

        With an empty `output_uri` the artifacts and the parts of checkpoints come as chunks before they are told of. `mpp`: micrometres
        per pixel of level 0, whatever the slide tells; `assumed_mpp`: the same for slides that tell none. `share`: which part of the
        tiles, from 0, and of how many; it needs checkpoints, and makes no artifacts. `apply_icc_profile`: bring colours to sRGB first.
        Other arguments left empty take the server's defaults.
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
            apply_icc_profile=apply_icc_profile,
            assumed_mpp=assumed_mpp,
        )
        if resume is not None:
            request.resume.CopyFrom(slides_pb2.SlideResume(part_uris=resume.uris, parts=resume.parts))
        return self._calls.stream(
            lambda server: server.slides.AnalyzeSlide,
            request,
            convert.slide_event,
            SlideResult,
            seconds=self._timeouts.slide,
            request_id=request_id,
        )

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
        device: str = "",
    ) -> AsyncGenerator[DocumentEvent, None]:
        """Read a document: its pages in order, with pieces of the files between them, then the summary, last.

        Give either the bytes, or a path or URL that the server may read. `pages`: those to read, counted from 1; empty for all.
        `text_mode`: ocr, layer or auto; empty for the server's own. `formats`: files to make: json, txt, hocr, alto, pdf, tsv.
        `device`: gpu or cpu, which alone may run the models, and raises `DeviceError` where it cannot; empty for the server's choice.
        """
        request = documents_pb2.RecognizeDocumentRequest(
            request_id=request_id,
            dpi=dpi,
            password=password,
            pages=pages,
            priority=priority,
            text_mode=convert.TEXT_MODES[text_mode] if text_mode else documents_pb2.TEXT_MODE_UNSPECIFIED,
            formats=[convert.FORMATS[name] for name in formats],
            device=convert.DEVICES[device],
        )
        if document_uri:
            request.document_uri = document_uri
        else:
            request.content = content
        return self._calls.stream(
            lambda server: server.documents.RecognizeDocument,
            request,
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
        return (*named, ("lamina-request-id", _header(request_id))) if request_id else named


def _header(text: str) -> str:
    # Metadata is printable ASCII; job keys are what others make them.
    return "".join(character if " " <= character <= "~" else "?" for character in text).strip()
