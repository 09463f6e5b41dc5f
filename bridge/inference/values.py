"""What the inference client takes and gives: frozen values, never protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long each call may take, in seconds. Every call has a deadline."""

    # A whole slide.
    slide: float = 6 * 3600.0
    # A whole document.
    document: float = 3600.0
    # One list of lab tests.
    labs: float = 120.0
    # The longest silence of a stream before it is taken for dead.
    idle: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Watchfulness:
    """How closely the servers behind an address are watched, in seconds."""

    # Between two health checks of a server that serves, and of one that does not; and how long an answer may take.
    look_seconds: float = 3.0
    again_seconds: float = 1.0
    answer_seconds: float = 3.0
    # Calls of a server are given up once its health checks have been unanswered for so long.
    silent_seconds: float = 15.0
    # Between two look-ups of the servers' names.
    resolve_seconds: float = 5.0


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How a call that the server refused is tried again within the process, before the job is put back."""

    # Rounds in all; in each a call is tried on every server that may take it.
    attempts: int = 4
    # Each wait is random between 0 and this times 2 to the power of the tries so far (full jitter), in seconds.
    wait_initial: float = 0.2
    # No wait is longer, in seconds. A server that asks for a longer one gets its job put back instead.
    wait_most: float = 5.0


@dataclass(frozen=True, kw_only=True)
class SlideProgress:
    """How far the analysis of a slide is."""

    # What is being done: opening, tissue, tiles, writing.
    stage: str
    # Tiles finished, and tiles in all (0 until it is known).
    tiles_done: int
    tiles_total: int
    tiles_per_second: float
    # Seconds left, estimated; None until it can be.
    seconds_left: float | None


@dataclass(frozen=True, kw_only=True)
class SlideCheckpoint:
    """A part of what was found so far has been saved."""

    # Number of the part in this call, from 1; and the file.
    part: int
    file: Artifact
    # Tiles that are saved, and tiles in all.
    tiles_done: int
    tiles_total: int
    # Whether the parts that the call went on from count too.
    resumed: bool


@dataclass(frozen=True, kw_only=True)
class ArtifactChunk:
    """A piece of an artifact or of a checkpoint's part, when they are streamed and not written by the server."""

    # File name.
    name: str
    # Offset of the data in the artifact, in bytes.
    offset: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One file that an analysis made."""

    # File name: analysis.json, heatmap.png.
    name: str
    media_type: str
    # Where the server wrote it; empty when it was streamed.
    uri: str
    size_bytes: int
    # In lower-case hexadecimal.
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SlideResult:
    """What an analysis found on a slide."""

    # The analysis that ran, its model as name:version, and its engine as engine:precision.
    analysis: str
    model: str
    engine: str
    # analysis.json, parsed.
    report: Mapping[str, Any]
    artifacts: tuple[Artifact, ...]
    # Level 0, in pixels.
    width: int
    height: int
    tiles_analyzed: int
    # Tiles that could not be decoded.
    tiles_skipped: int
    duration_seconds: float
    # Of the tiles analysed, those that earlier calls had computed.
    tiles_resumed: int
    # Why the analysis started over; empty when it did not.
    resume_refused: str


SlideEvent = SlideProgress | SlideCheckpoint | ArtifactChunk | SlideResult


@dataclass(frozen=True, kw_only=True)
class SlideResume:
    """What earlier calls have saved, in order: where it lies, or when it was streamed, the parts themselves."""

    uris: Sequence[str] = ()
    parts: Sequence[bytes] = ()


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word of a line."""

    text: str
    # 0 to 1.
    confidence: float
    # Four corners (x, y) in pixels of the page, clockwise from the top left of the text.
    polygon: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of text."""

    text: str
    # 0 to 1.
    confidence: float
    # As a word's.
    polygon: tuple[tuple[float, float], ...]
    words: tuple[Word, ...]


@dataclass(frozen=True, kw_only=True)
class PageQuality:
    """How good the picture of a page is."""

    # Variance of the Laplacian of the lines, at one height and contrast; None without lines.
    sharpness: float | None
    # Share of the text's area that is burnt out, 0 to 1.
    glare: float
    # Median of the lines, in pixels.
    text_height: float
    # Between paper and ink, 0 to 1.
    contrast: float


@dataclass(frozen=True, kw_only=True)
class KeyField:
    """A label of a page, and its value."""

    label: str
    value: str
    # 0 to 1.
    confidence: float
    # Of the value, as a word's.
    polygon: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class DocumentPage:
    """One page that was read."""

    # From 1.
    page_number: int
    # Pages of the document in all; 0 when the server does not tell.
    page_count: int
    # Of the page image, in pixels.
    width: int
    height: int
    # In reading order.
    lines: tuple[Line, ...]
    # In reading order, lines separated by line feeds.
    text: str
    # Why the page could not be read, or empty.
    error: str
    # Where the text was taken from: ocr or layer; empty when the server does not tell.
    text_source: str = ""
    # None where no picture was made, or the server does not tell.
    quality: PageQuality | None = None
    # What is told as `label: value`, in reading order.
    fields: tuple[KeyField, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DocumentChunk:
    """A piece of a file that the server makes of a document."""

    # File name: document.hocr, document.pdf.
    name: str
    media_type: str
    # Offset of the data in the file, in bytes.
    offset: int
    data: bytes
    # Whether the file ends here.
    last: bool
    # Why it could not be written to its end; empty when it is whole.
    error: str


@dataclass(frozen=True, kw_only=True)
class DocumentSummary:
    """What was read in all."""

    page_count: int
    failed_pages: int
    media_type: str
    # Of all words, 0 to 1.
    mean_confidence: float
    # As name:version@engine:precision.
    models: tuple[str, ...]
    duration_seconds: float


DocumentEvent = DocumentPage | DocumentChunk | DocumentSummary


@dataclass(frozen=True, kw_only=True)
class LabTest:
    """One test as a laboratory printed it. Only the name is needed."""

    id: str
    name: str
    value: str = ""
    unit: str = ""
    specimen: str = ""
    reference_range: str = ""


@dataclass(frozen=True, kw_only=True)
class Alias:
    """What a person said that a printed name means."""

    name: str
    # LOINC code.
    code: str
    # Unit and specimen for which it does, as printed; empty for any.
    unit: str = ""
    specimen: str = ""


class MatchStatus(StrEnum):
    """Whether a LOINC code was found."""

    MATCHED = "matched"
    NO_MATCH = "no_match"
    NEEDS_REVIEW = "needs_review"


@dataclass(frozen=True, kw_only=True)
class LoincCandidate:
    """One entry of the catalogue that may be meant."""

    code: str
    long_common_name: str
    component: str
    system: str
    # 0 to 1.
    score: float
    # What spoke for it: alias, lexical, embedding, unit, specimen.
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabReading:
    """What a printed value says."""

    # Absent for words.
    number: float | None
    # In UCUM's spelling; as printed where that is not known.
    unit: str
    # The number in the unit of the other system, of a believed match whose molar mass is known.
    converted_number: float | None
    converted_unit: str
    # low, normal, high or abnormal; empty where nothing tells.
    flag: str


@dataclass(frozen=True, kw_only=True)
class LabClassification:
    """What one test is."""

    # As asked.
    id: str
    category: str
    # 0 to 1.
    category_confidence: float
    status: MatchStatus
    # Best first; also given without a match.
    candidates: tuple[LoincCandidate, ...]
    explanation: str
    # None without a value.
    reading: LabReading | None = None


@dataclass(frozen=True, kw_only=True)
class LabClassifications:
    """What a list of tests is, in its order."""

    tests: tuple[LabClassification, ...]
    # As name:version.
    model: str
    catalogue: str
