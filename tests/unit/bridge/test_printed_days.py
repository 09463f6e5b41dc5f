from __future__ import annotations

import pytest

from bridge.rollups.days import iso_day, month_comes_first


@pytest.mark.parametrize(
    ("printed", "day"),
    [
        ("2026-03-05T08:00:00+05:30", "2026-03-05"),
        ("05/03/2026", "2026-03-05"),
        ("05/03/26", "2026-03-05"),
        ("05-03-26", "2026-03-05"),
        ("05.03.2026 08:15", "2026-03-05"),
        ("03/25/2026", "2026-03-25"),
        ("5th March 2026", "2026-03-05"),
        ("March 1st, 2026", "2026-03-01"),
        ("Sept 5, 2026", "2026-09-05"),
        ("5 SEPT 26", "2026-09-05"),
        ("2nd of March", None),
        ("45/03/26", None),
        ("", None),
        (None, None),
    ],
)
def test_a_day_is_read_as_laboratories_print_it(printed: str | None, day: str | None) -> None:
    assert day == iso_day(printed)


@pytest.mark.parametrize(
    ("printed", "days"),
    [
        # One date of the document settles it for all.
        (["03/05/2026", "03/25/2026"], ["2026-03-05", "2026-03-25"]),
        (["03/05/2026", "25/03/2026"], ["2026-05-03", "2026-03-25"]),
        (["03/05/2026", None, "5 Mar 2026"], ["2026-05-03", None, "2026-03-05"]),
        # They contradict each other.
        (["03/05/2026", "25/03/2026", "03/25/2026"], ["2026-05-03", "2026-03-25", "2026-03-25"]),
        # Nothing settles it, even where one would lie ahead: whose day it is depends on where it was printed.
        (["03/11/2026", "04/05/2026"], ["2026-11-03", "2026-05-04"]),
        ([], []),
    ],
)
def test_day_and_month_have_one_order_in_a_document(printed: list[str | None], days: list[str | None]) -> None:
    order = month_comes_first(printed)

    assert days == [iso_day(one, month_first=order) for one in printed]
