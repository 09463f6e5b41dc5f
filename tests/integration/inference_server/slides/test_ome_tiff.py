"""heatmap.ome.tiff, opened as its readers open it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import pyvips
import tifffile

from inference_server.tasks.slides.findings import Heat, LabelMap
from inference_server.tasks.slides.outputs import ome_tiff
from tests.support.slides.painted import paint, write_svs
from tests.support.slides.tile_models import write_classifier

NAMES = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}


def pixels_of(path: Path) -> dict[str, str]:
    """The attributes of OME's Pixels and of its Plane."""
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        tree = ElementTree.fromstring(file.ome_metadata)
    found = tree.find(".//ome:Pixels", NAMES)
    plane = tree.find(".//ome:Plane", NAMES)
    assert found is not None
    assert plane is not None
    return {**found.attrib, **plane.attrib}


async def test_the_heatmap_has_the_tiles_values_and_their_size(analyses_with: Callable[..., Any], tmp_path: Path) -> None:
    write_classifier(tmp_path / "models")
    picture = paint(1024, 768, tissue=(0, 0, 512, 768))
    found = await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", picture), analysis="pinkness")
    values = tifffile.imread(found.folder / "heatmap.ome.tiff")
    told = pixels_of(found.folder / "heatmap.ome.tiff")
    assert ((6, 8), np.float32) == (values.shape, values.dtype)
    assert np.isfinite(values[:, :4]).all()
    assert np.isnan(values[:, 4:]).all()
    # Tiles of 64 px at 1 µm/px; the picture spans as much as the slide.
    assert ("64", "64", "0", "0") == (told["PhysicalSizeX"], told["PhysicalSizeY"], told["PositionX"], told["PositionY"])


def test_lower_levels_are_sub_ifds_with_the_means_of_what_there_is(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((1300, 2100))
    values[:600] = np.nan
    path = tmp_path / "heat.ome.tiff"
    ome_tiff.write_heat(path, Heat(values=values, scale=(16.0, 16.0), top=1.0), ome_tiff.Placement(mpp=(0.25, 0.25), bounds=(0.0, 0.0)))
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert [(1300, 2100), (650, 1050), (325, 525), (163, 263)] == [level.shape for level in series.levels]
        assert {(512, 512)} == {(level.pages[0].tilewidth, level.pages[0].tilelength) for level in series.levels}
        assert 3 == len(file.pages[0].tags["SubIFDs"].value)
        assert np.array_equal(values.astype(np.float32), series.levels[0].asarray(), equal_nan=True)
        lower = series.levels[1].asarray()
    assert np.isnan(lower[:300]).all()
    assert pytest.approx(values[600:602, :2].mean(), abs=1e-6) == float(lower[300, 0])


def test_readers_that_do_not_know_ome_are_told_the_size_of_a_pixel_of_each_level(tmp_path: Path) -> None:
    path = tmp_path / "heat.ome.tiff"
    heat = Heat(values=np.ones((600, 700)), scale=(16.0, 16.0), top=1.0)
    ome_tiff.write_heat(path, heat, ome_tiff.Placement(mpp=(0.25, 0.5), bounds=(0.0, 0.0)))
    with tifffile.TiffFile(path) as file:
        levels = [each.pages[0] for each in file.series[0].levels]
        assert [3, 3] == [level.resolutionunit for level in levels]
        assert [(4.0, 8.0), (8.0, 16.0)] == [tuple(1e4 / each for each in level.resolution) for level in levels]


def test_a_picture_begins_where_qupaths_coordinates_do(tmp_path: Path) -> None:
    values = np.arange(20 * 30, dtype=float).reshape(20, 30)
    path = tmp_path / "heat.ome.tiff"
    placement = ome_tiff.Placement(mpp=(0.25, 0.25), bounds=(330.0, 150.0))
    ome_tiff.write_heat(path, Heat(values=values, scale=(100.0, 100.0), top=1.0), placement)
    told = pixels_of(path)
    assert np.array_equal(values[1:, 3:].astype(np.float32), tifffile.imread(path))
    # What whole cells leave: 300 of 330, and 100 of 150, by 0.25 µm.
    assert (-7.5, -12.5, 25.0) == (float(told["PositionX"]), float(told["PositionY"]), float(told["PhysicalSizeX"]))


def test_a_slide_whose_bounds_begin_in_the_second_half_of_its_only_tile_has_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "heat.ome.tiff"
    heat = Heat(values=np.array([[0.5]]), scale=(2048.0, 2048.0), top=1.0)
    ome_tiff.write_heat(path, heat, ome_tiff.Placement(mpp=(0.5, 0.5), bounds=(1250.0, 1100.0)))
    told = pixels_of(path)
    assert [[0.5]] == tifffile.imread(path).tolist()
    assert (-625.0, -550.0) == (float(told["PositionX"]), float(told["PositionY"]))


def test_bounds_on_an_edge_between_pixels_cut_off_all_before_it(tmp_path: Path) -> None:
    path = tmp_path / "heat.ome.tiff"
    # Three times 1.1 is a little more than 3.3.
    placement = ome_tiff.Placement(mpp=(0.5, 0.5), bounds=(3.3, 0.0))
    ome_tiff.write_heat(path, Heat(values=np.arange(5.0)[None], scale=(1.1, 1.1), top=1.0), placement)
    assert [[3.0, 4.0]] == tifffile.imread(path).tolist()


def test_what_is_told_has_no_references_to_characters(tmp_path: Path) -> None:
    """Bio-Formats takes the `&` out of such as `&#181;`, fails at the unit that is left, and knows nothing of the file then."""
    path = tmp_path / "mask.ome.tiff"
    labels = LabelMap(classes=("Stroma <β>",), height=2, width=3, edge=16, scale=(1.0, 1.0), block=lambda row, column: None)
    ome_tiff.write_labels(path, labels, ome_tiff.Placement(mpp=(0.5, 0.5), bounds=(0.0, 0.0)))
    assert b"&#" not in path.read_bytes()
    assert "µm" == pixels_of(path)["PositionXUnit"]
    assert "µm".encode() in path.read_bytes()
    assert "Stroma &lt;β&gt;".encode() in path.read_bytes()


def test_a_class_whose_name_has_characters_that_xml_lacks_leaves_the_rest_readable(tmp_path: Path) -> None:
    path = tmp_path / "mask.ome.tiff"
    labels = LabelMap(classes=("a\x01b", "c\x00d\ufffe"), height=2, width=3, edge=16, scale=(1.0, 1.0), block=lambda row, column: None)
    ome_tiff.write_labels(path, labels, ome_tiff.Placement(mpp=(0.5, 0.5), bounds=(0.0, 0.0)))
    assert ("3", "0.5") == (pixels_of(path)["SizeX"], pixels_of(path)["PhysicalSizeX"])
    assert b"0: none; 1: a b; 2: c d " in path.read_bytes()


@pytest.mark.parametrize(("rows", "columns"), [(10, 14), (3, 700)])
def test_a_small_picture_opens_in_libvips(tmp_path: Path, rows: int, columns: int) -> None:
    """It refuses tiles of 512 px for a picture of a few."""
    values = np.random.default_rng(1).random((rows, columns)).astype(np.float32)
    path = tmp_path / "heat.ome.tiff"
    ome_tiff.write_heat(path, Heat(values=values, scale=(1.0, 1.0), top=1.0), ome_tiff.Placement(mpp=(0.5, 0.5), bounds=(0.0, 0.0)))
    assert np.array_equal(values, pyvips.Image.new_from_file(str(path)).numpy())


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    heat = Heat(values=np.random.default_rng(2).random((600, 600)), scale=(1.0, 1.0), top=1.0)
    for name in ("one", "two"):
        ome_tiff.write_heat(tmp_path / name, heat, ome_tiff.Placement(mpp=(0.5, 0.5), bounds=(0.0, 0.0)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
