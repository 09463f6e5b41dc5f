"""What files tell of their resolution."""

from __future__ import annotations

import pytest

from inference_server.tasks.slides import resolution


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (0.25, 0.25),
        (100.0, 100.0),
        (0.05, 0.05),
        (0.049, None),
        (1e-312, None),
        (0.0, None),
        (-0.5, None),
        (352.8, None),
        (float("nan"), None),
        (None, None),
    ],
)
def test_absurd_values_count_as_none(told: float | None, expected: float | None) -> None:
    assert expected == resolution.sane(told)


def test_one_axis_stands_in_for_the_other() -> None:
    assert (0.5, 0.5) == resolution.sane_pair(0.5, 0.0)


def test_aperio_keys_are_read_with_their_numbers() -> None:
    description = "Aperio Image Library v11\r\n10x10|AppMag = 40|MPP = 0.2520|Left = 25.69"
    assert (0.252, 40.0, None) == tuple(resolution.from_aperio(description, key) for key in ("MPP", "AppMag", "Filtered"))


def test_aperio_numbers_may_have_a_decimal_comma() -> None:
    assert (0.499, 1.001) == tuple(resolution.from_aperio(f"Aperio|MPP = {told}|AppMag = 20", "MPP") for told in ("0,499", "1,001"))


def test_ome_sizes_are_in_micrometres_unless_a_unit_says_otherwise() -> None:
    assert (0.5, 0.25) == resolution.from_ome('<Pixels PhysicalSizeX="0.5" PhysicalSizeY="250" PhysicalSizeYUnit="nm"/>')
    assert (None, None) == resolution.from_ome("<OME/>")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="&#181;m"', 0.5),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="&#xB5;m"', 0.5),
        ("PhysicalSizeX='0.5' PhysicalSizeXUnit='nm'", 0.0005),
        ('PhysicalSizeX="0.00002" PhysicalSizeXUnit="in"', 0.508),
        ('PhysicalSizeX="5000" PhysicalSizeXUnit="Å"', 0.5),
    ],
)
def test_ome_sizes_are_read_however_xml_writes_them(told: str, expected: float) -> None:
    assert pytest.approx(expected) == resolution.from_ome(f"<Pixels {told}/>")[0]


def test_pixels_per_unit_become_micrometres_per_pixel() -> None:
    assert 0.5 == resolution.from_density(20000, 10000.0)
    assert None is resolution.from_density(0, 10000.0)
    assert 10.0 == resolution.from_density(1000, 10000.0)


@pytest.mark.parametrize("dots_per_inch", [72, 96, 150, 300, 600, 1200])
def test_the_density_of_a_printed_page_is_no_resolution(dots_per_inch: int) -> None:
    assert None is resolution.from_density(dots_per_inch, 25400.0)
