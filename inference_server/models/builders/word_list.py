"""The words by which misread letters are mended, from the lists that the wheels `symspellpy` and `pysastrawi` carry.

English with counts: words of SCOWL by Google Books' n-grams (symspellpy, MIT). Indonesian roots without counts (PySastrawi, MIT).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from inference_server.errors import ConfigurationError

# Beside the versions of the recogniser: a word and how often it is met, a line, in lower case.
WORDS = "words.txt"

_ENGLISH = ("symspellpy", "frequency_dictionary_en_82_765.txt")
_INDONESIAN = ("Sastrawi", "Stemmer/data/kata-dasar.txt")
# Roots have no counts: each is as usual as the ten thousandth or so of the English words.
_ROOT_COUNT = 4_000_000


def word_list() -> str:
    """A word and its count a line. Raises `ConfigurationError` when a wheel does not carry its list."""
    counts = {word: _ROOT_COUNT for word in _lines(*_INDONESIAN) if word.isalpha()}
    for line in _lines(*_ENGLISH):
        word, _, count = line.partition(" ")
        # Two words of the list have apostrophes, which end a word here.
        if word.isalpha():
            counts[word] = max(int(count), counts.get(word, 0))
    return "".join(f"{word} {count}\n" for word, count in sorted(counts.items()))


def _lines(package: str, name: str) -> list[str]:
    # Packages are found and not imported: only their data are wanted.
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).is_file():
            return path.read_text("utf-8-sig").lower().split("\n")
    raise ConfigurationError(f"the package {package} does not carry {name}. Install lamina[server] again.")
