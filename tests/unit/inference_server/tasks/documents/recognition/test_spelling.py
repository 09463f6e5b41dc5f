"""Misread letters are mended by what the recogniser also thought of and by the words that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from inference_server.errors import ConfigurationError
from inference_server.tasks.documents.recognition.recogniser import Character
from inference_server.tasks.documents.recognition.spelling import Lexicon, Speller

WORDS = "the 9000\nannual 400\nquestion 300\nfrom 4000\nitem 200\nsummary 150\nteat 1\nanal 1\ntest 500\nby 300\n"
# What the recogniser thought of beside each letter, as in print that was scanned badly.
DOUBTS = {"i": ("l", 0.1), "a": ("s", 0.05), "c": ("e", 0.3), "I": ("F", 0.3), "v": ("y", 0.3), "O": ("0", 0.1), "D": ("0", 0.2)}


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    (tmp_path / "words.txt").write_text(WORDS, "utf-8")
    return Lexicon.read(tmp_path / "words.txt")


def characters_of(text: str, doubts: Mapping[str, tuple[str, float]] = DOUBTS) -> list[Character]:
    """Letters that are sure, but for those of which others are told."""
    return [
        Character(
            text=letter, confidence=0.8 if letter in doubts else 1.0, x=float(index), others=tuple(filter(None, [doubts.get(letter)]))
        )
        for index, letter in enumerate(text)
    ]


def mended(lexicon: Lexicon, text: str, doubts: Mapping[str, tuple[str, float]] = DOUBTS, page: str = "") -> str:
    speller = Speller(lexicon, [characters_of(word, {}) for word in page.split()])
    return "".join(character.text for character in speller.mended(characters_of(text, doubts)))


@pytest.mark.parametrize(
    ("read", "printed"),
    [
        ("annuai", "annual"),
        ("ANNUAi", "ANNUAL"),
        ("Queation", "Question"),
        ("Irom", "From"),
        ("(annuai)", "(annual)"),
        ("annuai/queation", "annual/question"),
    ],
)
def test_a_misread_letter_is_mended_in_the_case_of_its_word(lexicon: Lexicon, read: str, printed: str) -> None:
    assert printed == mended(lexicon, read)


@pytest.mark.parametrize(
    ("read", "letter", "thought", "printed"),
    [
        ("ltem", "l", "I", "Item"),
        ("Ihe", "I", "T", "The"),
        ("Ihe", "I", "t", "the"),
        ("lHE", "l", "t", "THE"),
        ("TIe", "I", "h", "The"),
        ("BI", "I", "y", "By"),
    ],
)
def test_the_first_letter_is_mended_as_it_was_thought_of(lexicon: Lexicon, read: str, letter: str, thought: str, printed: str) -> None:
    assert printed == mended(lexicon, read, {letter: (thought, 0.4)})


def test_two_misread_letters_are_mended_in_a_long_word(lexicon: Lexicon) -> None:
    doubts = {"c": ("e", 0.3), "v": ("u", 0.3)}
    assert ("question", "tvst") == (mended(lexicon, "qvcstion", doubts), mended(lexicon, "tvst", doubts))


def test_a_letter_that_is_none_is_left_out(lexicon: Lexicon) -> None:
    assert "Item" == mended(lexicon, "Itemn", {"n": ("", 0.4)})


def test_a_known_word_stays_though_another_is_more_usual_unless_the_odds_are_high(lexicon: Lexicon) -> None:
    assert ("teat", "test") == (mended(lexicon, "teat"), mended(lexicon, "teat", {"a": ("s", 0.4)}))


def test_a_letter_that_is_sure_stays(lexicon: Lexicon) -> None:
    assert "annuai" == mended(lexicon, "annuai", {})


@pytest.mark.parametrize(("read", "mark"), [("S/N", "/"), ("N.T", "."), ("D'C", "'")])
def test_a_mark_that_may_be_another_letter_is_no_o(tmp_path: Path, read: str, mark: str) -> None:
    (tmp_path / "words.txt").write_text(WORDS + "son 90\nnot 900\ndoc 50\n", "utf-8")
    assert read == mended(Lexicon.read(tmp_path / "words.txt"), read, {mark: ("I", 0.03)})


def test_an_accent_that_is_doubted_is_none(lexicon: Lexicon) -> None:
    doubts = {"é": ("e", 0.2)}
    assert ("the", "thé") == (mended(lexicon, "thé", doubts), mended(lexicon, "thé", {}))


@pytest.mark.parametrize("read", ["IgM", "xi", "kavai", "i2c", "Ätest"])
def test_strange_words_units_and_other_scripts_stay(lexicon: Lexicon, read: str) -> None:
    assert read == mended(lexicon, read)


def test_an_unlikely_letter_needs_a_usual_and_a_long_word(lexicon: Lexicon) -> None:
    doubts = {"i": ("l", 0.012), "o": ("e", 0.012)}
    assert ("annual", "toat") == (mended(lexicon, "annuai", doubts), mended(lexicon, "toat", doubts))


def test_less_is_mended_on_a_page_of_strange_words(lexicon: Lexicon) -> None:
    page = " ".join(["gesundheit", "rechnung", "betrag"] * 10)
    doubts = {"i": ("t", 0.4)}
    assert ("teat", "teai") == (mended(lexicon, "teai", doubts), mended(lexicon, "teai", doubts, page))


@pytest.mark.parametrize(
    ("read", "printed"), [("4D170", "40170"), ("0D0394528768", "000394528768"), ("D1234", "D1234"), ("12O", "12O"), ("A1D4", "A1D4")]
)
def test_a_letter_between_digits_of_a_number_becomes_the_digit(lexicon: Lexicon, read: str, printed: str) -> None:
    assert printed == mended(lexicon, read)


def test_a_mended_letter_is_as_sure_as_the_recogniser_was_of_it(lexicon: Lexicon) -> None:
    characters = Speller(lexicon, []).mended(characters_of("annuai", {"i": ("l", 0.1)}))
    assert [1.0] * 5 + [0.1] == [character.confidence for character in characters]


def test_without_a_list_nothing_is_mended(tmp_path: Path) -> None:
    assert "annuai" == mended(Lexicon.read(tmp_path / "words.txt"), "annuai")


@pytest.mark.parametrize("line", ["annual", "annual many", "annual 0", "two words 3", "7 7"])
def test_a_damaged_list_is_told_by_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "words.txt").write_text(f"the 3\n{line}\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"words\.txt, line 2: .*expected a word of letters, a space and a count"):
        Lexicon.read(tmp_path / "words.txt")


def test_a_mark_within_a_word_is_mended_to_its_letter_and_parts_words_where_it_is_none(lexicon: Lexicon) -> None:
    doubts = {"-": ("u", 0.2)} | DOUBTS
    assert ("question", "annual-question") == (mended(lexicon, "q-estion", doubts), mended(lexicon, "annuai-queation", doubts))


def test_marks_around_words_stay(lexicon: Lexicon) -> None:
    doubts = {":": ("", 0.3), ".": ("s", 0.3)}
    assert ("From:", "item.", "(item)") == tuple(mended(lexicon, read, doubts) for read in ("From:", "item.", "(item)"))


@pytest.mark.parametrize(
    ("before", "after", "is_one"),
    [
        ("quest", "ion", True),
        ("the quest", "ion.", True),
        ("from", "item", False),
        ("annual", "test", False),
        ("an", "al", False),
        ("4", "2", False),
    ],
)
def test_a_space_within_a_known_word_is_none(lexicon: Lexicon, before: str, after: str, is_one: bool) -> None:
    assert is_one == Speller(lexicon, []).is_one(characters_of(before), characters_of(after))


@pytest.mark.parametrize(
    ("read", "space", "after"),
    [
        ("Annual|by:", 0.05, [6]),
        ("Annual|by:", 0.02, []),
        ("Annual|bx:", 0.4, []),
        ("annual|", 0.4, []),
        # Words that are hardly met need a surer space.
        ("Teat|anal:", 0.05, []),
        ("Teat|anal:", 0.9, [4]),
    ],
)
def test_known_words_are_parted_where_a_space_was_thought_of(lexicon: Lexicon, read: str, space: float, after: list[int]) -> None:
    before, _, behind = read.partition("|")
    *some, last = characters_of(before)
    characters = [*some, replace(last, space_after=space), *characters_of(behind)]
    assert after == Speller(lexicon, []).parted(characters, [each.space_after >= 0.01 for each in characters])
