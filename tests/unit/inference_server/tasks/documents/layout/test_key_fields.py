"""Labels and their values."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.layout.key_fields import key_fields
from inference_server.tasks.documents.values import Line
from tests.support.documents.read_pages import line


def told(*lines: Line) -> list[tuple[str, str]]:
    return [(field.label, field.value) for field in key_fields(lines)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["Nama:", "Siti", "Rahayu"], [("Nama", "Siti Rahayu")]),
        (["Nama", ":", "Siti"], [("Nama", "Siti")]),
        (["Nama", ":Siti"], [("Nama", "Siti")]),
        (["NIK:3273010203850001"], [("NIK", "3273010203850001")]),
        (["Jenis", "Kelamin", ":", "LAKI-LAKI"], [("Jenis Kelamin", "LAKI-LAKI")]),
        (["Jam:", "10:30"], [("Jam", "10:30")]),
        (["Umur:", "40", "Ruang:", "B"], [("Umur", "40"), ("Ruang", "B")]),
        (["Catatan:"], []),
        (["10:30", "masuk"], []),
        (["https://example.org/a"], []),
        (["no", "colon", "here"], []),
        ([*(["so", "many", "words", "are", "no", "label", "but", "a", "sentence", "and", "so", "it", "goes", "on"]), "that:", "x"], []),
    ],
)
def test_pairs_are_told_by_their_colon(words: list[str], expected: list[tuple[str, str]]) -> None:
    assert expected == told(line(words))


def apart(left: Line, right: Line) -> Line:
    """Two fragments of one line."""
    return Line(text=f"{left.text} {right.text}", confidence=0.9, polygon=left.polygon, words=(*left.words, *right.words))


def test_pairs_side_by_side_are_parted_where_the_gap_is_widest() -> None:
    row = apart(line(["Nama", "Pasien:", "Siti", "Rahayu"]), line(["Tanggal", "Lahir:", "1", "Mei"], x=400))
    assert [("Nama Pasien", "Siti Rahayu"), ("Tanggal Lahir", "1 Mei")] == told(row)


def test_what_stands_far_before_a_label_is_no_part_of_it() -> None:
    assert [("Total", "12.00")] == told(apart(line(["2", "x", "6.00"]), line(["Total:", "12.00"], x=400)))


def test_the_value_has_its_place_and_confidence() -> None:
    (field,) = key_fields([line(["Nama:", "Siti", "Rahayu"])])
    assert 0.9 == pytest.approx(field.confidence)
    assert [[70, 30], [180, 30], [180, 50], [70, 50]] == field.polygon.tolist()
    (glued,) = key_fields([line(["NIK:3273"])])
    assert np.allclose([[50, 30], [90, 30], [90, 50], [50, 50]], glued.polygon)
