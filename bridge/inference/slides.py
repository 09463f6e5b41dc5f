"""What an analysis of a slide is asked and tells: frozen values, never protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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
    # Why parts that earlier calls had saved were not taken up; empty when all were.
    resume_refused: str


SlideEvent = SlideProgress | SlideCheckpoint | ArtifactChunk | SlideResult


@dataclass(frozen=True, kw_only=True)
class SlideResume:
    """What earlier calls have saved, in order: where it lies, or when it was streamed, the parts themselves."""

    uris: Sequence[str] = ()
    parts: Sequence[bytes] = ()


@dataclass(frozen=True, kw_only=True)
class SlideOptions:
    """How a slide is analysed; what is left empty takes the server's defaults."""

    analysis: str = ""
    # Where the server writes artifacts and the parts of checkpoints; empty to have them as chunks before they are told of.
    output_uri: str = ""
    # Micrometres per pixel of level 0, whatever the slide tells; and for slides that tell none.
    mpp: float | None = None
    assumed_mpp: float | None = None
    # In pixels of the analysis' resolution.
    tile_size: int = 0
    priority: int = 0
    # Whether what was found so far is saved now and then; and what earlier calls saved.
    checkpoints: bool = False
    resume: SlideResume | None = None
    # Names of the files to make.
    artifacts: Sequence[str] = ()
    # Which part of the tiles, from 0, and of how many; it needs checkpoints, and makes no artifacts. None for all.
    share: tuple[int, int] | None = None
    # Whether colours are brought to sRGB first.
    apply_icc_profile: bool = False
