"""Names are found by their words and letters, as cosines say, and misspelt words by those in use."""

from __future__ import annotations

import numpy as np
import pytest
from rapidfuzz import fuzz, process

from inference_server.tasks.labs.catalogue.index import CosineIndex, NameIndex

TEXTS = ["glucose", "glucose urine", "hemoglobin a1c", "cholesterol in ldl", "triiodothyronine free", "vitamin b12", "17 oh progesterone"]


def test_a_score_is_the_cosine_of_weighted_bags() -> None:
    texts = [["a", "b"], ["b", "c"], ["c"]]
    weights = {feature: np.log1p(3 / count) for feature, count in {"a": 1, "b": 2, "c": 2}.items()}
    asked = np.array([0.0, weights["b"], weights["c"], np.log1p(3)])
    rows = [np.array([weights[feature] if feature in text else 0.0 for feature in "abc"] + [0.0]) for text in texts]
    expected = [float(asked @ row / np.linalg.norm(asked) / np.linalg.norm(row)) for row in rows]
    assert pytest.approx(expected, abs=1e-6) == CosineIndex(texts).scores({"b": 1.0, "c": 1.0, "unheard": 1.0}).tolist()


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_a_name_is_most_like_itself(share: float) -> None:
    index = NameIndex(TEXTS)
    for place, text in enumerate(TEXTS):
        likeness = index.likeness(text, share)
        assert (place, pytest.approx(1)) == (int(likeness.argmax()), likeness.max())


def test_what_has_nothing_in_common_is_unlike() -> None:
    assert not NameIndex(TEXTS).likeness("qqq", 0.6).any()


@pytest.mark.parametrize(
    "word", ["glucosse", "glocose", "haemoglobin", "cholestrol", "triiodothyronin", "vitamn", "progestron", "free", "b12", "qwertz", "urin"]
)
def test_a_misspelt_word_stands_for_the_likeliest_of_all_words_in_use(word: str) -> None:
    index = NameIndex(TEXTS)
    in_use = [each for each in index.words.features if len(each) >= 4 and not each.isdigit()]
    best = process.extractOne(word, in_use, scorer=fuzz.ratio, score_cutoff=80)
    expected = ((word, 1.0),) if word in index.words.features else ((best[0], best[1] / 100),) if best else ()
    assert expected == index.nearest_words(word)
