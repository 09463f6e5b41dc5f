"""Finds the code of a printed test: reviewed names first, then the likeliest entry by name, specimen, unit, time, method and commonness."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.labs.catalogue.catalogue import Catalogue
from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.catalogue.fit import Features, column
from inference_server.tasks.labs.embed import Vectors
from inference_server.tasks.labs.matching.aliases import Alias, AliasMemory, spelling
from inference_server.tasks.labs.matching.ranking import HandRanking, Ranked, Ranking
from inference_server.tasks.labs.matching.recall import Recall, Recalled
from inference_server.tasks.labs.matching.retrieve import Query, RetrievalSettings, Retrieved, Retriever
from inference_server.tasks.labs.parsing.normalise import PrintedTest

# Queries that are matched at once, and whose likeness with every name is held.
AT_ONCE = 32
# Candidates that reviewed names are weighed against.
_COMPARED = 10
# From these on, a likeness is worth telling.
_TOLD_LEXICAL = 0.5
_TOLD_MEANING = 0.6
# A closest code that is at least as likely is told of a test without a match.
_WORTH_TELLING = 0.05
_AXES = ("own_exact", "specimen", "property", "collection", "challenge", "method")
_OWN_EXACT, _SPECIMEN, _PROPERTY, _COLLECTION, _CHALLENGE, _METHOD = map(column, _AXES)


class Status(enum.Enum):
    """Whether the best candidate is to be believed."""

    MATCHED = "matched"
    NO_MATCH = "no_match"
    NEEDS_REVIEW = "needs_review"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One code that may be meant."""

    entry: Entry
    # 0 to 1.
    score: float
    # What spoke for it: alias, exact name, lexical, embedding, specimen, unit, timing, method.
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """What was found for one test."""

    status: Status
    # Best first; also given without a match.
    candidates: tuple[Candidate, ...]
    # One sentence.
    explanation: str


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """How names are compared and when a choice is believed."""

    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    # Probability from which the best candidate is believed.
    believed: float = 0.55
    # Probability of a known component below which nothing fits.
    least_known: float = 0.35
    # Power of the likeness by which a reviewed name speaks for its code, and what the score of a code not reviewed counts beside it.
    recall_power: float = 6.0
    unreviewed: float = 0.15
    # Share of what was said at which the code of reviewed names is as likely right as wrong, and how steeply that rises.
    even_share: float = 0.44
    share_steepness: float = 9.0


class Matcher:
    """Matches tests against one catalogue. Blocks; safe to use from several threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        aliases: AliasMemory,
        vectors: Vectors,
        settings: MatchSettings | None = None,
        ranking: Ranking | None = None,
    ) -> None:
        """`vectors`: the embedded meanings of the catalogue's names; `ranking`: by hand-set weights when None."""
        self._catalogue = catalogue
        self._aliases = aliases
        self._settings = settings or MatchSettings()
        self._retriever = Retriever(catalogue, vectors, self._settings.retrieval)
        self._ranking = ranking or HandRanking(catalogue.table)
        self.remember(aliases)

    def read(self, test: PrintedTest) -> Query:
        """Parse a test and find the readings of its name."""
        return self._retriever.read(test)

    def remember(self, memory: AliasMemory, vectors: Vectors | None = None) -> None:
        """Take an alias memory as it is now. `vectors`: the embedded meanings of its names, in the order of `AliasMemory.all`."""
        self._aliases = memory
        aliases = memory.all()
        queries = [self.read(PrintedTest(name=alias.name, unit=alias.unit, specimen=alias.specimen)) for alias in aliases]
        self._recall = Recall(aliases, queries, vectors, self._catalogue.index.words.features)

    def likeness(self, vectors: Vectors) -> Features:
        """What `match` needs of the embedded meanings of queries, at most `AT_ONCE` of them. Leaves the interpreter to others."""
        return self._retriever.meanings(vectors)

    def match(self, queries: Sequence[Query], vectors: Vectors, likeness: Features, top: int) -> list[Match]:
        """Match each query. `vectors`: their embedded meanings, a row each; `likeness`: of these; `top`: candidates wanted."""
        found = [self._retriever.retrieve(query, row) for query, row in zip(queries, likeness, strict=True)]
        ranked = self._ranked(queries, found, max(top, _COMPARED if len(self._recall) else 2))
        return [
            self._match(query, vector, candidates, known, top)
            for query, vector, (candidates, known) in zip(queries, vectors, ranked, strict=True)
        ]

    def _match(self, query: Query, vector: NDArray[np.float32], ranked: list[Candidate], known: float, top: int) -> Match:
        votes, nearest = self._votes(query, vector)
        alias = self._aliases.find(query.test.name, query.test.unit, query.test.specimen)
        if alias is not None and self._may_mean(query, alias):
            # It decides; where names like it mean something else, it is less sure.
            agree, said = votes.get(self._catalogue.current(alias.code), 0.0), sum(votes.values())
            return self._reviewed(query.test.name, alias, (1 + agree) / (1 + said), ranked, top)
        return self._recalled(query.test.name, votes, nearest, ranked, top) or self._judge(query, ranked, top, known)

    def _votes(self, query: Query, vector: NDArray[np.float32]) -> tuple[dict[str, float], dict[str, Recalled]]:
        """What reviewed names like this one say for each code, and the nearest of each."""
        votes: dict[str, float] = {}
        nearest: dict[str, Recalled] = {}
        for each in self._recall.near(query, vector):
            if self._may_mean(query, each.alias):
                code = self._catalogue.current(each.alias.code)
                votes[code] = votes.get(code, 0.0) + each.likeness**self._settings.recall_power * each.trust
                nearest[code] = max(nearest.get(code, each), each, key=lambda known: known.likeness * known.trust)
        return votes, nearest

    def _recalled(
        self, name: str, votes: dict[str, float], nearest: dict[str, Recalled], ranked: list[Candidate], top: int
    ) -> Match | None:
        """What the votes of reviewed names say; None when they say less than the catalogue."""
        said = dict(votes)
        for candidate in ranked:
            said[candidate.entry.code] = said.get(candidate.entry.code, 0.0) + self._settings.unreviewed * candidate.score
        best = max(said, key=lambda code: said[code], default="")
        if best not in votes:
            return None
        odds = self._settings.share_steepness * (said[best] / max(sum(said.values()), 1e-9) - self._settings.even_share)
        others = sorted(ranked, key=lambda candidate: -said[candidate.entry.code])
        return self._reviewed(name, nearest[best].alias, nearest[best].trust * float(1 / (1 + np.exp(-odds))), others, top)

    def _reviewed(self, name: str, alias: Alias, confidence: float, ranked: list[Candidate], top: int) -> Match:
        entry = self._catalogue.entries[self._catalogue.by_code[self._catalogue.current(alias.code)]]
        first = Candidate(entry=entry, score=confidence, reasons=("alias",))
        others = [replace(each, score=min(each.score, 1 - confidence)) for each in ranked if each.entry.code != entry.code]
        how = "is" if spelling(alias.name) == spelling(name) else "resembles"
        return Match(
            status=Status.MATCHED if confidence >= self._settings.believed else Status.NEEDS_REVIEW,
            candidates=(first, *sorted(others, key=lambda each: -each.score))[:top],
            explanation=f"The name {how} the reviewed name {alias.name!r} of {entry.long_common_name}.",
        )

    def _ranked(self, queries: Sequence[Query], found: Sequence[Retrieved], count: int) -> Iterator[tuple[list[Candidate], float]]:
        """Of each query its candidates, best first, and the probability that the component is known."""
        some = [place for place, each in enumerate(found) if len(each.entries)]
        ranked = self._ranking.rank([queries[place] for place in some], [found[place] for place in some], count)
        by_place = dict(zip(some, ranked, strict=True))
        for place, each in enumerate(found):
            yield (self._candidates(each, by_place[place]), by_place[place].known) if place in by_place else ([], 0.0)

    def _candidates(self, found: Retrieved, ranked: Ranked) -> list[Candidate]:
        columns = zip(
            found.entries[ranked.order].tolist(),
            ranked.confidences.tolist(),
            ranked.axes.tolist(),
            found.lexical[ranked.order].tolist(),
            found.meaning[ranked.order].tolist(),
            strict=True,
        )
        return [
            Candidate(entry=self._catalogue.entries[entry], score=confidence, reasons=_reasons(axes, lexical, meaning))
            for entry, confidence, axes, lexical, meaning in columns
        ]

    def _may_mean(self, query: Query, alias: Alias) -> bool:
        """A reviewed name gives way to a specimen or unit that its code cannot have, unless it was reviewed for that very one.

        A name that was reviewed for a specimen says nothing where none is told.
        """
        code = self._catalogue.current(alias.code)
        same_specimen = bool(alias.specimen) and spelling(alias.specimen) == spelling(query.test.specimen)
        if not code or (alias.specimen and not same_specimen and not query.parsed.specimens):
            return False
        one, zero = np.ones(1, np.int64), np.zeros(1, np.float32)
        place: NDArray[np.int32] = np.array([self._catalogue.by_code[code]], np.int32)
        features = self._catalogue.table.features([(query.parsed, query.test.unit)], one, place, (zero, zero, zero))[0]
        wrong_unit = features[_PROPERTY] < 0 and not alias.unit
        wrong_specimen = features[_SPECIMEN] < 0 and not same_specimen
        return not (wrong_specimen or wrong_unit)

    def _judge(self, query: Query, ranked: list[Candidate], top: int, known: float) -> Match:
        candidates = tuple(ranked[:top])
        if query.parsed.is_dose:
            explanation = "The name reads as a dose of a medicine, not as a laboratory test."
            return Match(status=Status.NO_MATCH, candidates=candidates, explanation=explanation)
        if not ranked or known < self._settings.least_known:
            closest = f"; the closest, {ranked[0].entry.long_common_name}, is too unlike" if known >= _WORTH_TELLING else ""
            explanation = f"No name of the catalogue resembles {query.parsed.text!r}{closest}."
            return Match(status=Status.NO_MATCH, candidates=candidates, explanation=explanation)
        best = ranked[0]
        sentence = f"{best.entry.long_common_name} fits best by {', '.join(best.reasons) or 'commonness'}"
        if best.score >= self._settings.believed:
            return Match(status=Status.MATCHED, candidates=candidates, explanation=f"{sentence}.")
        close = len(ranked) > 1 and ranked[1].score > best.score / 2
        doubt = f", but {ranked[1].entry.long_common_name} is nearly as likely" if close else ", but not surely"
        return Match(status=Status.NEEDS_REVIEW, candidates=candidates, explanation=f"{sentence}{doubt}.")


def _reasons(features: Sequence[float], lexical: float, meaning: float) -> tuple[str, ...]:
    told = (
        ("exact name", features[_OWN_EXACT] > 0),
        ("lexical", lexical >= _TOLD_LEXICAL),
        ("embedding", meaning >= _TOLD_MEANING),
        ("specimen", features[_SPECIMEN] > 0),
        ("unit", features[_PROPERTY] > 0),
        ("timing", features[_COLLECTION] > 0 or features[_CHALLENGE] > 0),
        ("method", features[_METHOD] > 0),
    )
    return tuple([reason for reason, holds in told if holds])
