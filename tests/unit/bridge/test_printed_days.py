from __future__ import annotations

from datetime import date

import pytest

from bridge.rollups.days import PrintedDays

KNOWN_ON = date(2026, 11, 20)


@pytest.mark.parametrize(
    ("printed", "day"),
    [
        ("2026-03-05T08:00:00+05:30", "2026-03-05"),
        ("05/03/2026", "2026-03-05"),
        ("05/03/26", "2026-03-05"),
        ("05-03-26", "2026-03-05"),
        ("05.03.2026 08:15", "2026-03-05"),
        ("03/25/2026", "2026-03-25"),
        ("26/03/05", "2026-03-05"),
        ("26.3.5", "2026-03-05"),
        ("26/03/2005", "2005-03-26"),
        ("2026/03/05", "2026-03-05"),
        ("5th March 2026", "2026-03-05"),
        ("March 1st, 2026", "2026-03-01"),
        ("Sept 5, 2026", "2026-09-05"),
        ("5 SEPT 26", "2026-09-05"),
        ("26/11/21", "2021-11-26"),
        ("2nd of March", None),
        ("45/03/26", None),
        ("", None),
        (None, None),
    ],
)
def test_a_day_is_read_as_laboratories_print_it(printed: str | None, day: str | None) -> None:
    assert day == PrintedDays([printed], known_on=KNOWN_ON).iso(printed)


@pytest.mark.parametrize(
    ("printed", "days"),
    [
        # One date of the document settles it for all.
        (["03/05/2026", "03/25/2026"], ["2026-03-05", "2026-03-25"]),
        (["03/05/2026", "25/03/2026"], ["2026-05-03", "2026-03-25"]),
        (["03/05/2026", None, "5 Mar 2026"], ["2026-05-03", None, "2026-03-05"]),
        (["20/03/21", "26/03/31"], ["2020-03-21", "2026-03-31"]),
        (["26/03/05", "01/02/2010"], ["2005-03-26", "2010-02-01"]),
        # One that was misread makes no days of long ago of the others.
        (["90/03/26", "05/03/26"], [None, "2026-03-05"]),
        # They contradict each other.
        (["03/05/2026", "25/03/2026", "03/25/2026"], ["2026-05-03", "2026-03-25", "2026-03-25"]),
        # With the day first one would lie ahead.
        (["03/12/2026", "04/05/2026"], ["2026-03-12", "2026-04-05"]),
        # Whatever the order, one lies ahead, as where clocks differ.
        (["03/12/2026", "12/03/2026"], ["2026-12-03", "2026-03-12"]),
        ([], []),
    ],
)
def test_day_month_and_year_have_one_order_in_a_document(printed: list[str | None], days: list[str | None]) -> None:
    order = PrintedDays(printed, known_on=KNOWN_ON)

    assert days == [order.iso(one) for one in printed]


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (["05/03/26", "2026-03-06"], {"05/03/26": ["2026-03-05", "2026-05-03"]}),
        (["20/03/21"], {"20/03/21": ["2021-03-20", "2020-03-21"]}),
        (["05/03/26", "25/03/26"], {}),
        (["26/03/05", "05/05/26"], {"26/03/05": ["2005-03-26", "2026-03-05"], "05/05/26": ["2026-05-05", "2005-05-26"]}),
        # Taken for their age alone.
        (["26/03/05", "5 Mar 2026"], {"26/03/05": ["2026-03-05", "2005-03-26"]}),
        (["24/12/13"], {"24/12/13": ["2024-12-13", "2013-12-24"]}),
        (["05/05/26"], {}),
    ],
)
def test_dates_of_which_nothing_tells_the_right_reading_are_told(printed: list[str], told: dict[str, list[str]]) -> None:
    assert told == PrintedDays(printed, known_on=KNOWN_ON).ambiguous
