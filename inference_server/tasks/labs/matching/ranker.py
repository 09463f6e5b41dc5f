"""The learned ranker: small networks that score candidates, and logistic curves that say how far the first one is to be believed.

Trained by `training`; read from one JSON file, which also says what it was trained on.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_server.errors import ConfigurationError, InvalidCatalogue
from inference_server.tasks.labs.catalogue.fit import Features, Weights
from inference_server.tasks.labs.matching.signals import COLUMNS, FACTS

# What the confidence of a first candidate is read from.
JUDGED = (
    "log odds of the first",
    "lead",
    "share of its component",
    "name",
    "own_name",
    "own_exact",
    "lexical",
    "meaning",
    "words of the entry that are told",
    "told words that the entry has",
    "specimen told",
    "unit told",
    "ranked",
    "prior",
)
_FORMAT = 1
_HAND = Weights().vector()
_TOLD = [COLUMNS.index(name) for name in JUDGED[3:]]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A logistic curve over standardised inputs."""

    mean: Features
    scale: Features
    # One weight for each input, then the bias.
    weights: Features

    def log_odds(self, inputs: Features) -> Features:
        """Of each row."""
        return np.asarray(((inputs - self.mean) / self.scale) @ self.weights[:-1] + self.weights[-1], np.float32)

    def shares(self, inputs: Features) -> Features:
        """Probability of each row."""
        return np.asarray(1 / (1 + np.exp(-np.clip(self.log_odds(inputs), -30, 30))), np.float32)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Two layers: inputs to hidden values, those to a score."""

    # [inputs, hidden], [hidden], [hidden].
    into: Features
    bias: Features
    out: Features

    def scores(self, inputs: Features) -> Features:
        """Of each row."""
        return np.asarray(np.maximum(inputs @ self.into + self.bias, 0) @ self.out, np.float32)


@dataclass(frozen=True, kw_only=True)
class Ranker:
    """What was learnt, and from what."""

    # How common an entry is, from `FACTS`.
    prior: Curve
    mean: Features
    scale: Features
    # Their mean score is added to that of the hand-set weights, times `trust`.
    networks: tuple[Network, ...]
    trust: float
    # From `JUDGED`: whether the first candidate is the code; whether its component is the one that is meant.
    exact: Curve
    known: Curve
    # Names the training: data, counts, figures on what was held out.
    provenance: Mapping[str, Any]

    def scores(self, columns: Features) -> Features:
        """One score for each row of `COLUMNS`; a softmax over a query's rows gives their shares."""
        learnt = self._joined.scores(standardised(columns, self.mean, self.scale))
        return np.asarray(learnt + self.trust * hand_scores(columns), np.float32)

    @cached_property
    def _joined(self) -> Network:
        """All networks as one, whose score is their mean."""
        return Network(
            into=np.concatenate([network.into for network in self.networks], axis=1),
            bias=np.concatenate([network.bias for network in self.networks]),
            out=(np.concatenate([network.out for network in self.networks]) / len(self.networks)).astype(np.float32),
        )


def standardised(columns: Features, mean: Features, scale: Features) -> Features:
    """What the networks read: no column is far from the others, however odd the test."""
    return np.asarray(np.clip((columns - mean) / scale, -8, 8), np.float32)


def hand_scores(columns: Features) -> Features:
    """What the hand-set weights say of each row."""
    return np.asarray(columns[:, : len(_HAND)] @ _HAND, np.float32)


def shares_of(scores: Features) -> Features:
    """Softmax."""
    odds = np.exp(scores - scores.max(initial=-np.inf))
    return np.asarray(odds / max(float(odds.sum()), 1e-9), np.float32)


def judged(columns: Features, shares: Features, groups: NDArray[np.int32], order: NDArray[np.int64]) -> Features:
    """`JUDGED` of one query. `shares`: of each candidate; `groups`: their components; `order`: places of the best, of one at least."""
    first = int(order[0])
    share = min(max(float(shares[first]), 1e-6), 1 - 1e-6)
    follower = float(shares[order[1]]) if len(order) > 1 else 0.0
    lead = math.log(share / max(follower, 1e-6))
    return np.array(
        [math.log(share / (1 - share)), lead, float(shares[groups == groups[first]].sum()), *columns[first, _TOLD].tolist()], np.float32
    )


def read_ranker(path: Path) -> Ranker:
    """Raises `InvalidCatalogue` when the file is damaged or made for other columns."""
    try:
        raw = json.loads(path.read_text("utf-8"))
        if raw["format"] != _FORMAT or tuple(raw["columns"]) != COLUMNS or tuple(raw["facts"]) != FACTS or tuple(raw["judged"]) != JUDGED:
            raise InvalidCatalogue(f"{path} was made by another version; train it again: inference-server models train-labs.")
        ranker = Ranker(
            prior=_curve(raw["prior"], len(FACTS)),
            mean=_array(raw["mean"], len(COLUMNS)),
            scale=_array(raw["scale"], len(COLUMNS)),
            networks=tuple(map(_network, raw["networks"])),
            trust=float(raw["trust"]),
            exact=_curve(raw["exact"], len(JUDGED)),
            known=_curve(raw["known"], len(JUDGED)),
            provenance=dict(raw["provenance"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"cannot be read ({type(error).__name__})"
        raise InvalidCatalogue(f"{path} {reason}; delete it, or train it again: inference-server models train-labs.") from error
    return ranker


def write_ranker(path: Path, ranker: Ranker) -> None:
    """Write what `read_ranker` reads; the same ranker gives the same bytes."""
    raw = {
        "format": _FORMAT,
        "provenance": dict(ranker.provenance),
        "columns": COLUMNS,
        "facts": FACTS,
        "judged": JUDGED,
        "prior": _raw_curve(ranker.prior),
        "mean": _rounded(ranker.mean),
        "scale": _rounded(ranker.scale),
        "networks": [{"into": _rounded(each.into), "bias": _rounded(each.bias), "out": _rounded(each.out)} for each in ranker.networks],
        "trust": ranker.trust,
        "exact": _raw_curve(ranker.exact),
        "known": _raw_curve(ranker.known),
    }
    path.write_text(json.dumps(raw, ensure_ascii=False, indent=None, separators=(", ", ": ")).replace('], "', '],\n"') + "\n", "utf-8")


def keep_ranker(path: Path, ranker: Ranker) -> None:
    """Write it in one piece, for the next start. Raises `ConfigurationError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".ranker-", dir=path.parent) as scratch:
            write_ranker(Path(scratch) / path.name, ranker)
            (Path(scratch) / path.name).replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({type(error).__name__}); give a --models folder that you may write to."
        ) from error


def _array(values: Sequence[float], length: int) -> Features:
    array = np.array(values, np.float32)
    if array.shape != (length,) or not np.isfinite(array).all():
        raise ValueError("a list of numbers has another length")
    return array


def _curve(raw: Mapping[str, Sequence[float]], length: int) -> Curve:
    return Curve(mean=_array(raw["mean"], length), scale=_array(raw["scale"], length), weights=_array(raw["weights"], length + 1))


def _network(raw: Mapping[str, Any]) -> Network:
    bias = np.array(raw["bias"], np.float32)
    into = np.array(raw["into"], np.float32)
    if into.shape != (len(COLUMNS), len(bias)):
        raise ValueError("a layer has another shape")
    return Network(into=into, bias=bias, out=_array(raw["out"], len(bias)))


def _raw_curve(curve: Curve) -> dict[str, Any]:
    return {"mean": _rounded(curve.mean), "scale": _rounded(curve.scale), "weights": _rounded(curve.weights)}


def _rounded(values: Features) -> Any:
    return np.round(values.astype(np.float64), 5).tolist()
