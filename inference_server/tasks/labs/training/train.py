"""Trains a ranker on the catalogue of a repository, and says how good it is on components that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference_server.scheduler.port import Inference
from inference_server.tasks.labs.catalogue.catalogue import Catalogue, load_catalogue
from inference_server.tasks.labs.catalogue.fit import Features
from inference_server.tasks.labs.embed import Embedder
from inference_server.tasks.labs.matching.ranker import Curve, Ranker, hand_scores, judged, shares_of, standardised
from inference_server.tasks.labs.matching.signals import Signals
from inference_server.tasks.labs.training.examples import (
    CALIBRATION,
    MEASURED,
    Example,
    Wanted,
    bare,
    examples,
    made_tests,
    named_tests,
    other_lines,
    without_component,
)
from inference_server.tasks.labs.training.fitting import Fitting, Listed, fit_curve, fit_network
from inference_server.tasks.labs.training.printed import Printer

Progress = Callable[[str, int, int], None]
_SEED = 20261
# A column that hardly varies is not blown up.
_LEAST_SCALE = 0.05
# Each of these in turn loses its component, to teach what an absent test looks like.
_ABSENT_EVERY = 4
# Share of printed tests that are built-in codes, and how much rarer than by its axes another code of a component is that has one.
_LISTED_SHARE = 0.55
_BESIDE_LISTED = 0.25


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is made and how it is fitted."""

    # Tests made of the axes of codes, in each of the two catalogues.
    made: int = 7000
    # Tests that bear a name of the built-in codes, in each way that they are printed; None for all names.
    named: int | None = None
    # Lines that are no tests.
    other: int = 400
    networks: int = 4
    # Share of the hand-set weights' score that the networks start from.
    trust: float = 0.5
    fitting: Fitting = field(default_factory=Fitting)


async def train(inference: Inference, models: Path, *, model: str, progress: Progress, plan: Plan | None = None) -> Ranker:
    """Train on the repository's own catalogue; minutes for a whole LOINC table. Raises `InvalidCatalogue`, and what `Inference` raises.

    The same catalogue, encoder and numpy give the same ranker.
    """
    plan = plan or Plan()
    catalogue = load_catalogue(models)
    without_names = bare(catalogue)
    facts = Signals(without_names.entries, without_names.table).facts
    prior = fit_curve(facts, np.array([entry.rank > 0 for entry in catalogue.entries]))
    embedder = Embedder(inference, models)
    common = _common(catalogue, prior.shares(facts))
    known = list(_wanted(catalogue, common, plan))
    unknown = list(_wanted_bare(catalogue, without_names, common, plan))
    total = len(known) + len(unknown)
    found = await examples(known, catalogue, prior, embedder, models, model, lambda done: progress("examples", done, total))
    others = await examples(
        unknown, without_names, prior, embedder, models, model, lambda done: progress("examples", len(known) + done, total)
    )
    ranker = _fitted([*found, *others], prior, plan, progress)
    ranker = _calibrated(ranker, _with_absent(example for example in found if example.fold == CALIBRATION))
    facts_of = inference.facts(model)
    measured = list(_with_absent(example for example in found if example.fold == MEASURED))
    provenance = {
        "trained on": f"tests made of the catalogue {catalogue.version}: {len(catalogue.entries)} codes, "
        f"of which {sum(entry.rank > 0 for entry in catalogue.entries)} built in",
        "encoder": f"{facts_of.name}:{facts_of.version}",
        "examples": len(found) + len(others),
        "seed": _SEED,
        "held out": _figures(ranker, measured),
    }
    return replace(ranker, provenance=provenance)


def _wanted(catalogue: Catalogue, common: NDArray[np.float64], plan: Plan) -> Iterator[Wanted]:
    yield from islice(named_tests(catalogue, Printer(_SEED), hide=True), plan.named)
    yield from islice(named_tests(catalogue, Printer(_SEED + 1), hide=False), 0, plan.named, 2)
    yield from made_tests(catalogue, Printer(_SEED + 2), common, plan.made, _SEED)
    yield from other_lines(plan.other, _SEED)


def _wanted_bare(catalogue: Catalogue, without_names: Catalogue, common: NDArray[np.float64], plan: Plan) -> Iterator[Wanted]:
    yield from islice(named_tests(catalogue, Printer(_SEED + 3), hide=False), plan.named)
    yield from made_tests(without_names, Printer(_SEED + 4), common, plan.made, _SEED + 1)


def _common(catalogue: Catalogue, prior: Features) -> NDArray[np.float64]:
    """How often each code is printed: what is built in most, the more the commoner; of the same components others seldom.

    `prior`: how like the built-in codes each is, 0 to 1.
    """
    listed = np.array([entry.rank > 0 for entry in catalogue.entries])
    ranks = np.array([entry.rank or 1 for entry in catalogue.entries])
    of_listed = listed * (1.2 - np.minimum(np.log10(ranks) / 4, 1)) ** 2
    beside = np.isin(catalogue.table.group, np.unique(catalogue.table.group[listed]))
    of_others = ~listed * prior * np.where(beside, _BESIDE_LISTED, 1.0)
    weights: NDArray[np.float64] = _LISTED_SHARE * of_listed / of_listed.sum()
    if of_others.sum():
        weights = weights + (1 - _LISTED_SHARE) * of_others / of_others.sum()
    return weights.astype(np.float64)


def _fitted(found: Sequence[Example], prior: Curve, plan: Plan, progress: Progress) -> Ranker:
    learnt = [example for example in found if example.fold not in (CALIBRATION, MEASURED) and example.right >= 0]
    rows = np.concatenate([example.columns for example in learnt])
    mean, scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), _LEAST_SCALE)
    lists = [
        Listed(columns=standardised(example.columns, mean, scale), start=plan.trust * hand_scores(example.columns), right=example.right)
        for example in learnt
    ]
    rounds = plan.networks * plan.fitting.rounds
    networks = []
    for number in range(plan.networks):
        report = partial(_report, progress, number * plan.fitting.rounds, rounds)
        networks.append(fit_network(lists, _SEED + number, plan.fitting, report))
    nothing = Curve(mean=np.zeros(0, np.float32), scale=np.zeros(0, np.float32), weights=np.zeros(1, np.float32))
    return Ranker(
        prior=prior, mean=mean, scale=scale, networks=tuple(networks), trust=plan.trust, exact=nothing, known=nothing, provenance={}
    )


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress("fitting", before + done, total)


def _with_absent(found: Iterator[Example]) -> Iterator[Example]:
    for number, example in enumerate(found):
        yield example
        if example.right >= 0 and number % _ABSENT_EVERY == 0:
            absent = without_component(example)
            if len(absent.columns):
                yield absent


@dataclass(frozen=True, kw_only=True)
class _Judged:
    inputs: Features
    is_exact: bool
    is_known: bool


def _judged(ranker: Ranker, example: Example) -> _Judged:
    scores = ranker.scores(example.columns)
    order = np.argsort(-scores, kind="stable")
    first = int(order[0])
    inputs = judged(example.columns, shares_of(scores), example.groups, order)
    is_known = example.right >= 0 and example.groups[first] == example.groups[example.right]
    return _Judged(inputs=inputs, is_exact=first == example.right, is_known=bool(is_known))


def _calibrated(ranker: Ranker, found: Iterator[Example]) -> Ranker:
    seen = [_judged(ranker, example) for example in found if len(example.columns)]
    inputs = np.stack([each.inputs for each in seen])
    exact = fit_curve(inputs, np.array([each.is_exact for each in seen]))
    known = fit_curve(inputs, np.array([each.is_known for each in seen]))
    return replace(ranker, exact=exact, known=known)


def _figures(ranker: Ranker, found: Sequence[Example]) -> dict[str, float]:
    """On components that neither the fitting nor the calibration saw."""
    seen = [_judged(ranker, example) for example in found if len(example.columns)]
    present = [example for example in found if not example.absent]
    by_hand = [example.right >= 0 and int(np.argmax(hand_scores(example.columns))) == example.right for example in present]
    learnt = [example.right >= 0 and int(np.argmax(ranker.scores(example.columns))) == example.right for example in present]
    inputs = np.stack([each.inputs for each in seen])
    confidence, right = ranker.exact.shares(inputs), np.array([each.is_exact for each in seen])
    bins = np.minimum((confidence * 10).astype(int), 9)
    error = sum(abs(confidence[bins == number].sum() - right[bins == number].sum()) for number in range(10)) / len(right)
    return {
        "tests": len(present),
        "top-1 by hand-set weights": round(float(np.mean(by_hand)), 4),
        "top-1": round(float(np.mean(learnt)), 4),
        "expected calibration error": round(float(error), 4),
    }
