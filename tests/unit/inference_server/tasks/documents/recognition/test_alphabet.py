"""The characters beside a recogniser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference_server.errors import ConfigurationError
from inference_server.tasks.documents.recognition.alphabet import read_alphabet

CLASSES, FEATURES = 4, 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "characters.txt").write_text("a\n\u2028\n", "utf-8", newline="\n")
    (tmp_path / "rare_characters.txt").write_text("血\n≤\n型\n", "utf-8", newline="\n")
    np.save(tmp_path / "rare_weights.npy", np.arange(9, dtype=np.float32).reshape(3, 3))
    return tmp_path


def test_classes_are_the_blank_the_characters_the_space_and_the_rare_ones(folder: Path) -> None:
    alphabet = read_alphabet(folder, CLASSES, FEATURES)
    assert ("", "a", "\u2028", " ", "血", "≤", "型") == alphabet.characters
    assert alphabet.rare_weights is not None
    assert [[0, 1, 2], [3, 4, 5], [6, 7, 8]] == alphabet.rare_weights.tolist()


def test_a_model_that_answers_all_likelihoods_needs_its_characters_alone(folder: Path) -> None:
    (folder / "rare_characters.txt").unlink()
    alphabet = read_alphabet(folder, CLASSES, None)
    assert (("", "a", "\u2028", " "), None) == (alphabet.characters, alphabet.rare_weights)


@pytest.mark.parametrize("name", ["characters.txt", "rare_characters.txt", "rare_weights.npy"])
def test_what_is_missing_is_named_with_the_remedy(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigurationError, match=rf"{name} is missing.*models build"):
        read_alphabet(folder, CLASSES, FEATURES)


@pytest.mark.parametrize("name", ["characters.txt", "rare_characters.txt", "rare_weights.npy"])
def test_what_is_damaged_is_named_with_what_was_expected(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigurationError, match=rf"{name} cannot be read .*expected .*models build"):
        read_alphabet(folder, CLASSES, FEATURES)


def test_characters_of_another_model_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="has 2 characters; the model has 9 classes"):
        read_alphabet(folder, 9, FEATURES)
    with pytest.raises(ConfigurationError, match=r"float32 \[3, 3\]; expected float32 \[3, 6\]"):
        read_alphabet(folder, CLASSES, 5)
