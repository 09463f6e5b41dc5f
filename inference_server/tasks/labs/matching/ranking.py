"""Puts the entries found for a test in order and says how far the first is to be believed: as was learnt, or by hand-set weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from inference_server.errors import InvalidCatalogue
from inference_server.tasks.labs.catalogue.catalogue import Catalogue
from inference_server.tasks.labs.catalogue.fit import EntryTable, Features, Weights
from inference_server.tasks.labs.matching.ranker import Ranker, judged, read_ranker, shares_of
from inference_server.tasks.labs.matching.retrieve import Query, Retrieved
from inference_server.tasks.labs.matching.signals import HAS_METHOD, Signals

_log = structlog.get_logger()
_AXES = len(Weights().vector())
# Laboratories differ on the method of a test: how much less the first is believed to be the very code when another differs in that alone,
# and it has a method itself or has none. Found on development names; made tests cannot tell, for they name the code that they came from.
_DOUBT_OF_METHOD, _DOUBT_WITHOUT = 0.8, 0.92
SHIPPED = Path(__file__).parents[1] / "data" / "ranker.json"


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Entries found for one test, best first."""

    # Places among those found.
    order: NDArray[np.int64]
    # 0 to 1, falling; of the first, the probability that it is the code.
    confidences: Features
    # Probability that the component is in the catalogue.
    known: float
    # The columns of `fit.Weights`, one row for each of `order`.
    axes: Features


class Ranking(Protocol):
    """Orders what was found."""

    def rank(self, queries: Sequence[Query], found: Sequence[Retrieved], count: int) -> list[Ranked]:
        """The best `count` of the entries found for each query, of which there is at least one for each."""
        ...


class LearnedRanking:
    """By a trained ranker."""

    def __init__(self, ranker: Ranker, catalogue: Catalogue) -> None:
        self._ranker = ranker
        self._table = catalogue.table
        self._signals = Signals(catalogue.entries, catalogue.table)
        self._prior = ranker.prior.log_odds(self._signals.facts)

    def rank(self, queries: Sequence[Query], found: Sequence[Retrieved], count: int) -> list[Ranked]:
        """As `Ranking` says."""
        if not queries:
            return []
        lists = self._signals.columns(queries, found, self._prior)
        ends = np.cumsum([len(kept) for kept in lists.kept])[:-1]
        entries = [each.entries[kept] for each, kept in zip(found, lists.kept, strict=True)]
        columns = np.split(lists.rows, ends)
        listed = [_listed(scores, count) for scores in np.split(self._ranker.scores(lists.rows), ends)]
        inputs = np.stack(
            [
                judged(rows, shares, self._table.group[some], order)
                for rows, some, (order, shares) in zip(columns, entries, listed, strict=True)
            ]
        )
        exact = self._ranker.exact.shares(inputs) * [self._doubt(some[order[0]]) for some, (order, _) in zip(entries, listed, strict=True)]
        known = self._ranker.known.shares(inputs)
        return [
            Ranked(
                order=kept[order[:count]],
                confidences=_confidences(shares[order], first, known_here)[:count],
                known=known_here,
                axes=rows[order[:count], :_AXES],
            )
            for kept, rows, (order, shares), first, known_here in zip(
                lists.kept, columns, listed, exact.tolist(), known.tolist(), strict=True
            )
        ]

    def _doubt(self, first: int) -> float:
        if not self._signals.has_twin[first]:
            return 1.0
        return _DOUBT_OF_METHOD if self._signals.facts[first, HAS_METHOD] else _DOUBT_WITHOUT


def _listed(scores: Features, count: int) -> tuple[NDArray[np.int64], Features]:
    """Places of the best, of at least two where there are so many, and the share of each row."""
    return np.argsort(-scores, kind="stable")[: max(count, 2)], shares_of(scores)


def _confidences(shares: Features, exact: float, known: float) -> Features:
    """Of the best: what the first does not take is the others' by their shares, and none looks surer than the first."""
    rest = max(float(1 - shares[0]), 1e-6)
    confidences: Features = np.minimum(shares / rest * known * (1 - exact), exact)
    confidences[0] = exact
    return confidences


@dataclass(frozen=True, kw_only=True)
class HandSettings:
    """Weights and curves that were set by hand."""

    weights: Weights = field(default_factory=Weights)
    # Likeness of the name at which a lone candidate is as likely right as wrong, and how steeply the confidence rises there.
    even_name: float = 0.55
    steepness: float = 12.0
    # Likeness of the name at which the component is as likely known as not, and how steeply that rises.
    even_known: float = 0.512
    known_steepness: float = 10.0


class HandRanking:
    """By hand-set weights; where no trained ranker can be read."""

    def __init__(self, table: EntryTable, settings: HandSettings | None = None) -> None:
        self._table = table
        self._settings = settings or HandSettings()
        self._weights = self._settings.weights.vector()

    def rank(self, queries: Sequence[Query], found: Sequence[Retrieved], count: int) -> list[Ranked]:
        """As `Ranking` says."""
        return [self._rank(query, each, count) for query, each in zip(queries, found, strict=True)]

    def _rank(self, query: Query, found: Retrieved, count: int) -> Ranked:
        by_name = (found.name, found.own, found.exact)
        axes = self._table.features([(query.parsed, query.test.unit)], np.array([len(found.entries)]), found.entries, by_name)
        scores = axes @ self._weights
        order = np.argsort(-scores, kind="stable")[: max(count, 2)]
        odds = np.exp(scores[order] - scores[order[0]])
        settings = self._settings
        alike = 1 / (1 + np.exp(-settings.steepness * (found.name[order] - settings.even_name)))
        # A lower rank never looks surer than a higher one.
        confidences = np.asarray(np.minimum.accumulate(odds / odds[:2].sum() * alike), np.float32)
        known = 1 / (1 + np.exp(-settings.known_steepness * (float(found.name.max()) - settings.even_known)))
        order = order[:count]
        return Ranked(order=order, confidences=confidences[:count], known=float(known), axes=axes[order])


def best_ranking(catalogue: Catalogue, trained: Path, shipped: Path = SHIPPED) -> tuple[Ranking, str]:
    """The ranking of the first file that can be read, and what it is called; else by hand-set weights. Blocks for the disk."""
    for path, name in ((trained, "trained"), (shipped, "shipped")):
        if not path.is_file():
            continue
        try:
            return LearnedRanking(read_ranker(path), catalogue), name
        except InvalidCatalogue as error:
            _log.warning("ranker_unusable", file=path.name, reason=str(error))
    return HandRanking(catalogue.table), "by hand"
