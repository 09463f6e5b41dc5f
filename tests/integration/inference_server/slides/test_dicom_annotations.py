"""annotations.dcm, opened as pydicom and highdicom open it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from inference_server.errors import InvalidInput, InvalidSlide
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.findings import Points
from inference_server.tasks.slides.outputs import dicom_annotations
from tests.support.slides.dicom import write_dicom
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_classifier

NUCLEI = scattered(60, within=(120, 100, 680, 500), apart=25)
PICTURE = paint(800, 600, tissue=(100, 80, 700, 520), nuclei=NUCLEI)


def opened(path: Path) -> Any:
    return highdicom.ann.MicroscopyBulkSimpleAnnotations.from_dataset(pydicom.dcmread(path))


async def test_points_are_those_of_the_geojson_on_the_image_that_they_refer_to(analyses: Any, tmp_path: Path) -> None:
    slide = write_dicom(tmp_path / "slide", [PICTURE])
    found = await analyses.run(slide)
    annotations = opened(found.folder / "annotations.dcm")
    (group,) = annotations.get_annotation_groups()
    places = np.concatenate(group.get_graphic_data("2D"))

    assert ("Nuclear candidate", "POINT", len(NUCLEI)) == (group.label, group.graphic_type.value, group.number_of_annotations)
    assert np.allclose(found.points, places, atol=0.01)
    source = pydicom.dcmread(slide, stop_before_pixels=True)
    assert source.SOPInstanceUID == annotations.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert (source.StudyInstanceUID, "none") == (annotations.StudyInstanceUID, annotations.PatientID)
    assert ("he_baseline", "1") == (
        group.algorithm_identification.name,
        group.algorithm_identification.version,
    )


@pytest.mark.parametrize(("named", "referred", "scale"), [("level1", "level1", 0.5), ("label", "level0", 1.0)])
async def test_a_slide_named_by_another_of_its_images_is_annotated_where_it_shows_what_was_found(
    analyses: Any, tmp_path: Path, named: str, referred: str, scale: float
) -> None:
    label = np.full((150, 260, 3), 200, np.uint8)
    base = write_dicom(tmp_path / "slide", [PICTURE, np.ascontiguousarray(PICTURE[::2, ::2])], label=label)
    found = await analyses.run(base.with_name(f"{named}.dcm"))
    annotations = opened(found.folder / "annotations.dcm")
    (group,) = annotations.get_annotation_groups()

    source = pydicom.dcmread(base.with_name(f"{referred}.dcm"), stop_before_pixels=True)
    assert source.SOPInstanceUID == annotations.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert np.allclose(found.points * scale, np.concatenate(group.get_graphic_data("2D")), atol=0.01)


async def test_tiles_are_polygons_by_class(analyses_with: Callable[..., Any], tmp_path: Path) -> None:
    write_classifier(tmp_path / "models", mpp=0.5)
    picture = PICTURE.copy()
    picture[300:520, 100:700] = (215, 190, 210)
    found = await analyses_with(tmp_path / "models").run(write_dicom(tmp_path / "slide", [picture]), analysis="pinkness")
    groups = {group.label: group for group in opened(found.folder / "annotations.dcm").get_annotation_groups()}
    names = [each["properties"]["classification"]["name"] for each in found.features]
    assert {name: names.count(name) for name in ("glass", "tissue")} == {
        name: group.number_of_annotations for name, group in groups.items()
    }
    first = next(each for each in found.features if each["properties"]["classification"]["name"] == "tissue")
    assert np.array_equal(first["geometry"]["coordinates"][0][:-1], groups["tissue"].get_graphic_data("2D")[0])


async def test_classes_keep_their_names_in_any_letters_and_the_patient_keeps_theirs(
    analyses_with: Callable[..., Any], tmp_path: Path
) -> None:
    write_classifier(tmp_path / "models", mpp=0.5, classes=["背景\n", "jaringan µ≥\\2"])
    slide = write_dicom(tmp_path / "slide", [PICTURE])
    named = pydicom.dcmread(slide)
    named.SpecificCharacterSet, named.PatientName = "ISO_IR 100", "Müller^Jörg"
    named.save_as(slide)
    found = await analyses_with(tmp_path / "models").run(slide, analysis="pinkness")

    annotations = opened(found.folder / "annotations.dcm")
    groups = annotations.get_annotation_groups()
    assert {"背景", "jaringan µ≥/2"} == {each.label for each in groups} == {each.annotated_property_type.meaning for each in groups}
    assert "Müller^Jörg" == annotations.PatientName


async def test_the_same_slide_gives_the_same_bytes(analyses: Any, tmp_path: Path) -> None:
    slide = write_dicom(tmp_path / "slide", [PICTURE])
    runs = [await analyses.run(slide, artifacts=("annotations.dcm",)) for _ in range(2)]
    assert 1 == len({(run.folder / "annotations.dcm").read_bytes() for run in runs})


async def test_nothing_found_makes_no_annotations(analyses: Any, tmp_path: Path) -> None:
    found = await analyses.run(write_dicom(tmp_path / "blank", [paint(400, 300, tissue=None)]))
    assert "annotations.dcm" not in {each.name for each in found.result.artifacts}


async def test_a_header_that_cannot_be_referred_to_costs_the_annotations_and_nothing_else(analyses: Any, tmp_path: Path) -> None:
    slide = write_dicom(tmp_path / "slide", [PICTURE])
    odd = pydicom.dcmread(slide)
    del odd.FrameOfReferenceUID
    odd.save_as(slide)
    found = await analyses.run(slide)
    assert (len(NUCLEI), False) == (len(found.features), (found.folder / "annotations.dcm").exists())
    with pytest.raises(InvalidSlide, match="no header that annotations can refer to"):
        await analyses.run(slide, artifacts=("annotations.dcm",))


@pytest.mark.parametrize("length", [141, 154, 155])
async def test_a_header_that_is_cut_off_within_an_element_is_told_as_the_slides_fault(analyses: Any, tmp_path: Path, length: int) -> None:
    slide = write_dicom(tmp_path / "slide", [PICTURE])
    found = await analyses.run(slide, artifacts=("analysis.json",))
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(slide.read_bytes()[:length])
    storage = Storage(read_roots=(str(tmp_path),), write_roots=())
    header = await dicom_annotations.header(storage, [await storage.open(str(cut))], found.result.facts)
    points = Points(places=np.array([[1.0, 2.0]]), classification="nucleus", colour=(1, 2, 3), measurements={})
    about = {"analysis": "a", "model": "m:1", "engine": "e"}
    with pytest.raises(InvalidSlide, match="no header that annotations can refer to"):
        dicom_annotations.write(tmp_path / "annotations.dcm", [points], source=header, facts=found.result.facts, about=about)


async def test_another_slide_has_none_and_cannot_have_any(analyses: Any, tmp_path: Path) -> None:
    slide = write_svs(tmp_path / "slide.svs", PICTURE)
    assert not ((await analyses.run(slide)).folder / "annotations.dcm").exists()
    with pytest.raises(InvalidInput, match="is no DICOM slide"):
        await analyses.run(slide, artifacts=("annotations.dcm",))


async def test_without_the_extra_there_are_none_and_who_asks_is_told_what_to_install(
    analyses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_annotations, "installed", lambda: False)
    slide = write_dicom(tmp_path / "slide", [PICTURE])
    assert not ((await analyses.run(slide)).folder / "annotations.dcm").exists()
    with pytest.raises(InvalidInput, match=r"Install lamina\[dicom\]"):
        await analyses.run(slide, artifacts=("annotations.dcm",))
