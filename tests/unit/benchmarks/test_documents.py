"""The benchmark of documents: a bar that was not measured is not met."""

from __future__ import annotations

from benchmarks.documents import speed_rows
from benchmarks.support.documents.readers import Programs, Times


def times(seconds: float) -> Times:
    return Times(page=[seconds] * 3, processor=[seconds] * 3, alone=[seconds] * 3)


def verdicts(programs: Programs, *, without_tesseract: bool = False) -> list[str]:
    rows = speed_rows(programs, without_tesseract=without_tesseract)
    return [f"{row.bar}: {row.verdict}{'' if row.is_met else ', and the check fails'}" for row in rows if row.bar]


def test_bars_are_told_by_the_medians_of_the_turns() -> None:
    programs = Programs(ours=times(0.5), rapidocr=times(2.5), tesseract=times(0.4))
    assert ["at least 4: met", "at most 0.5: met", "at least 1: MISSED, and the check fails"] == verdicts(programs)


def test_each_turn_is_held_against_its_own() -> None:
    """As pages differ, and the machine's speed does between turns: 5, 3.5 and 4.5 times. By the medians, 0.2 and 1.0 s, it would be 5."""
    ours = Times(page=[0.2, 1.0, 0.1], processor=[1.0], alone=[1.0])
    rapidocr = Times(page=[1.0, 3.5, 0.45], processor=[1.0], alone=[1.0])
    row = speed_rows(Programs(ours=ours, rapidocr=rapidocr), without_tesseract=True)[0]
    assert ("4.50 times (3.50 to 5.00)", True) == (row.figure, row.is_met)


def test_without_tesseract_its_bar_is_not_measured_and_not_met() -> None:
    programs = Programs(ours=times(0.5), rapidocr=times(2.5))
    assert "at least 1: not measured, and the check fails" == verdicts(programs)[-1]


def test_one_may_say_that_it_is_done_without_tesseract() -> None:
    programs = Programs(ours=times(0.5), rapidocr=times(2.5))
    assert ["at least 4: met", "at most 0.5: met"] == verdicts(programs, without_tesseract=True)
