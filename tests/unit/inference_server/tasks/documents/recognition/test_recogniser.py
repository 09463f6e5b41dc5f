"""Crops, width buckets and decoding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from inference_server.tasks.documents.recognition.recogniser import (
    LINE_HEIGHT,
    Character,
    Crop,
    Piece,
    RecognitionSettings,
    batches_of,
    bucket_width,
    crops_of,
    decode,
    pieces_of,
    recognizer_input,
)
from inference_server.tasks.documents.recognition.steps import likeliest

SETTINGS = RecognitionSettings()
CHARACTERS = ("", "a", "b", "c", " ")


def quad(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def likelihood(classes: list[int], confidence: float = 0.9) -> np.ndarray:
    answer = np.zeros((len(classes), len(CHARACTERS)), np.float32)
    answer[np.arange(len(classes)), classes] = confidence
    return answer


def read(likelihood: np.ndarray, characters: tuple[str, ...], width: int) -> list[Character]:
    """What stands in one line."""
    (line,) = decode(likeliest(likelihood[None]), characters, width)
    return line


def test_a_crop_has_a_height_of_48_and_keeps_its_proportions() -> None:
    (crop,) = crops_of(np.zeros((200, 400, 3), np.uint8), quad(10, 20, 310, 44))
    assert (48, 600, 3) == crop.image.shape


def test_places_of_a_crop_are_taken_back_to_the_page() -> None:
    (crop,) = crops_of(np.zeros((200, 400, 3), np.uint8), quad(10, 20, 310, 44))
    assert np.allclose(quad(60, 20, 110, 44), crop.quad(100, 200), atol=0.5)


def test_a_line_is_cut_out_of_a_page_beyond_the_bounds_of_opencv() -> None:
    page = np.full((40_000, 60, 3), 255, np.uint8)
    page[39_950:39_960, 10:50] = 0
    (crop,) = crops_of(page, quad(10, 39_940, 50, 39_970))
    assert np.allclose(quad(10, 39_940, 50, 39_970), crop.quad(0, crop.width), atol=0.5)
    assert (0, 255) == (crop.image[24, 20, 0], crop.image[4, 20, 0])
    assert [] == crops_of(page, quad(0, 0, 10, 39_000))


def test_a_tilted_crop_is_straightened() -> None:
    page = np.full((200, 200, 3), 255, np.uint8)
    for step in range(100):
        page[50 + step // 4 : 62 + step // 4, 40 + step] = 0
    tilted = np.array([[40, 50], [140, 75], [140, 87], [40, 62]], np.float32)
    (crop,) = crops_of(page, tilted)
    assert crop.image[8:-8, 20:-20].max() < 100


def test_an_upright_quad_is_read_in_both_directions_and_a_short_one_also_as_a_letter() -> None:
    page = np.zeros((400, 400, 3), np.uint8)
    page[:100, :] = 255
    tall = crops_of(page, quad(50, 50, 70, 350))
    assert [(48, 720, 3), (48, 720, 3)] == [crop.image.shape for crop in tall]
    downwards, upwards = tall
    assert (255, 0) == (downwards.image[24, 10, 0], downwards.image[24, -10, 0])
    assert (0, 255) == (upwards.image[24, 10, 0], upwards.image[24, -10, 0])
    assert 3 == len(crops_of(page, quad(50, 50, 70, 90)))


@pytest.mark.parametrize(("width", "bucket"), [(1, 96), (96, 96), (97, 128), (320, 320), (321, 384), (641, 704)])
def test_widths_fall_into_buckets(width: int, bucket: int) -> None:
    assert bucket == bucket_width(width, SETTINGS)


def batched(widths: Sequence[int], rows: int = 8) -> list[tuple[int, list[int]]]:
    pieces = [Piece(offset=0, image=np.zeros((48, width, 3), np.uint8)) for width in widths]
    return [(width, [piece.width for piece in batch]) for width, batch in batches_of(pieces, rows, SETTINGS)]


@pytest.mark.parametrize(
    ("why", "widths", "batches"),
    [
        ("nothing", [], []),
        ("of one width", [90, 96, 91, 92], [(96, [90, 91, 92, 96])]),
        ("three lines are no run: one is padded as it is", [90, 91, 92, 150], [(96, [90, 91]), (160, [92, 150])]),
        ("a few columns are padded to save a run", [500, 130, 96, 460], [(160, [96, 130]), (512, [460, 500])]),
        ("many would have to be", [100] * 4 + [300], [(128, [100] * 4), (320, [300])]),
        ("no more than the model takes", [96] * 10, [(96, [96] * 2), (96, [96] * 8)]),
    ],
)
def test_lines_are_padded_where_that_costs_less_than_a_run(why: str, widths: list[int], batches: list[tuple[int, list[int]]]) -> None:
    assert batches == batched(widths), why


def test_batches_cost_the_least_that_is_possible() -> None:
    draw = np.random.default_rng(3)
    for _ in range(20):
        widths = draw.integers(40, 600, 7).tolist()
        cut_in_all_ways = [[*itertools.accumulate(sizes)] for sizes in sums_to(7, 3)]
        least = min(cost([sorted(widths)[start:end] for start, end in itertools.pairwise([0, *cuts])]) for cuts in cut_in_all_ways)
        assert least == cost([some for _, some in batched(widths, rows=3)])


def sums_to(total: int, most: int) -> list[list[int]]:
    return [[first, *rest] for first in range(1, min(total, most) + 1) for rest in sums_to(total - first, most)] if total else [[]]


def cost(batches: Sequence[Sequence[int]]) -> int:
    # A batch of three is two runs, of two lines and of one.
    runs = [0, 1, 1, 2]
    return sum(len(batch) * bucket_width(max(batch), SETTINGS) + SETTINGS.columns_a_run * runs[len(batch)] for batch in batches)


def test_lines_are_padded_with_nothing() -> None:
    batch = recognizer_input([np.full((48, 100, 3), 255, np.uint8), np.zeros((48, 128, 3), np.uint8)], 128)
    assert ((2, 3, 48, 128), np.float32) == (batch.shape, batch.dtype)
    assert [1.0, 0.0, -1.0] == [batch[0, 0, 0, 99], batch[0, 0, 0, 100], batch[1, 0, 0, 127]]


def test_a_long_line_is_cut_at_its_widest_gap() -> None:
    page = np.full((48, 1000, 3), 255, np.uint8)
    page[16:32, ::2] = 0
    page[:, 330:350] = 255
    page[:, 370:373] = 255
    (crop,) = crops_of(page, quad(0, 0, 1000, 48))
    pieces = pieces_of(crop, RecognitionSettings(most_width=400))
    assert all(piece.width <= 400 for piece in pieces)
    assert 340 == pytest.approx(pieces[1].offset, abs=2)
    assert (False, True) == (pieces[0].after_space, pieces[1].after_space)
    assert crop.width == sum(piece.width for piece in pieces)


def test_a_short_line_is_one_piece() -> None:
    (crop,) = crops_of(np.zeros((48, 500, 3), np.uint8), quad(0, 0, 500, 48))
    assert [(0, 500)] == [(piece.offset, piece.width) for piece in pieces_of(crop, SETTINGS)]


def test_repeated_classes_count_once_and_blanks_part_equal_characters() -> None:
    found = read(likelihood([0, 1, 1, 0, 1, 2, 0, 4, 3]), CHARACTERS, 90)
    assert "aab c" == "".join(character.text for character in found)
    assert [20, 45, 55, 75, 85] == [character.x for character in found]
    assert [0.9] * 5 == pytest.approx([character.confidence for character in found])


@pytest.mark.parametrize(
    ("sure", "doubted", "blank", "text"),
    [
        # As `MAWAR II` is answered in bfloat16; the same letter wide; and what is doubted all over.
        ((0.955, 0.953), 0.702, 0.293, "aa"),
        ((0.955, 0.953), 0.902, 0.09, "a"),
        ((0.85, 0.77), 0.69, 0.288, "a"),
    ],
)
def test_two_equal_characters_are_parted_by_a_step_that_was_nearly_blank(
    sure: tuple[float, float], doubted: float, blank: float, text: str
) -> None:
    answer = likelihood([0, 1, 1, 1, 0, 2])
    answer[[1, 2, 3], 1] = (sure[0], doubted, sure[1])
    answer[2, 0] = blank
    found = read(answer, CHARACTERS, 60)
    assert f"{text}b" == "".join(character.text for character in found)
    assert ([15, 35, 55] if text == "aa" else [25, 55]) == [character.x for character in found]


def test_a_wide_space_is_one() -> None:
    answer = likelihood([1, 4, 4, 4, 2], 0.95)
    answer[2, [0, 4]] = (0.32, 0.68)
    assert "a b" == "".join(character.text for character in read(answer, CHARACTERS, 50))


def test_nothing_but_blanks_is_no_text() -> None:
    assert [] == read(likelihood([0, 0, 0]), CHARACTERS, 30)


def test_a_space_that_was_not_the_likeliest_is_told_with_the_character_before_it() -> None:
    likelihood = np.zeros((5, 4), np.float32)
    likelihood[[0, 1, 3, 4], [1, 0, 2, 0]] = 0.9
    likelihood[[1, 2], 3] = (0.05, 0.4)
    likelihood[2, 0] = 0.6
    first, last = read(likelihood, ("", "a", "b", " "), 40)
    assert [0.4, 0.0] == pytest.approx([first.space_after, last.space_after])


def test_what_a_doubtful_character_may_be_instead_is_told_with_it() -> None:
    likelihood = np.zeros((3, 6), np.float32)
    likelihood[0, [0, 1, 2, 3, 4]] = (0.05, 0.6, 0.3, 0.04, 0.001)
    likelihood[2, 2] = 0.995
    first, last = read(likelihood, ("", "a", "b", "-", "c", " "), 30)
    assert [("b", pytest.approx(0.3)), ("", pytest.approx(0.05))] == list(first.others)
    assert () == last.others


def test_a_long_line_with_a_shadow_across_it_is_cut_between_its_words() -> None:
    """Blocks of 40 pixels as words, 24 pixels apart, a part of them in a shadow that one threshold takes for ink."""
    image = np.full((LINE_HEIGHT, 64 * 32, 3), 240, np.uint8)
    for left in range(30, image.shape[1], 64):
        image[12:36, left : left + 40] = 30
    image[:, 700:1400] = image[:, 700:1400] * 0.45
    pieces = pieces_of(Crop(image=image, to_page=np.eye(3)), SETTINGS)
    assert 2 <= len(pieces)
    # Each cut is where no block is, and a space.
    assert all((piece.offset - 30) % 64 > 40 and piece.after_space for piece in pieces[1:])
