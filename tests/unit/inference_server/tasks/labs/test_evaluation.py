"""Figures of the lab task, against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_server.errors import InvalidInput
from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.categorise import BLOOD_COUNT, DIABETES
from inference_server.tasks.labs.evaluation import Answer, Gold, coverage, expected_calibration_error, figures, read_gold
from inference_server.tasks.labs.matching.match import Candidate
from inference_server.tasks.labs.parsing.normalise import PrintedTest

HEADER = "name,specimen,unit,category,loinc"
GLUCOSE = Entry(code="2345-7", component="Glucose", system="Ser/Plas")
GLUCOSE_MOLES = Entry(code="14749-6", component="Glucose", system="Ser/Plas")
GLUCOSE_URINE = Entry(code="2350-7", component="Glucose", system="Urine")
HEMOGLOBIN = Entry(code="718-7", component="Hemoglobin", system="Bld")
ENTRIES = {entry.code: entry for entry in (GLUCOSE, GLUCOSE_MOLES, GLUCOSE_URINE, HEMOGLOBIN)}


def answer(code: str, *found: Entry, score: float = 0.9, given: str = "", category: str = "") -> Answer:
    candidates = tuple(Candidate(entry=entry, score=score / (place + 1), reasons=()) for place, entry in enumerate(found))
    return Answer(gold=Gold(test=PrintedTest(name="any"), code=code, category=given), candidates=candidates, category=category)


def sure(score: float, *, right: bool) -> Answer:
    return answer("718-7", HEMOGLOBIN if right else GLUCOSE, score=score)


def others(count: int) -> list[Entry]:
    return [Entry(code=f"{number}-0", component="Other") for number in range(count)]


def test_an_exact_code_is_looked_for_among_the_first_1_5_and_20() -> None:
    places = [
        answer("718-7", HEMOGLOBIN),
        answer("718-7", *others(4), HEMOGLOBIN),
        answer("718-7", *others(5), HEMOGLOBIN),
        answer("718-7", *others(19), HEMOGLOBIN),
        answer("718-7", *others(20), HEMOGLOBIN),
        answer("718-7"),
        answer("718-7", GLUCOSE),
        answer("718-7", GLUCOSE, HEMOGLOBIN),
    ]
    found = figures(places, ENTRIES)
    assert (1 / 8, 3 / 8, 5 / 8) == (found.top_1, found.top_5, found.recall_20)


def test_component_and_specimen_count_for_codes_that_the_catalogue_has() -> None:
    answers = [
        answer("2345-7", GLUCOSE),
        answer("2345-7", GLUCOSE_MOLES),
        answer("2345-7", GLUCOSE_URINE),
        answer("2345-7"),
        answer("9999-9", GLUCOSE),
        answer("8888-8", GLUCOSE),
        answer("9999-9"),
    ]
    found = figures(answers, ENTRIES)
    assert (0.5, 7, 3, ("8888-8", "9999-9")) == (
        found.component_and_specimen_top_1,
        found.tests,
        found.tests_without_entry,
        found.codes_without_entry,
    )


def test_the_category_counts_where_it_is_given() -> None:
    answers = [
        answer("2345-7", GLUCOSE, given=DIABETES, category=DIABETES),
        answer("718-7", HEMOGLOBIN, given=BLOOD_COUNT, category=BLOOD_COUNT),
        answer("718-7", HEMOGLOBIN, given=BLOOD_COUNT, category=DIABETES),
        answer("718-7", HEMOGLOBIN, category=DIABETES),
    ]
    assert 2 / 3 == figures(answers, ENTRIES).category_accuracy


def test_what_no_test_tells_is_no_figure() -> None:
    found = figures([answer("9999-9", GLUCOSE)], {})
    assert (None, None) == (found.component_and_specimen_top_1, found.category_accuracy)


def test_calibration_is_the_mean_distance_of_score_and_hits_by_bin() -> None:
    # 0.8 to 0.9: scores 0.85 and 0.9, one of two right: |0.875 - 0.5| * 2 = 0.75. 0.2 to 0.3: |0.25 - 0| * 1. At most 0.1: |0 - 0| * 1.
    answers = [sure(0.85, right=True), sure(0.9, right=False), sure(0.25, right=False), answer("718-7")]
    assert expected_calibration_error(answers) == pytest.approx((0.75 + 0.25 + 0) / 4)


def test_a_score_of_float32_on_a_bound_stays_in_the_lower_bin() -> None:
    # In one bin the two make up for each other; in two they would be 0.3 and 0.75 away from the truth.
    assert expected_calibration_error([sure(0.30000001192092896, right=True), sure(0.25, right=False)]) == pytest.approx((1 - 0.55) / 2)


def test_coverage_goes_on_past_a_mistake_that_later_hits_make_up_for() -> None:
    # The second of 21 is wrong: 20/21 = 0.952 is enough, 19/20 = 0.95 too, 18/19 = 0.947 is not.
    answers = [sure(1 - number / 100, right=number != 1) for number in range(21)]
    assert (1 / 19, 20 / 20, 21 / 21) == tuple(coverage(answers[:count], 0.95) for count in (19, 20, 21))


def test_coverage_takes_equal_scores_together() -> None:
    answers = [sure(0.9, right=True), sure(0.8, right=True), sure(0.8, right=False), sure(0.1, right=False)]
    assert (1 / 4, 1 / 4) == (coverage(answers, 0.95), coverage(answers[::-1], 0.95))


def test_coverage_is_0_when_the_surest_is_wrong() -> None:
    assert coverage([sure(0.9, right=False), sure(0.5, right=True)], 0.95) == 0


def test_a_table_is_read_with_its_empty_cells_and_its_byte_order_mark(tmp_path: Path) -> None:
    table = tmp_path / "tests.csv"
    table.write_text(f'{HEADER},value\n"Glucose, fasting",serum,mg/dL,{DIABETES},1558-6,105\nHb,,,,718-7,\n', encoding="utf-8-sig")
    expected = [
        Gold(test=PrintedTest(name="Glucose, fasting", specimen="serum", unit="mg/dL", value="105"), code="1558-6", category=DIABETES),
        Gold(test=PrintedTest(name="Hb"), code="718-7"),
    ]
    assert expected == read_gold(table)


BAD = {
    "columns are missing": ("name,unit,loinc\nHb,,718-7\n", r"lacks the column\(s\) specimen, category"),
    "there is nothing": ("", r"lacks the column\(s\) name, specimen"),
    "there are no rows": (f"{HEADER}\n", "has no rows"),
    "a name is empty": (f"{HEADER}\n ,,,,718-7\n", "line 2: name is empty"),
    "a code is missing": (f"{HEADER}\nHb,,,,718-7\nHb\n", "line 3: loinc is empty"),
    "a quote is missing": (f'{HEADER}\n"Hb,,,,718-7\n' + "Hb,,,,718-7\n" * 30, "more than 300 characters"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_clearly(tmp_path: Path, case: str) -> None:
    content, message = BAD[case]
    table = tmp_path / "tests.csv"
    table.write_text(content)
    with pytest.raises(InvalidInput, match=message):
        read_gold(table)


def test_a_table_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tests.csv").write_bytes(b"\xff\xfe\x00")
    for name, reason in (("absent.csv", "No such file"), ("tests.csv", "UnicodeDecodeError")):
        with pytest.raises(InvalidInput, match=f"{name} cannot be read .{reason}"):
            read_gold(tmp_path / name)
