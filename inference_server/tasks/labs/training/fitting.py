"""Fits the parts of a ranker with numpy alone: logistic curves by Newton's method, small networks by Adam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.labs.catalogue.fit import Features
from inference_server.tasks.labs.matching.ranker import Curve, Network

_NEWTON_STEPS = 25
_FIRST_DECAY, _SECOND_DECAY, _TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A query's candidates and which one is right."""

    # [candidates, columns].
    columns: Features
    # What each starts from: the network learns what is to be added to it.
    start: Features
    # Place of the right one.
    right: int


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How long and how carefully a network is fitted."""

    hidden: int = 24
    rounds: int = 8
    # Queries of one step.
    step: int = 64
    rate: float = 0.004
    decay: float = 1e-3


def fit_curve(inputs: Features, truths: NDArray[np.bool_], *, ridge: float = 1.0) -> Curve:
    """The logistic curve of least regularised loss. `inputs`: [rows, inputs]; `ridge`: penalty of the squared weights, but for the bias."""
    mean, scale = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-3)
    rows = np.concatenate([(inputs - mean) / scale, np.ones((len(inputs), 1), np.float32)], axis=1).astype(np.float64)
    weights = np.zeros(rows.shape[1])
    penalty = np.full(rows.shape[1], ridge)
    penalty[-1] = 1e-6
    for _ in range(_NEWTON_STEPS):
        shares = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (shares - truths) + penalty * weights
        bend = (rows * (shares * (1 - shares))[:, None]).T @ rows + np.diag(penalty)
        change = np.linalg.solve(bend, slope)
        weights -= change
        if np.abs(change).max() < 1e-6:
            break
    return Curve(mean=mean.astype(np.float32), scale=scale.astype(np.float32), weights=weights.astype(np.float32))


def fit_network(lists: Sequence[Listed], seed: int, fitting: Fitting, progress: Callable[[int], None]) -> Network:
    """The network under whose softmax the right candidates are likeliest. `lists`: standardised; `progress` gets the rounds done."""
    random = np.random.default_rng(seed)
    width = lists[0].columns.shape[1]
    values: list[Features] = [
        random.normal(0, (2 / width) ** 0.5, (width, fitting.hidden)).astype(np.float32),
        np.zeros(fitting.hidden, np.float32),
        random.normal(0, fitting.hidden**-0.5, fitting.hidden).astype(np.float32),
    ]
    first = [np.zeros_like(value) for value in values]
    second = [np.zeros_like(value) for value in values]
    taken, steps = 0, fitting.rounds * -(-len(lists) // fitting.step)
    for done in range(fitting.rounds):
        order = random.permutation(len(lists))
        for start in range(0, len(order), fitting.step):
            slopes = _slopes([lists[place] for place in order[start : start + fitting.step]], values)
            taken += 1
            rate = fitting.rate * (1 - taken / (steps + 1))
            for place, slope in enumerate(slopes):
                slope = slope + fitting.decay * values[place]
                first[place] = _FIRST_DECAY * first[place] + (1 - _FIRST_DECAY) * slope
                second[place] = _SECOND_DECAY * second[place] + (1 - _SECOND_DECAY) * slope**2
                step = first[place] / (1 - _FIRST_DECAY**taken) / (np.sqrt(second[place] / (1 - _SECOND_DECAY**taken)) + _TINY)
                values[place] = (values[place] - rate * step).astype(np.float32)
        progress(done + 1)
    return Network(into=values[0], bias=values[1], out=values[2])


def _slopes(batch: Sequence[Listed], values: Sequence[Features]) -> tuple[Features, Features, Features]:
    """Gradient of the mean negative log share of the right candidates."""
    into, bias, out = values
    inputs = np.concatenate([each.columns for each in batch])
    counts = np.array([len(each.columns) for each in batch])
    starts = np.concatenate(([0], np.cumsum(counts)))[:-1]
    hidden = np.maximum(inputs @ into + bias, 0)
    scores = hidden @ out + np.concatenate([each.start for each in batch])
    odds = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), counts))
    shares = odds / np.repeat(np.add.reduceat(odds, starts), counts)
    shares[starts + np.array([each.right for each in batch])] -= 1
    shares /= len(batch)
    back = shares[:, None] * out * (hidden > 0)
    return inputs.T @ back, back.sum(axis=0), hidden.T @ shares
