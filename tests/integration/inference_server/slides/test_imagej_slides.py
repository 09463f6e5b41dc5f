"""Pictures that ImageJ and its like save: their resolution, and their stacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from inference_server.errors import InvalidSlide
from tests.support.slides.opened_slides import facts_of

PICTURE = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
STACK = np.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]])
Mpp = tuple[float | None, float | None]
NONE = (None, None)


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [
        ("um", (4, 2), (0.25, 0.5)),
        ("micron", (4, 4), (0.25, 0.25)),
        ("microns", (4, 4), (0.25, 0.25)),
        (r"\u00B5m", (4, 4), (0.25, 0.25)),
        ("nm", (0.00390625, 0.00390625), (0.256, 0.256)),
        ("mm", (4000, 4000), (0.25, 0.25)),
        ("pixel", (4, 4), NONE),
        ("", (4, 4), NONE),
        ("furlong", (4, 4), NONE),
    ],
)
async def test_the_unit_of_imagejs_description_counts(tmp_path: Path, unit: str, per_unit: tuple[float, float], mpp: Mpp) -> None:
    path = tmp_path / "picture.tif"
    tifffile.imwrite(path, PICTURE, imagej=True, resolution=per_unit, metadata={"unit": unit})
    facts = await facts_of(path)
    assert mpp == (pytest.approx(facts.mpp_x), pytest.approx(facts.mpp_y))


@pytest.mark.parametrize(
    ("told", "resolution_unit", "per_unit", "mpp"),
    [
        ("unit=\\u00B5m\nyunit=mm", 1, (4, 4000), (0.25, 0.25)),
        # What ImageJ 1.53t makes of them: the tags count where they are by the centimetre and the text is in um, and only then.
        ("unit=um", 3, (4000, 4000), (2.5, 2.5)),
        ("unit=micron", 3, (4000, 4000), NONE),
        ("unit=um", 2, (4000, 4000), NONE),
        ("unit=cm", 3, (40000, 40000), (0.25, 0.25)),
        ("unit=inch", 2, (101600, 101600), (0.25, 0.25)),
        ("unit=inch", 2, (300, 300), NONE),
    ],
)
@pytest.mark.parametrize("stored", [{}, {"tile": (256, 256)}], ids=["strips", "tiles"])
async def test_tags_and_description_are_taken_as_imagej_takes_them(
    tmp_path: Path, told: str, resolution_unit: int, per_unit: tuple[int, int], mpp: Mpp, stored: dict[str, tuple[int, int]]
) -> None:
    path = tmp_path / "picture.tif"
    tags = {"resolution": per_unit, "resolutionunit": resolution_unit, "description": f"ImageJ=1.53t\n{told}\n"}
    tifffile.imwrite(path, PICTURE, photometric="rgb", metadata=None, **tags, **stored)
    facts = await facts_of(path)
    assert mpp == (pytest.approx(facts.mpp_x), pytest.approx(facts.mpp_y))


async def test_an_image_without_tiles_has_the_resolution_that_ome_tells(tmp_path: Path) -> None:
    path = tmp_path / "picture.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(path, PICTURE, photometric="rgb", metadata=metadata)
    facts = await facts_of(path)
    assert ("image", 0.25, 0.5) == (facts.reader, facts.mpp_x, facts.mpp_y)


@pytest.mark.parametrize(("axes", "said"), [("ZYXS", "3 planes of focus"), ("TYXS", "3 points in time")])
@pytest.mark.parametrize("grey", [False, True])
async def test_a_stack_of_imagej_is_not_taken_for_its_first_plane(tmp_path: Path, axes: str, said: str, grey: bool) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, STACK[..., 0] if grey else STACK, imagej=True, metadata={"axes": axes[:3] if grey else axes, "unit": "um"})
    with pytest.raises(InvalidSlide, match=rf"stack.tif is a stack of {said}; a slide is one image. Save the one"):
        await facts_of(path)


@pytest.mark.parametrize("stored", [{}, {"tile": (256, 256)}], ids=["strips", "tiles"])
async def test_a_stack_is_not_taken_for_its_first_plane_whoever_wrote_it(tmp_path: Path, stored: dict[str, tuple[int, int]]) -> None:
    tifffile.imwrite(tmp_path / "pages.tif", STACK, photometric="rgb", **stored)
    with pytest.raises(InvalidSlide, match="is a stack of 3 images of one size"):
        await facts_of(tmp_path / "pages.tif")
    tifffile.imwrite(tmp_path / "focus.ome.tif", STACK, photometric="rgb", metadata={"axes": "ZYXS"}, **stored)
    with pytest.raises(InvalidSlide, match="is a stack of 3 planes of focus"):
        await facts_of(tmp_path / "focus.ome.tif")


@pytest.mark.parametrize("stored", [{}, {"tile": (256, 256)}], ids=["strips", "tiles"])
async def test_two_images_of_ome_that_are_as_large_are_no_stack(tmp_path: Path, stored: dict[str, tuple[int, int]]) -> None:
    path = tmp_path / "scenes.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for each in (PICTURE, PICTURE[::-1]):
            file.write(each, photometric="rgb", **stored)
    assert (400, 300) == ((facts := await facts_of(path)).width, facts.height)


async def test_a_line_of_spaces_after_a_unit_is_passed_over_in_no_time(tmp_path: Path) -> None:
    """An expression that tries every place at which it may end takes minutes of it, and holds up all else: the test would not end."""
    path = tmp_path / "picture.tif"
    description = "ImageJ=1.53t\nunit=um" + " " * 200_000 + "x\nunit=micron   \n"
    tags = {"resolution": (4, 4), "resolutionunit": 1, "description": description}
    tifffile.imwrite(path, PICTURE, photometric="rgb", metadata=None, tile=(256, 256), **tags)
    assert 0.25 == (await facts_of(path)).mpp_x


@pytest.mark.parametrize("stored", [{}, {"tile": (256, 256)}], ids=["strips", "tiles"])
async def test_a_plane_of_ome_that_is_a_file_of_its_own_is_no_stack(tmp_path: Path, stored: dict[str, tuple[int, int]]) -> None:
    """As the refusal of a stack asks for it; each of such files tells of all planes."""
    path, places = tmp_path / "plane1.ome.tif", ""
    for number in range(3):
        places += f'<TiffData FirstZ="{number}" IFD="0"><UUID FileName="plane{number}.ome.tif">urn:uuid:{number}</UUID></TiffData>'
    pixels = f'<Pixels SizeX="400" SizeY="300" SizeZ="3" SizeC="3" SizeT="1" PhysicalSizeX="0.5">{places}</Pixels>'
    description = f'<?xml version="1.0"?><OME UUID="urn:uuid:1"><Image>{pixels}</Image></OME>'
    tifffile.imwrite(path, PICTURE, photometric="rgb", metadata=None, description=description, **stored)
    assert (400, 0.5) == ((facts := await facts_of(path)).width, facts.mpp_x)


async def test_a_thumbnail_that_is_as_large_as_a_small_slide_makes_no_stack_of_it(tmp_path: Path) -> None:
    path = tmp_path / "small.svs"
    with tifffile.TiffWriter(path) as file:
        file.write(PICTURE, photometric="rgb", metadata=None, tile=(256, 256), description="Aperio Image\r\n400x300 |MPP = 0.5")
        file.write(PICTURE[::-1], photometric="rgb", metadata=None, description="Aperio Image\r\n400x300 -> 400x300 - ")
    assert ("tiff", 1, 0.5) == ((facts := await facts_of(path)).reader, len(facts.levels), facts.mpp_x)


@pytest.mark.parametrize("stored", [{}, {"tile": (256, 256)}], ids=["strips", "tiles"])
@pytest.mark.parametrize("kind", [4, 8])
async def test_what_is_told_to_be_a_mask_or_a_macro_image_makes_no_stack(
    tmp_path: Path, stored: dict[str, tuple[int, int]], kind: int
) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        for each in (PICTURE, PICTURE[::-1]):
            file.write(each, photometric="rgb", metadata=None, subfiletype=2, **stored)
    with tifffile.TiffFile(path, mode="r+b") as written:
        written.pages[1].tags["NewSubfileType"].overwrite(kind)
    assert 400 == (await facts_of(path)).width
