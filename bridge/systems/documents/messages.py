"""The document system's messages: `{"document_uri": …, "dpi"?: …, "pages"?: […], "password"?: …, "text_mode"?: …, "formats"?: […]}`.

In our own envelope.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bridge.envelopes import native
from bridge.envelopes.message import Message
from bridge.job import Job
from bridge.systems.locations import Location, absolute

SYSTEM = "documents"
_EXPECTED = (
    '{"document_uri": "/data/report.pdf"}, with dpi (36 to 600), pages (from 1), password, text_mode (ocr, layer, auto) and '
    "formats (hocr, alto, pdf, tsv) where they are wanted"
)

TextMode = Literal["", "ocr", "layer", "auto"]
Format = Literal["hocr", "alto", "pdf", "tsv"]
# What the server renders pages at.
_LOWEST_DPI, _HIGHEST_DPI = 36, 600


def _dpi(value: int) -> int:
    if value and not _LOWEST_DPI <= value <= _HIGHEST_DPI:
        raise ValueError(f"{value} is none that pages are rendered at: {_LOWEST_DPI} to {_HIGHEST_DPI}, or 0 for the server's own")
    return value


PageNumber = Annotated[int, Field(ge=1, le=1_000_000)]


class DocumentRequest(Message):
    """Asks for one document to be read."""

    # A file that the bridge may read, or a URL under the server's allowed roots.
    document_uri: Location
    # Dots per inch at which PDF pages are rendered; 0 for the server's own.
    dpi: Annotated[int, AfterValidator(_dpi)] = 0
    # Pages to read, from 1; empty for all.
    pages: tuple[PageNumber, ...] = ()
    # Of an encrypted PDF. It lies in the queue and the ledger for as long as the job does.
    password: Annotated[str, Field(max_length=1000)] = ""
    # Where the text of PDF pages is taken from; empty for the server's own.
    text_mode: TextMode = ""
    # Files beside document.json and document.txt, which there are always.
    formats: tuple[Format, ...] = ()


def request_message(
    *,
    key: str,
    document_uri: str,
    dpi: int = 0,
    pages: Sequence[int] = (),
    password: str = "",
    text_mode: str = "",
    formats: Sequence[str] = (),
    reply_queue: str = "",
    priority: int = 0,
) -> bytes:
    """The message that asks for a document. A relative path starts at the current folder. Raises `PoisonError`."""
    asked = {
        "document_uri": absolute(document_uri),
        "dpi": dpi,
        "pages": tuple(pages),
        "password": password,
        "text_mode": text_mode,
        "formats": tuple(formats),
    }
    request = native.check_request(DocumentRequest, asked, expected=_EXPECTED)
    content = request.model_dump(mode="json", exclude_defaults=True)
    return native.write(Job(key=key, system=SYSTEM, request=content, reply_queue=reply_queue, priority=priority))


def job_of(body: bytes) -> Job:
    """The job that a message asks for. Raises `PoisonError`."""
    return native.read_job(body, system=SYSTEM, request=DocumentRequest, expected=_EXPECTED)


def request_of(job: Job) -> DocumentRequest:
    """What a job asks for. Raises `PoisonError`."""
    return native.check_request(DocumentRequest, job.request, expected=_EXPECTED)
