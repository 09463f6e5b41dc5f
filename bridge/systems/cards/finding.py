"""What a card comes to: its fields, its score, why a person is to look; and what of its reading is kept until then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import hypot
from typing import Any

from bridge.inference.documents import DocumentPage, PageQuality
from bridge.systems.cards.parsing.fields import Card, Field, card_of
from bridge.systems.cards.parsing.lines import lines_of_pages, lines_of_text
from bridge.systems.cards.review import Gate, Reason, reasons_of
from bridge.systems.cards.scoring import Score, for_review, score_of

_FIELDS, _PROVINCE, _OTHER, _SEVERAL, _CUT, _QUALITY = "fields", "province", "other", "several", "cut", "quality"
# A value that comes nearer to an edge of the picture than this, in heights of its text, may go on beyond it.
_LEAST_MARGIN = 0.15


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a card comes to."""

    card: Card
    score: Score
    # Why a person is to look at it, or what one would want to know.
    reasons: tuple[Reason, ...]
    # By page.
    qualities: Mapping[int, PageQuality]

    def told(self) -> dict[str, Any]:
        """What results have beside the platform's own keys."""
        fields = {
            name: {key: value for key, value in asdict(one).items() if value not in (None, ())} for name, one in self.card.fields.items()
        }
        return {
            "fields": fields,
            "quality": [{"page": page, **asdict(quality)} for page, quality in sorted(self.qualities.items())],
            "reviewReasons": [{"code": reason.code, "message": reason.message} for reason in self.reasons],
        }


def reading_of(kind: str, pages: Sequence[DocumentPage]) -> dict[str, Any]:
    """What is kept of the pages beside their text, as JSON; nothing of a document of another kind."""
    card = card_of(kind, lines_of_pages(pages))
    if card is None:
        return {}
    return {
        _FIELDS: {name: asdict(one) for name, one in card.fields.items()},
        _PROVINCE: card.province,
        _OTHER: card.other,
        _SEVERAL: card.several,
        _CUT: [name for name, one in card.fields.items() for page in pages if page.page_number == one.page and _is_cut(one, page)],
        _QUALITY: {str(page.page_number): asdict(page.quality) for page in pages if page.quality},
    }


def fields_in(kind: str, text: str) -> int:
    """How many fields of a card are found in a text without places; of a document of another kind the text is all that there is."""
    card = card_of(kind, lines_of_text(text))
    return len(card.values) if card else len(text)


def finding_of(kind: str, kept: Mapping[str, Any], *, gate: Gate) -> Finding | None:
    """Evaluate what was kept, or the text alone where no more is known; None for a document of another kind.

    `gate`: which reasons send the card to a person however it scores.
    """
    card = _card(kept) if _FIELDS in kept else card_of(kind, lines_of_text(kept["text"]))
    if card is None:
        return None
    qualities = {int(page): PageQuality(**quality) for page, quality in kept.get(_QUALITY, {}).items()}
    score = score_of(kind, card.values)
    reasons = reasons_of(kind, card, score, qualities.values())
    if any(reason.stops(gate) for reason in reasons):
        score = for_review(score)
    return Finding(card=card, score=score, reasons=reasons, qualities=qualities)


def _card(kept: Mapping[str, Any]) -> Card:
    fields = {
        name: Field(**{**one, "polygon": tuple((float(x), float(y)) for x, y in one["polygon"])}) for name, one in kept[_FIELDS].items()
    }
    told = {"several": tuple(kept.get(_SEVERAL, ())), "cut": tuple(kept.get(_CUT, ()))}
    return Card(fields=fields, province=kept.get(_PROVINCE, ""), other=kept.get(_OTHER, ""), **told)


def _is_cut(field: Field, page: DocumentPage) -> bool:
    """Whether a value begins or ends at an edge of its picture."""
    if not field.polygon:
        return False
    head, top_right, bottom_right, foot = field.polygon
    length = hypot(top_right[0] - head[0], top_right[1] - head[1]) or 1.0
    # A little further along the text at either end.
    further = _LEAST_MARGIN * hypot(foot[0] - head[0], foot[1] - head[1]) / length
    x, y = further * (top_right[0] - head[0]), further * (top_right[1] - head[1])
    ends = [(_between(head, foot), -1), (_between(top_right, bottom_right), 1)]
    return not all(0 < end[0] + sign * x < page.width and 0 < end[1] + sign * y < page.height for end, sign in ends)


def _between(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2
