"""annotations.dcm: what was found on a DICOM slide as Microscopy Bulk Simple Annotations, for archives and viewers that speak DICOM.

Alone in importing highdicom and pydicom, which the extra `dicom` brings. DICOM PS3.3 A.87; coordinates are pixels of the total pixel matrix
of the image that the slide's URI names, (0, 0) at the corner of its first pixel; of level 0, where that is the label or an overview.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import io
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference_server.errors import InvalidSlide
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides.findings import Points, Shape
from inference_server.tasks.slides.values import SlideFacts

if TYPE_CHECKING:
    from highdicom.ann import AnnotationGroup
    from pydicom import Dataset

FILE = "annotations.dcm"
MEDIA_TYPE = "application/dicom"
EXTRA = "dicom"
# As OpenSlide names it.
_VENDOR = "dicom"
# What an image is of, beside the slide (DICOM PS3.3, C.8.12.4.1.1).
_ASIDE = frozenset({"LABEL", "OVERVIEW"})
_UNICODE = "ISO_IR 192"
# All that stands before the pixels; tiled images have little.
_HEADER_BYTES = 16 * 1024 * 1024
# What every study must tell, and may leave empty.
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
# Our own codes: classes are names that a manifest gives.
_SCHEME = "99LAMINA"


@dataclass(kw_only=True)
class _Group:
    """Features of one class and kind, as they are stored."""

    colour: tuple[int, int, int]
    # Columns and rows in turn, and for polygons where each begins among them, from 1.
    coordinates: array[float] = field(default_factory=lambda: array("f"))
    starts: array[int] = field(default_factory=lambda: array("I"))


# By class, and whether they are points.
_Groups = dict[tuple[str, bool], _Group]


def installed() -> bool:
    """Whether the extra is there."""
    return all(importlib.util.find_spec(name) is not None for name in ("highdicom", "pydicom"))


def fits(facts: SlideFacts) -> bool:
    """Whether a slide is DICOM."""
    return facts.vendor == _VENDOR


async def header(storage: Storage, files: Sequence[StoredObject], facts: SlideFacts) -> bytes:
    """What stands before the pixels of the image that annotations refer to. Raises as `Storage.read_range` does.

    `files`: the one that names the slide, then its others. The first is meant; where that is the slide's label or an overview, on which
    nothing was found, the one of level 0. Empty where there is none.
    """
    named = await _head(storage, files[0])
    if not await asyncio.to_thread(_is_aside, named):
        return named
    for other in files[1:]:
        head = await _head(storage, other)
        if await asyncio.to_thread(_is_level_0, head, facts):
            return head
    return b""


async def _head(storage: Storage, found: StoredObject) -> bytes:
    return await storage.read_range(found, 0, min(found.size_bytes, _HEADER_BYTES)) if found.size_bytes else b""


def _is_aside(head: bytes) -> bool:
    """Whether it is of a picture beside the slide."""
    return not _ASIDE.isdisjoint(_told(head).get("ImageType") or ())


def _is_level_0(head: bytes, facts: SlideFacts) -> bool:
    told = _told(head)
    size = told.get("TotalPixelMatrixColumns"), told.get("TotalPixelMatrixRows")
    return size == (facts.width, facts.height) and not _is_aside(head)


def _told(head: bytes) -> Mapping[str, Any]:
    """What a header says of its image; nothing where it is none."""
    from pydicom import dcmread

    names = ["ImageType", "TotalPixelMatrixColumns", "TotalPixelMatrixRows"]
    try:
        told = dcmread(io.BytesIO(head), stop_before_pixels=True, specific_tags=names)
        # Values are read when they are asked for.
        return {name: told[name].value for name in names if name in told}
    except _faults():
        return {}


def _faults() -> tuple[type[Exception], ...]:
    """What comes of a header that is none, cut off within an element, or damaged."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    odd = InvalidDicomError, BytesLengthException, NotImplementedError, struct.error
    return *odd, AttributeError, EOFError, KeyError, TypeError, ValueError


def write(path: Path, shapes: Iterable[Shape | Points], *, source: bytes, facts: SlideFacts, about: Mapping[str, str]) -> None:
    """Write the annotations; blocks. No file is written where nothing was found: DICOM has no annotations of nothing.

    `source`: the slide's header; `about`: the analysis, its model and engine.
    Holes are not written: DICOM's polygons have none. Raises `InvalidSlide` when the header is not that of a whole-slide image.
    """
    try:
        image = _image(source)
        groups = _groups(shapes, (image.TotalPixelMatrixColumns / facts.width, image.TotalPixelMatrixRows / facts.height))
        if not groups:
            return
        annotations = _annotations(image, groups, about)
    except _faults() as error:
        raise InvalidSlide(
            f"{facts.uri} has no header that annotations can refer to ({type(error).__name__}); leave {FILE} out of the artifacts."
        ) from error
    annotations.save_as(path, enforce_file_format=True)


def _annotations(image: Dataset, groups: _Groups, about: Mapping[str, str]) -> Dataset:
    """The instance that refers to an image; its UIDs and times follow from what it is made of."""
    # Only a server that annotates a DICOM slide needs it, and it takes long to import.
    from highdicom.ann import MicroscopyBulkSimpleAnnotations

    digest = _digest(image, groups, about)
    if not "".join((*about.values(), *(name for name, _ in groups))).isascii():
        # In what the slide's own texts are written other letters may not be.
        image.decode()
        image.SpecificCharacterSet = _UNICODE
    annotations = MicroscopyBulkSimpleAnnotations(
        source_images=[image],
        annotation_coordinate_type="2D",
        annotation_groups=[
            _annotated(number, name, single, group, digest, about) for number, ((name, single), group) in enumerate(groups.items(), start=1)
        ],
        series_instance_uid=_uid(digest, "series"),
        series_number=1,
        sop_instance_uid=_uid(digest, "instance"),
        instance_number=1,
        manufacturer="Lamina",
        manufacturer_model_name=about["analysis"][:64],
        software_versions=about["model"][:64],
        device_serial_number=about["engine"][:64],
        content_label="LAMINA",
    )
    _stop_clock(annotations, image)
    return annotations


def _stop_clock(annotations: Dataset, image: Dataset) -> None:
    """Take the image's times in the place of today's: the same slide gives the same bytes."""
    annotations.ContentDate, annotations.ContentTime = image.get("ContentDate", ""), image.get("ContentTime", "")
    for name in ("InstanceCreationDate", "InstanceCreationTime"):
        annotations.pop(name, None)
    for equipment in annotations.get("ContributingEquipmentSequence", ()):
        if equipment.get("ManufacturerModelName") == "highdicom" and "ContributionDateTime" in equipment:
            del equipment.ContributionDateTime


def _image(source: bytes) -> Dataset:
    from pydicom import dcmread

    image = dcmread(io.BytesIO(source), stop_before_pixels=True)
    for name in _MAY_BE_EMPTY:
        if name not in image:
            setattr(image, name, "")
    return image


def _groups(shapes: Iterable[Shape | Points], scale: tuple[float, float]) -> _Groups:
    """By class and whether they are points, in the order of their first feature."""
    groups: _Groups = {}
    for shape in shapes:
        if isinstance(shape, Points):
            group = groups.setdefault((shape.classification, True), _Group(colour=shape.colour))
            first = len(group.coordinates) + 1
            group.starts.extend(range(first, first + 2 * len(shape.places), 2))
            group.coordinates.extend((shape.places * scale).reshape(-1).tolist())
            continue
        group = groups.setdefault((shape.classification, False), _Group(colour=shape.colour))
        group.starts.append(len(group.coordinates) + 1)
        for x, y in shape.corners:
            group.coordinates.extend((x * scale[0], y * scale[1]))
    return groups


def _annotated(number: int, name: str, single: bool, group: _Group, digest: bytes, about: Mapping[str, str]) -> AnnotationGroup:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.ann import AnnotationGroup
    from highdicom.color import CIELabColor
    from highdicom.sr import CodedConcept

    model, _, version = about["model"].rpartition(":")
    annotated = AnnotationGroup(
        number=number,
        uid=_uid(digest, f"group {number}"),
        label=_text(name),
        annotated_property_category=CodedConcept("finding", _SCHEME, "Finding of a model"),
        annotated_property_type=CodedConcept(hashlib.sha256(name.encode()).hexdigest()[:16], _SCHEME, _text(name)),
        graphic_type="POINT" if single else "POLYGON",
        # The first alone: a list of arrays for millions would take a hundred times their size.
        graphic_data=[np.array(group.coordinates[: 2 if single else _end(group)], np.float32).reshape(-1, 2)],
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model[:64], family=CodedConcept("model", _SCHEME, "Model of an inference server"), version=version
        ),
        display_color=CIELabColor.from_rgb(*group.colour),
    )
    annotated.NumberOfAnnotations = len(group.starts)
    annotated.PointCoordinatesData = group.coordinates.tobytes()
    if not single:
        annotated.LongPrimitivePointIndexList = group.starts.tobytes()
    return annotated


def _text(name: str) -> str:
    """As DICOM takes it: a backslash would part it into several values, and characters that control something are none of a text's."""
    return "".join("/" if each == "\\" else each if each.isprintable() else " " for each in name)[:64]


def _end(group: _Group) -> int:
    return group.starts[1] - 1 if len(group.starts) > 1 else len(group.coordinates)


def _digest(image: Dataset, groups: _Groups, about: Mapping[str, str]) -> bytes:
    digest = hashlib.sha256("\0".join((image.SOPInstanceUID, *about.values())).encode())
    for (name, single), group in groups.items():
        digest.update(f"\0{name}\0{single}\0".encode())
        digest.update(group.coordinates.tobytes())
        digest.update(group.starts.tobytes())
    return digest.digest()


def _uid(digest: bytes, what: str) -> str:
    """A UID that names its content (DICOM PS3.5 B.2: a UUID as a number under 2.25)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(digest + what.encode()).digest()[:16], 'big')}"
