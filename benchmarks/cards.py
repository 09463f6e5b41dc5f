"""How many fields of identity cards and tax cards are read right, and how many wrong, from picture to value?

- Of all fields, those that are read as they were printed, by kind of picture. Bar: 0.97.
- Of all fields, those that are read as something else: a person would have to find them. Bar: 0.02.
- The same from Tesseract's text alone, which has no places, where Tesseract is found: for comparison, without a bar.

The cards are composed, rendered and worn (`composed_cards.py`, `worn_pages.py` of `tests/support/documents/`), read by an inference
server through the bridge's own client, and parsed as its worker does.

Run: python benchmarks/cards.py [--check] [--of-a-kind 6]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.support.documents.server import document_server
from bridge.inference.client import InferenceClient
from bridge.inference.documents import DocumentPage
from bridge.systems.cards.parsing.fields import card_fields, card_of
from bridge.systems.cards.parsing.lines import lines_of_pages
from bridge.systems.cards.reading.tesseract import Tesseract
from tests.support.documents.composed_cards import ComposedCard, identity_card, tax_card
from tests.support.documents.worn_pages import Wear, scanned

LEAST_RIGHT, MOST_WRONG = 0.97, 0.02
_WEARS = {
    "as a scan": Wear(dpi=200),
    "small, JPEG": Wear(dpi=130, noise=6, jpeg=60),
    "blurred, noise, JPEG": Wear(dpi=170, blur=1.0, noise=8, jpeg=60),
    "askew by 4°": Wear(dpi=170, skew_degrees=4, jpeg=80),
    "turned by 90°": Wear(dpi=170, quarter_turns=1, jpeg=80),
}
_CARDS: Mapping[str, Callable[[int], ComposedCard]] = {"KTP": identity_card, "NPWP": tax_card}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A card that is to be read."""

    document: str
    wear: str
    content: bytes
    truth: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of the fields of some cards, how many were read right, and how many wrong."""

    right: float
    wrong: float


def main() -> int:
    """Print the figures; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--of-a-kind", type=int, default=6, help="cards of each kind")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    pictures = [_picture(document, wear, seed) for document in _CARDS for wear in _WEARS for seed in range(options.of_a_kind)]
    read = asyncio.run(_by_tesseract(pictures)) if shutil.which("tesseract") else []
    with document_server() as server:
        found = asyncio.run(_by_server(server.grpc, pictures))
    return int(not _shown(pictures, found, read) and options.check)


def _picture(document: str, wear: str, seed: int) -> Picture:
    card = _CARDS[document](seed)
    out = io.BytesIO()
    scanned(card.page, _WEARS[wear], seed).save(out, "PNG")
    return Picture(document=document, wear=wear, content=out.getvalue(), truth=card.fields)


async def _by_server(address: str, pictures: Sequence[Picture]) -> list[Mapping[str, str]]:
    found: list[Mapping[str, str]] = []
    async with InferenceClient(address) as client:
        for number, picture in enumerate(pictures):
            events = client.recognize_document(request_id=f"card-{number}", content=picture.content)
            pages = [event async for event in events if isinstance(event, DocumentPage)]
            card = card_of(picture.document, lines_of_pages(pages))
            found.append(card.values if card else {})
    return found


async def _by_tesseract(pictures: Sequence[Picture]) -> list[Mapping[str, str]]:
    return [card_fields(picture.document, await Tesseract().read(picture.content)) or {} for picture in pictures]


def _share(pictures: Sequence[Picture], found: Sequence[Mapping[str, str]]) -> Share:
    pairs = [(value, read.get(name)) for picture, read in zip(pictures, found, strict=True) for name, value in picture.truth.items()]
    # Where a space was read or not is not the question here.
    right = sum(told is not None and told.replace(" ", "") == value.replace(" ", "") for value, told in pairs)
    missing = sum(told is None for _, told in pairs)
    return Share(right=right / len(pairs), wrong=(len(pairs) - right - missing) / len(pairs))


def _shown(pictures: Sequence[Picture], found: Sequence[Mapping[str, str]], read: Sequence[Mapping[str, str]]) -> bool:
    """Print a row for each kind of picture; whether all bars are met."""
    table = Table("cards", "right", "wrong", "Tesseract: right", "wrong", "", title=f"Fields; bars {LEAST_RIGHT} and {MOST_WRONG}")
    all_met = True
    for document in _CARDS:
        for wear in _WEARS:
            chosen = [number for number, one in enumerate(pictures) if (one.document, one.wear) == (document, wear)]
            of_kind = [pictures[number] for number in chosen]
            share = _share(of_kind, [found[number] for number in chosen])
            other = _share(of_kind, [read[number] for number in chosen]) if read else None
            is_met = share.right >= LEAST_RIGHT and share.wrong <= MOST_WRONG
            all_met &= is_met
            compared = (f"{other.right:.3f}", f"{other.wrong:.3f}") if other else ("-", "-")
            table.add_row(f"{document}, {wear}", f"{share.right:.3f}", f"{share.wrong:.3f}", *compared, "met" if is_met else "MISSED")
    Console(width=140).print(table)
    return all_met


if __name__ == "__main__":
    sys.exit(main())
