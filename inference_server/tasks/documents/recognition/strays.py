"""Marks that stand alone: specks that were read as dots are no text, and on pages of Latin text a short stroke is a dash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inference_server.tasks.documents.layout.rows import Fragment
from inference_server.tasks.documents.recognition.lines import ReadQuad
from inference_server.tasks.documents.recognition.recogniser import LINE_HEIGHT
from inference_server.tasks.documents.recognition.signs import is_east_asian
from inference_server.tasks.documents.values import Line

# What specks and scratches are read as where they stand apart, up to so many of them: more are a dotted rule.
_SPECKS, _MOST_SPECKS = frozenset(".·'`,"), 2
# What they are read as where nothing else stands on their line: beside other text these are colons of a column. A dash alone may be an
# answer, or one of three that part what is above from what is below.
_ALONE = _SPECKS | frozenset(":;")
# Typed so, they say that what stands above holds here too.
_DITTO = frozenset({"''", ",,", "``"})
# What a short dash is read as, and a crop of at most so many of its heights shows no longer one.
_DASHES, _MOST_HEIGHTS = frozenset("一ー_–—―"), 1.25


def with_dashes(found: Sequence[ReadQuad]) -> Sequence[ReadQuad]:
    """What was read on a page; a short dash that stands alone is one, unless the page has East Asian letters, of which it may be one."""
    alone = [quad for quad in found if _is_dash(quad)]
    if not alone or any(is_east_asian(character.text) for quad in found if not _is_dash(quad) for character in quad.characters):
        return found
    return [replace(quad, characters=(replace(quad.characters[0], text="-"),)) if _is_dash(quad) else quad for quad in found]


def _is_dash(quad: ReadQuad) -> bool:
    return len(quad.characters) == 1 and quad.characters[0].text in _DASHES and quad.crop.width <= _MOST_HEIGHTS * LINE_HEIGHT


def without_specks_of(fragments: Sequence[Fragment]) -> list[Fragment]:
    """Fragments with words, those of specks left out."""
    return [fragment for fragment in fragments if fragment.words and not _is_of([word.text for word in fragment.words], _SPECKS)]


def without_marks(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Lines in which there is more than a dot or colon or two."""
    return tuple(line for line in lines if not _is_of([line.text], _ALONE))


def _is_of(texts: Sequence[str], signs: frozenset[str]) -> bool:
    text = "".join(texts).replace(" ", "")
    return len(text) <= _MOST_SPECKS and text not in _DITTO and signs.issuperset(text)
