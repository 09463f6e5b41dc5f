"""Signs that are drawn alike are told by what stands around them."""

from __future__ import annotations

import pytest

from inference_server.tasks.documents.lookalikes import told_by_context
from inference_server.tasks.documents.recognition import Character


def told(word: str) -> str:
    return "".join(each.text for each in told_by_context([Character(text=letter, confidence=1.0, x=0.0) for letter in word]))


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("P.0.", "P.O."),
        ("F.0.B.", "F.O.B."),
        ("0.K.", "O.K."),
        ("0kafor", "Okafor"),
        ("S302.59", "$302.59"),
        ("S49,622.00", "$49,622.00"),
        ("RMO.23", "RM0.23"),
        ("$o.50", "$0.50"),
        ("Il", "II"),
        ("IIl", "III"),
        ("(lI)", "(II)"),
    ],
)
def test_a_sign_is_what_its_word_asks_for(read: str, expected: str) -> None:
    assert expected == told(read)


@pytest.mark.parametrize(
    "word",
    [
        "A.0.5",
        "0.5",
        "1.0.",
        "0x1f",
        "S302",
        "S12.5",
        "US302.59",
        "NO.53",
        "CO.00",
        "RMO",
        "100%",
        "0%",
        "0.6%",
        "06%",
        "0mmol",
        "0days",
        "06",
        "Ill",
        "ill",
        "l",
        "I.",
        "All",
    ],
)
def test_what_may_be_as_it_was_read_stays(word: str) -> None:
    assert word == told(word)
