"""Which images OME-XML tells of."""

from __future__ import annotations

import time

import pytest

from inference_server.tasks.slides.readers import ome


def image(width: int, data: str, *, told: str = "") -> str:
    pixels = f'<Pixels ID="Pixels:0" SizeX="{width}" SizeY="{width // 2}" SizeC="3" {told}>'
    return f'<Image ID="Image:0" Name="a &gt; b">{pixels}<Channel ID="Channel:0"/>{data}</Pixels></Image>'


def file(*images: str, uuid: str = "urn:uuid:here") -> str:
    return f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">{"".join(images)}</OME>'


def data(directory: int, *, uuid: str = "", name: str = "", first: str = "") -> str:
    told = f'<UUID FileName="{name}">{uuid}</UUID>' if uuid else ""
    return f'<TiffData IFD="{directory}" {first} PlaneCount="1">{told}</TiffData>'


def found(*images: str, name: str = "slide.ome.tif") -> list[tuple[int, int]]:
    return [(each.width, each.directory) for each in ome.images_of(file(*images), name)]


def test_each_image_lies_where_its_first_plane_does() -> None:
    planes = data(5, first='FirstZ="1"') + data(4, first='FirstZ="0"')
    assert [(400, 0), (1000, 4), (300, 0)] == found(image(400, "<TiffData/>"), image(1000, planes), image(300, ""))


def test_images_of_other_files_are_none_of_this_one() -> None:
    here, there = data(1, uuid="urn:uuid:here", name="as it was named once"), data(2, uuid="urn:uuid:there", name="other.ome.tif")
    assert [(400, 1)] == found(image(400, here), image(1000, there))
    # The same file, by its name.
    assert [(1000, 2)] == found(image(1000, there), name="other.ome.tif")


def test_prefixes_and_either_quotes_are_xml_too() -> None:
    text = "<ome:OME><ome:Image><ome:Pixels SizeX = '70' SizeY='50' SizeC='3'><ome:TiffData IFD='2'/></ome:Pixels></ome:Image></ome:OME>"
    (only,) = ome.images_of(text, "a")
    assert (70, 50, 2, 3) == (only.width, only.height, only.directory, ome.channels(only.pixels))


def test_what_is_no_ome_xml_tells_of_none() -> None:
    for text in ("", "Aperio Image Library", '<Pixels SizeX="5"/>', "<OME", "<OME/>"):
        assert [] == ome.images_of(text, "a")
        assert "" == ome.image_told(text, "a", (5, 5)).pixels


def test_the_largest_image_that_is_as_large_as_told_is_the_slide() -> None:
    images = ome.images_of(file(image(400, data(0)), image(1000, data(1)), image(2000, data(7))), "a")
    largest = ome.slide_of(images, [(400, 200), (1000, 500)])
    assert largest is not None
    assert 1 == largest.directory
    # As where a tool changed the pixels and not what is told.
    assert None is ome.slide_of(images, [(123, 456), (7, 8)])


def test_the_first_image_speaks_for_one_of_another_size() -> None:
    text = file(image(400, data(0), told='PhysicalSizeX="0.5"'), image(1000, data(1)))
    assert 'PhysicalSizeX="0.5"' in ome.image_told(text, "a", (399, 200)).pixels
    assert "PhysicalSizeX" not in ome.image_told(text, "a", (1000, 500)).pixels


@pytest.mark.parametrize("part", ["<Pixels ", '<Pixels a="', "<Pixels/><TiffData ", "<Pixels/><TiffData><UUID ", "<OME "])
def test_text_that_is_made_to_take_long_takes_no_longer_than_it_is(part: str) -> None:
    def seconds(count: int) -> float:
        text = "<OME>" + part * count
        started = time.process_time()
        ome.images_of(text, "a")
        return time.process_time() - started

    # Whose time grew with the square would take sixty-four times as long.
    short, long = (min(seconds(count) for _ in range(5)) for count in (4_000, 32_000))
    assert long < 24 * short


def test_numbers_that_are_too_long_for_one_are_not_told() -> None:
    digits = "9" * 5_000
    text = f'<OME><Image><Pixels SizeX="{digits}" SizeY="50" SizeC="{digits}"><TiffData IFD="1"/></Pixels></Image></OME>'
    (only,) = ome.images_of(text, "a")
    assert (0, 50, 0) == (only.width, only.height, ome.channels(only.pixels))
