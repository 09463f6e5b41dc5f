"""Characters to words with places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from inference_server.tasks.documents.recognition.recogniser import Character, Crop
from inference_server.tasks.documents.recognition.signs import latin_signs
from inference_server.tasks.documents.recognition.spelling import Lexicon, Speller
from inference_server.tasks.documents.recognition.words import words_of

PITCH = 24
# Knows no word.
SPELLER = Speller(Lexicon(likelihood={}), [])


def crop_of(text: str, pitch: int = PITCH) -> Crop:
    """A line in which each visible character is a block that leaves a sixth of its cell free on both sides."""
    image = np.full((48, pitch * len(text), 3), 255, np.uint8)
    for index, letter in enumerate(text):
        if letter != " ":
            image[12:36, index * pitch + pitch // 6 : (index + 1) * pitch - pitch // 6] = 0
    return Crop(image=image, to_page=np.eye(3))


def characters_of(text: str, pitch: int = PITCH) -> list[Character]:
    return [Character(text=letter, confidence=0.5 + index / 100, x=(index + 0.5) * pitch) for index, letter in enumerate(text)]


def test_words_end_where_the_ink_ends() -> None:
    words = words_of(characters_of("ab cde"), crop_of("ab cde"), SPELLER)
    assert ["ab", "cde"] == [word.text for word in words]
    assert [(4, 44), (76, 140)] == [(word.polygon[0][0], word.polygon[1][0]) for word in words]
    assert [(0, 48)] * 2 == [(word.polygon[0][1], word.polygon[2][1]) for word in words]


def test_a_word_has_the_mean_confidence_of_its_characters() -> None:
    words = words_of(characters_of("ab cde"), crop_of("ab cde"), SPELLER)
    assert [0.505, 0.54] == pytest.approx([word.confidence for word in words])


def test_a_space_that_was_missed_is_found_by_its_width() -> None:
    read = [character for character in characters_of("abc def") if character.text != " "]
    assert ["abc", "def"] == [word.text for word in words_of(read, crop_of("abc def"), SPELLER)]


@pytest.mark.parametrize(("space_after", "words"), [(0.001, ["tablecloth"]), (0.05, ["tab", "lecloth"])])
def test_a_pale_letter_is_no_gap_unless_a_space_was_thought_of(space_after: float, words: list[str]) -> None:
    read, crop = spaced_line("tablecloth", [4, 4, 8, *[4] * 6], space_after)
    crop.image[:, int(read[3].x) - 8 : int(read[3].x) + 8][12:36] = 215
    assert words == [word.text for word in words_of(read, crop, SPELLER)]


@pytest.mark.parametrize(("letters", "aside"), [("ab:cd", 16), ("abIcd", 12)])
def test_what_is_told_beside_its_ink_is_not_pale(letters: str, aside: int) -> None:
    read, crop = spaced_line(letters, [4, 4, 30, 4])
    read[2] = replace(read[2], x=read[2].x + aside)
    assert [letters[:3], letters[3:]] == [word.text for word in words_of(read, crop, SPELLER)]


def spaced_line(letters: str, gaps: Sequence[int], space_after: float = 0.0) -> tuple[list[Character], Crop]:
    """Blocks 16 pixels wide and 24 high, so many pixels apart, each read as a letter; no space was read."""
    lefts = [8 + 16 * index + sum(gaps[:index]) for index in range(len(letters))]
    image = np.full((48, lefts[-1] + 24, 3), 255, np.uint8)
    for left in lefts:
        image[12:36, left : left + 16] = 0
    characters = [
        Character(text=letter, confidence=0.9, x=left + 8, space_after=space_after) for letter, left in zip(letters, lefts, strict=True)
    ]
    return characters, Crop(image=image, to_page=np.eye(3))


@pytest.mark.parametrize(
    ("letters", "gaps", "space_after", "words"),
    [
        # Two cells of a table that were seen as one line, and a mark beside its choice.
        ("3D", [30], 0.0, ["3", "D"]),
        ("3Urgent", [30, 3, 3, 3, 3, 3], 0.0, ["3", "Urgent"]),
        # A heading whose letters are set apart.
        ("FAXDATA", [12, 13, 28, 12, 11, 12], 0.0, ["FAX", "DATA"]),
        # As wide as a letter is high, where letters stand far from each other.
        ("ABCDEF", [8, 8, 22, 8, 8], 0.0, ["ABC", "DEF"]),
        # A number before its unit, and a word that begins with a capital.
        ("12Rail", [3, 10, 3, 3, 3], 0.0, ["12", "Rail"]),
        ("ZipCode", [3, 3, 7, 3, 3, 3], 0.08, ["Zip", "Code"]),
        # Typewriters set digits wide, and names have capitals within.
        ("9520", [3, 8, 3], 0.3, ["9520"]),
        ("McAllister", [3, 6, 3, 3, 3, 3, 3, 3, 3], 0.0, ["McAllister"]),
        ("A4", [9], 0.0, ["A4"]),
    ],
)
def test_a_gap_is_a_space_where_it_is_wide_for_its_line(letters: str, gaps: list[int], space_after: float, words: list[str]) -> None:
    assert words == [word.text for word in words_of(*spaced_line(letters, gaps, space_after), SPELLER)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("NE1 0LD", ["NE1", "0LD"]),
        ("VERY 0LD", ["VERY", "OLD"]),
        ("Il paziente", ["Il", "paziente"]),
        ("Type Il", ["Type", "II"]),
        ("ICD-10: O80, 042", ["ICD-10:", "O80,", "O42"]),
    ],
)
def test_signs_that_are_drawn_alike_are_told_by_the_words_beside_theirs(line: str, words: list[str]) -> None:
    speller = Speller(Lexicon(likelihood={"old": -5.0}), [])
    characters = [replace(character, others=(("O", 0.1),) if character.text == "0" else ()) for character in characters_of(line)]
    assert words == [word.text for word in words_of(characters, crop_of(line), speller)]


@pytest.mark.parametrize("rows", [slice(37, 40), slice(7, 10)])
def test_a_rule_through_the_gaps_of_a_line_hides_no_space(rows: slice) -> None:
    crop = crop_of("abc def")
    crop.image[rows] = 0
    read = [character for character in characters_of("abc def") if character.text != " "]
    words = words_of(read, crop, SPELLER)
    assert ["abc", "def"] == [word.text for word in words]
    assert [(4, 68), (100, 164)] == [(word.polygon[0][0], word.polygon[1][0]) for word in words]


@pytest.mark.parametrize("text", ["abcdefghij ________ ijklmn", "____________ abcdefgh", "abcdefgh ____________"])
def test_a_rule_that_is_read_as_signs_is_one_word(text: str) -> None:
    """As of a blank to fill in."""
    crop = crop_of(text.replace("_", " "))
    crop.image[37:40, text.index("_") * PITCH : (text.rindex("_") + 1) * PITCH] = 0
    read = [character for character in characters_of(text) if character.text != " "]
    assert text.split() == [word.text for word in words_of(read, crop, SPELLER)]


def test_letters_on_a_dark_ground_are_not_taken_for_a_rule() -> None:
    crop = crop_of("abcdef")
    crop.image[8:40] = 255 - crop.image[8:40]
    assert ["abcdef"] == [word.text for word in words_of(characters_of("abcdef"), crop, SPELLER)]


@pytest.mark.parametrize(("margins", "shifts"), [((0, 40), (0, 0, 0, 0, 0, 36)), ((40, 0), (-36, 0, 0, 0, 0, 0))])
def test_the_margin_of_a_line_parts_no_letter_from_its_word(margins: tuple[int, int], shifts: tuple[int, ...]) -> None:
    """The recogniser tells the first or the last letter beside its ink."""
    image = np.pad(crop_of("abcdef").image, ((0, 0), margins, (0, 0)), constant_values=255)
    characters = [
        Character(text=letter, confidence=1.0, x=margins[0] + (index + 0.5) * PITCH + shift)
        for index, (letter, shift) in enumerate(zip("abcdef", shifts, strict=True))
    ]
    assert ["abcdef"] == [word.text for word in words_of(characters, Crop(image=image, to_page=np.eye(3)), SPELLER)]


@pytest.mark.parametrize(("drawn", "read"), [("ab .", "ab."), ("( ab", "(ab"), ("10 %", "10%")])
def test_no_space_is_put_before_closing_and_after_opening_marks(drawn: str, read: str) -> None:
    characters = [character for character in characters_of(drawn) if character.text != " "]
    assert [read] == [word.text for word in words_of(characters, crop_of(drawn), SPELLER)]


def test_scripts_without_spaces_get_none() -> None:
    characters = [character for character in characters_of("血 糖 値") if character.text != " "]
    assert ["血糖値"] == [word.text for word in words_of(characters, crop_of("血 糖 値"), SPELLER)]


@pytest.mark.parametrize(("read", "words"), [("36.7℃", ["36.7°C"]), ("37℃ ok", ["37°C", "ok"]), ("2℃-8℃", ["2°C-8°C"])])
def test_degrees_stay_with_their_number(read: str, words: list[str]) -> None:
    assert words == [word.text for word in words_of(latin_signs(characters_of(read)), crop_of(read), SPELLER)]


def test_evenly_spaced_letters_stay_one_word() -> None:
    characters = [Character(text=letter, confidence=1, x=(2 * index + 0.5) * PITCH) for index, letter in enumerate("TOTAL")]
    assert ["TOTAL"] == [word.text for word in words_of(characters, crop_of("T O T A L"), SPELLER)]


def test_white_text_on_black_is_parted_as_well() -> None:
    crop = crop_of("ab cde")
    inverted = Crop(image=255 - crop.image, to_page=crop.to_page)
    assert [(4, 44), (76, 140)] == [
        (word.polygon[0][0], word.polygon[1][0]) for word in words_of(characters_of("ab cde"), inverted, SPELLER)
    ]


def test_only_spaces_are_no_words() -> None:
    assert [] == words_of(characters_of("  "), crop_of("  "), SPELLER)


@pytest.mark.parametrize(
    ("letters", "extra", "likely", "expected"),
    [
        ("abcdef", 6, 0.3, ["abc", "def"]),
        ("abcdef", 6, 0.05, ["abcdef"]),
        ("abcdef", 0, 0.3, ["abcdef"]),
        ("70-100", 6, 0.3, ["70-", "100"]),
        ("12,750", 6, 0.3, ["12,750"]),
    ],
)
def test_a_space_that_was_thought_of_is_one_where_the_gap_is_wider_than_usual(
    letters: str, extra: int, likely: float, expected: list[str]
) -> None:
    crop = crop_of(letters)
    image = np.insert(crop.image, [3 * PITCH] * extra, 255, axis=1)
    characters = [
        Character(text=letter, confidence=1, x=(index + 0.5) * PITCH + extra * (index >= 3), space_after=likely if index == 2 else 0.0)
        for index, letter in enumerate(letters)
    ]
    assert expected == [word.text for word in words_of(characters, Crop(image=image, to_page=np.eye(3)), SPELLER)]


def tight_line(text: str, space: int) -> tuple[list[Character], Crop]:
    """Letters 16 pixels wide and 4 apart, words `space` pixels apart; what is read of it, without spaces."""
    image, x, read = np.full((48, 24 * len(text), 3), 255, np.uint8), 8, []
    for letter in text:
        if letter == " ":
            x += space - 4
            continue
        image[12:36, x : x + 16] = 0
        read.append(Character(text=letter, confidence=1.0, x=x + 8.0))
        x += 20
    return read, Crop(image=image[:, :x], to_page=np.eye(3))


@pytest.mark.parametrize(
    ("printed", "space", "words"),
    [
        ("annual report", 6, ["annual", "report"]),
        # No wider than any gap between letters: a compound, not two words.
        ("annual report", 4, ["annualreport"]),
        # Not all of it is known, and what is known as a whole stays whole.
        ("annual xqzt", 6, ["annualxqzt"]),
        ("air port", 6, ["airport"]),
    ],
)
def test_known_words_are_parted_where_a_narrow_gap_parts_them(printed: str, space: int, words: list[str]) -> None:
    speller = Speller(Lexicon(likelihood={"annual": -8.0, "report": -8.0, "air": -8.0, "port": -8.0, "airport": -9.0}), [])
    assert words == [word.text for word in words_of(*tight_line(printed, space), speller)]


def test_a_word_that_was_mended_tells_what_was_read() -> None:
    characters = characters_of("annual involce")
    at = 7 + "involce".index("l")
    characters[at] = Character(text="l", confidence=0.6, x=characters[at].x, others=(("i", 0.3),))
    speller = Speller(Lexicon(likelihood={"annual": -8.0, "invoice": -8.0}), [])
    words = words_of(characters, crop_of("annual involce"), speller)
    assert [("annual", ""), ("invoice", "involce")] == [(word.text, word.read_text) for word in words]
