"""The characters that a recogniser knows, as they lie beside its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from inference_server.errors import ConfigurationError
from inference_server.models.recognizer_files import CHARACTERS, RARE_CHARACTERS, RARE_WEIGHTS

_Read = TypeVar("_Read")
_REMEDY = "Run `inference-server models build`."


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """What the classes of a recogniser mean."""

    # By class: the blank, which is empty, those that the model answers, the space, then the rare ones.
    characters: tuple[str, ...]
    # Classes of which the model answers something at each step; the last of them is the space.
    common: int
    # The logits of the rare classes are these times a step's features and 1; float32 [rare classes, features + 1].
    # None where the model answers the likelihood of every class.
    rare_weights: NDArray[np.float32] | None = None


def read_alphabet(folder: Path, classes: int, features: int | None) -> Alphabet:
    """The alphabet in a version's folder. `classes` and `features`: how many the model answers, None for a model without features.

    Raises `ConfigurationError` where a file is missing, damaged, or another model's.
    """
    common = ("", *_characters(folder / CHARACTERS), " ")
    if len(common) != classes:
        raise ConfigurationError(
            f"{folder / CHARACTERS} has {len(common) - 2} characters; the model has {classes} classes, "
            f"of which 2 are blank and space. {_REMEDY}"
        )
    if features is None:
        return Alphabet(characters=common, common=classes)
    rare = _characters(folder / RARE_CHARACTERS)
    path = folder / RARE_WEIGHTS
    # Latin text needs few of them: the file is read as they are needed.
    weights = _read(path, lambda: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)), "an array of numpy")
    if weights.dtype != np.float32 or weights.shape != (len(rare), features + 1):
        raise ConfigurationError(
            f"{path} has {weights.dtype} {list(weights.shape)}; expected float32 [{len(rare)}, {features + 1}] for as many rare characters "
            f"and {features} features. {_REMEDY}"
        )
    return Alphabet(characters=common + rare, common=classes, rare_weights=weights)


def _characters(path: Path) -> tuple[str, ...]:
    # Only line feeds end a line here: other separators are characters of the list.
    text = _read(path, lambda: path.read_bytes().decode("utf-8-sig"), "one character a line in UTF-8")
    return tuple(text.removesuffix("\n").split("\n"))


def _read(path: Path, read: Callable[[], _Read], expected: str) -> _Read:
    try:
        return read()
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is missing: the recogniser's characters. {_REMEDY}") from error
    except (OSError, ValueError, EOFError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__}); expected {expected}. {_REMEDY}") from error
