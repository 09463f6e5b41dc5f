"""The files of an analysis: made in a temporary folder, then written to storage or streamed to the caller."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from inference_server.allocator import return_what_is_free
from inference_server.errors import InvalidInput, InvalidSlide
from inference_server.storage.storage import Storage
from inference_server.tasks.slides import scratch
from inference_server.tasks.slides.findings import AnalysisPlan, Findings
from inference_server.tasks.slides.outputs import dicom_annotations, geojson, ome_tiff, rendering, table
from inference_server.tasks.slides.outputs.thumbnails import Thumbnail
from inference_server.tasks.slides.values import ArtifactFacts, Chunk, SlideFacts

_log = structlog.get_logger()
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the files of an analysis are made from."""

    findings: Findings
    # Below the overlay; None where none is made.
    picture: Thumbnail | None
    # analysis.json whole.
    report: str
    rows: table.TileRows
    # What the table says of itself.
    about: Mapping[str, str]
    # Micrometres per pixel of level 0 along x and y.
    mpp: tuple[float, float]
    # What stands before the pixels of a DICOM slide; empty where it is not needed.
    dicom_header: bytes = b""
    # The artifacts that were asked for by name.
    wanted: Sequence[str] = ()

    @property
    def placement(self) -> ome_tiff.Placement:
        """How pictures lie on the slide."""
        facts = self.rows.facts
        return ome_tiff.Placement(mpp=self.mpp, bounds=(float(facts.bounds_x), float(facts.bounds_y)))


@dataclass(frozen=True, kw_only=True)
class _File:
    """One kind of file."""

    media_type: str
    # Writes it; blocks.
    write: Callable[[Path, Contents], None]


def _write_report(path: Path, contents: Contents) -> None:
    path.write_text(contents.report, encoding="utf-8")


def _write_heatmap(path: Path, contents: Contents) -> None:
    path.write_bytes(rendering.heatmap(contents.findings.heat))


def _write_overlay(path: Path, contents: Contents) -> None:
    picture, findings = contents.picture, contents.findings
    if picture is not None:
        path.write_bytes(rendering.overlay(picture.pixels, picture.scale, picture.mpp, findings.heat, findings.points))


def _write_pyramid(path: Path, contents: Contents) -> None:
    ome_tiff.write_heat(path, contents.findings.heat, contents.placement)


def _write_features(path: Path, contents: Contents) -> None:
    slide, about = contents.rows.facts, contents.about
    analysed = (about["analysis"], about["model"], slide.width, slide.height)
    geojson.write(path, contents.findings.shapes(), offset=contents.placement.bounds, analysed=analysed)


def _write_table(path: Path, contents: Contents) -> None:
    table.write(path, contents.rows, contents.findings, about=contents.about)


def _write_vectors(path: Path, contents: Contents) -> None:
    if contents.findings.vectors is not None:
        table.write_vectors(path, contents.rows, contents.findings.vectors, about=contents.about)


def _write_mask(path: Path, contents: Contents) -> None:
    if contents.findings.labels is not None:
        ome_tiff.write_labels(path, contents.findings.labels, contents.placement)


def _write_annotations(path: Path, contents: Contents) -> None:
    facts = contents.rows.facts
    try:
        dicom_annotations.write(path, contents.findings.shapes(), source=contents.dicom_header, facts=facts, about=contents.about)
    except InvalidSlide as error:
        # An odd header must not cost an analysis that did well without.
        if dicom_annotations.FILE in contents.wanted:
            raise
        _log.warning("annotations_left_out", reason=str(error))


_REPORT = "analysis.json"
OVERLAY = "overlay.png"
# In the order in which they are told; the first is always made.
_FILES = {
    _REPORT: _File(media_type="application/json", write=_write_report),
    "heatmap.png": _File(media_type="image/png", write=_write_heatmap),
    "heatmap.ome.tiff": _File(media_type=ome_tiff.MEDIA_TYPE, write=_write_pyramid),
    OVERLAY: _File(media_type="image/png", write=_write_overlay),
    "detections.geojson.gz": _File(media_type=geojson.MEDIA_TYPE, write=_write_features),
    table.FILE: _File(media_type=table.MEDIA_TYPE, write=_write_table),
    table.VECTORS_FILE: _File(media_type=table.MEDIA_TYPE, write=_write_vectors),
    ome_tiff.MASK_FILE: _File(media_type=ome_tiff.MEDIA_TYPE, write=_write_mask),
    dicom_annotations.FILE: _File(media_type=dicom_annotations.MEDIA_TYPE, write=_write_annotations),
}
# Begun before the others, the longest first, so that both writers are done at the same time.
_LONG = ("detections.geojson.gz", ome_tiff.MASK_FILE, table.VECTORS_FILE, "heatmap.png", OVERLAY)
_WRITERS = 2
# Made by those analyses only that name them.
_EXTRAS = frozenset({table.VECTORS_FILE, ome_tiff.MASK_FILE})


def chosen(wanted: Sequence[str], plan: AnalysisPlan) -> tuple[str, ...]:
    """The files that an analysis makes of those wanted, all where none is named. Raises `InvalidInput` for one that there is not."""
    offered = [name for name in _FILES if name not in _EXTRAS or name in plan.extras]
    unknown = [name for name in wanted if name not in offered]
    if unknown:
        raise InvalidInput(f"{plan.name} makes no artifact called {', '.join(unknown)}; it makes: {', '.join(offered)}.")
    if dicom_annotations.FILE in wanted and not dicom_annotations.installed():
        raise InvalidInput(
            f"{dicom_annotations.FILE} needs the server's extra {dicom_annotations.EXTRA}, which is not installed. "
            f"Install lamina[{dicom_annotations.EXTRA}], or leave it out of the artifacts."
        )
    return tuple(name for name in offered if not wanted or name in wanted or name == _REPORT)


def fitting(names: Sequence[str], wanted: Sequence[str], facts: SlideFacts) -> tuple[str, ...]:
    """Of the files that were chosen, those that a slide can have. Raises `InvalidInput` for one that was wanted by name."""
    if dicom_annotations.fits(facts) and dicom_annotations.installed():
        return tuple(names)
    if dicom_annotations.FILE in wanted:
        raise InvalidInput(f"{facts.uri} is no DICOM slide, and {dicom_annotations.FILE} refers to one. Leave it out of the artifacts.")
    return tuple(name for name in names if name != dicom_annotations.FILE)


def load(names: Sequence[str]) -> None:
    """Import what `make` needs for these files, once in a process; blocks for a second."""
    kinds = {_FILES[name].media_type for name in names}
    if table.MEDIA_TYPE in kinds:
        table.load()
    if ome_tiff.MEDIA_TYPE in kinds:
        ome_tiff.load()


def make(folder: Path, contents: Contents, names: Sequence[str]) -> None:
    """Write files of an analysis into a temporary folder, two at a time; blocks. Raises `Unavailable` where that takes no more."""
    ordered = [*(name for name in _LONG if name in names), *(name for name in names if name not in _LONG)]

    def write(name: str) -> None:
        _FILES[name].write(folder / name, contents)
        if name in _LONG:
            # What it took lies in gaps between what is still in use: the others would take theirs beside it.
            return_what_is_free()

    with scratch.taking_room(), ThreadPoolExecutor(_WRITERS) as writers:
        for written in [writers.submit(write, name) for name in ordered]:
            written.result()


async def deliver(
    folder: Path, names: Sequence[str], *, storage: Storage, output_uri: str, stream: Callable[[Chunk], Awaitable[None]]
) -> tuple[ArtifactFacts, ...]:
    """Write the files that were made under `output_uri`, or stream them when it is empty. Raises `AccessDenied`, `Unavailable`."""
    delivered = []
    # The report is written last: where it is, all are, whoever watches the folder.
    for name in sorted(names, key=_REPORT.__eq__) if output_uri else names:
        path = folder / name
        if not path.exists():
            continue
        uri = place(output_uri, name) if output_uri else ""
        if uri:
            await storage.write(uri, path)
        else:
            await _stream(path, stream)
        sha256 = await asyncio.to_thread(_sha256, path)
        media_type, size = _FILES[name].media_type, path.stat().st_size
        delivered.append(ArtifactFacts(name=name, media_type=media_type, uri=uri, size_bytes=size, sha256=sha256))
    return tuple(sorted(delivered, key=lambda each: names.index(each.name)))


def place(output_uri: str, name: str) -> str:
    """Where an artifact goes."""
    return f"{output_uri.rstrip('/')}/{name}"


async def _stream(path: Path, stream: Callable[[Chunk], Awaitable[None]]) -> None:
    offset = 0
    with await asyncio.to_thread(path.open, "rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            await stream(Chunk(name=path.name, offset=offset, data=data))
            offset += len(data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
