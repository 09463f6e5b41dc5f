"""What the slide task takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Rows, columns, RGB.
Pixels = NDArray[np.uint8]
# Level, column and row of a stored tile.
Place = tuple[int, int, int]
# Its column and row.
Position = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SlideLimits:
    """Bounds that keep one request from taking the server."""

    # Most pixels of level 0 of a slide that is stored in tiles, which is read piece by piece.
    most_slide_pixels: int = 40_000_000_000
    # Most pixels of an image without tiles, which is decoded whole.
    most_image_pixels: int = 100_000_000
    # Most pixels of one stored tile, or of one tile that a client sends.
    most_tile_pixels: int = 4096 * 4096
    # Most pixels of all tiles of one AnalyzeTiles request.
    most_request_pixels: int = 64 * 1024 * 1024
    # Most bytes of decoded tiles kept for their neighbours, per analysis. Of tiles that take more than 2,048 × 2,048 px of the slide each,
    # as many times more, as far as there are such of all analyses together.
    cache_bytes: int = 128 * 1024 * 1024
    most_cache_bytes: int = 192 * 1024 * 1024
    # Bytes of remote slides that may lie on local disk for OpenSlide.
    most_staged_bytes: int = 20 * 1024**3
    # Model calls in flight, per analysis.
    calls_in_flight: int = 4
    # Pixels of tiles in flight, of all analyses together; one call with more goes alone.
    most_pixels_in_flight: int = 10 * 1024 * 1024
    # Share of unreadable stored tiles beyond which a slide fails.
    most_unreadable: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of the pyramid."""

    # Pixels.
    width: int
    height: int
    # Level-0 pixels per pixel.
    downsample_x: float
    downsample_y: float
    # Pixels of the tiles that are read at once.
    tile_width: int
    tile_height: int

    @property
    def downsample(self) -> float:
        """Level-0 pixels per pixel, mean of both axes."""
        return (self.downsample_x + self.downsample_y) / 2

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.tile_height)


@dataclass(frozen=True, kw_only=True)
class SlideFacts:
    """What a slide is, as its headers tell."""

    # As the caller named it.
    uri: str
    # As OpenSlide names it: aperio, generic-tiff; empty when unknown.
    vendor: str
    # The reader: tiff, openslide, image.
    reader: str
    # From level 0 down; never empty.
    levels: tuple[Level, ...]
    # Micrometres per pixel of level 0; None when the file does not tell, or tells nonsense.
    mpp_x: float | None
    mpp_y: float | None
    # Magnification of the objective; None when the file does not tell.
    objective_power: float | None
    # Origin of the scanned region in level-0 pixels.
    bounds_x: int = 0
    bounds_y: int = 0
    # The ICC profile of its colours; empty when the file has none.
    icc_profile: bytes = field(default=b"", repr=False)

    @property
    def width(self) -> int:
        """Width of level 0, in pixels."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Height of level 0, in pixels."""
        return self.levels[0].height


@dataclass(frozen=True, kw_only=True)
class Share:
    """One of several parts of a slide's tiles."""

    # From 0.
    index: int = 0
    count: int = 1

    @property
    def whole(self) -> bool:
        """Whether it is all of them."""
        return self.count == 1

    def of(self, batches: int) -> range:
        """The numbers of the batches in it: those of all shares are all, each once."""
        return range(self.index * batches // self.count, (self.index + 1) * batches // self.count)


@dataclass(frozen=True, kw_only=True)
class AnalysisRequest:
    """One analysis of one slide."""

    slide_uri: str
    # The name of a model with a manifest; empty for he_baseline.
    analysis: str = ""
    # Folder or URL prefix for the artifacts; empty to stream them.
    output_uri: str = ""
    # Micrometres per pixel of level 0; None to take the slide's own.
    mpp: float | None = None
    # What it is taken for where the slide tells none.
    assumed_mpp: float | None = None
    # Edge of the tiles in pixels of the analysis; 0 for the analysis' own.
    tile_size: int = 0
    # Whether colours are brought to sRGB by the slide's ICC profile.
    apply_icc_profile: bool = False
    # Names this run to its caller.
    request_id: str = ""
    # Whether parts are saved, from which another run may go on.
    checkpoints: bool = False
    # What earlier runs saved, in any order: places below the output roots, or the parts themselves.
    resume_uris: Sequence[str] = ()
    resume_parts: Sequence[bytes] = ()
    # Names of the artifacts that are made; empty for all that the analysis has.
    artifacts: Sequence[str] = ()
    # The part of the tiles that is analysed; no artifacts are made of a part.
    share: Share = Share()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an analysis is."""

    # opening, tissue, tiles or writing.
    stage: str
    tiles_done: int = 0
    # 0 until it is known.
    tiles_total: int = 0
    tiles_per_second: float = 0.0
    # None until it can be estimated.
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A part that has been saved: with it, and those before it, all that was found up to here."""

    # Number in this run, from 1, and file name.
    part: int
    name: str
    # Where it was written; empty when it was streamed.
    uri: str
    size_bytes: int
    # Lower-case hexadecimal.
    sha256: str
    tiles_done: int
    tiles_total: int
    # Whether the parts that the request went on from count too.
    resumed: bool


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of an artifact, or of a checkpoint's part, that is streamed."""

    name: str
    # Bytes before it.
    offset: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class ArtifactFacts:
    """One file that an analysis made."""

    name: str
    media_type: str
    # Where it was written; empty when it was streamed.
    uri: str
    size_bytes: int
    # Lower-case hexadecimal.
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AnalysisResult:
    """What an analysis found."""

    analysis: str
    # As name:version.
    model: str
    # As engine:precision; of tiles that several engines ran, all of them.
    engine: str
    # analysis.json whole.
    report_json: str
    artifacts: tuple[ArtifactFacts, ...]
    facts: SlideFacts
    tiles_analyzed: int
    # Stored tiles that could not be decoded, and were taken as white.
    tiles_skipped: int
    duration_seconds: float
    # Of the tiles analysed, those that earlier runs had computed.
    tiles_resumed: int = 0
    # Why what earlier runs saved was not taken up, or some of it; empty when all was, or there was nothing.
    resume_refused: str = ""


@dataclass(frozen=True, kw_only=True)
class ClientTile:
    """Pixels of one tile that a client sent: exactly one of `encoded` and `rgb` is not empty."""

    id: str
    # JPEG or PNG.
    encoded: bytes = b""
    # width × height × 3 bytes.
    rgb: bytes = b""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, kw_only=True)
class Point:
    """A finding on a tile."""

    # Pixels from the left and top edges.
    x: float
    y: float
    # Strength of the finding.
    score: float


@dataclass(frozen=True, kw_only=True)
class TileFindings:
    """What a model found on one tile of a client."""

    id: str
    scores: Mapping[str, float]
    points: tuple[Point, ...] = field(default=())
