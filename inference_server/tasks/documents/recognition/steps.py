"""The likeliest character at each step along a line, out of what a recogniser answers.

Rare characters are looked at where one of them may be likely, as `models/builders/recognizer_head` tells; elsewhere none has a part in
the likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensors

# Rare classes are looked at where one of them may be so close to the likeliest common one: 1 / e⁴ as likely, or more.
_CLOSE = 4.0
# Steps whose rare logits are computed at once, which bounds the memory: 70 KB each.
_AT_ONCE = 256

# What a model with rare classes answers.
_COMMON, _RARE, _FEATURES = "common", "rare", "features"

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What stands at each step, padding included: of one line [T], or of some of one width [N, T]."""

    # The likeliest class; 0 is the blank.
    classes: NDArray[np.int64]
    # Its likelihood, 0 to 1.
    confidences: Floats
    # How likely a space is, 0 to 1.
    spaces: Floats
    # Of the common classes [..., T, classes], and what makes likelihoods of it [..., T].
    weights: Floats
    scales: Floats

    def by_line(self) -> Iterator[Steps]:
        """Each of some lines."""
        for line in range(len(self.classes)):
            yield Steps(**{name: array[line] for name, array in vars(self).items()})

    def common(self, start: int, end: int) -> Floats:
        """How likely each common class is at some steps of one line, 0 to 1: [steps, classes]."""
        return self.weights[start:end] * self.scales[start:end, None]


def answered(outputs: Tensors) -> tuple[int, int | None]:
    """How many classes a recogniser answers, and how many features; None for one that answers the likelihoods of all classes."""
    if _FEATURES in outputs:
        return outputs[_COMMON].shape[-1], outputs[_FEATURES].shape[-1]
    return next(iter(outputs.values())).shape[-1], None


def steps_of(outputs: Tensors, rare_weights: Floats | None) -> Steps:
    """The steps in a recogniser's answer; `rare_weights`: of its alphabet."""
    answer = {name: np.asarray(output, np.float32) for name, output in outputs.items()}
    if rare_weights is None:
        return likeliest(next(iter(answer.values())))
    return likeliest_of_logits(answer[_COMMON], answer[_RARE], answer[_FEATURES], rare_weights)


def likeliest(likelihood: Floats) -> Steps:
    """The steps of a model that answers the likelihood of every class, of which the space is the last: [N, T, classes]."""
    classes = likelihood.argmax(axis=2)
    scales = np.ones(classes.shape, np.float32)
    return Steps(classes=classes, confidences=_at(likelihood, classes), spaces=likelihood[:, :, -1], weights=likelihood, scales=scales)


def likeliest_of_logits(common: Floats, rare: Floats, features: Floats, rare_weights: Floats) -> Steps:
    """The steps of a model that answers logits of common classes, of which the space is the last: [N, T, classes].

    `rare` [N, T]: about how high the logit of a rare class may be. `features` [N, T, D] and `rare_weights` [rare classes, D + 1] tell it.
    """
    classes = common.argmax(axis=2)
    highest = _at(common, classes)
    # All are relative to the likeliest common class, until a rare one is likelier.
    weights = common - highest[:, :, None]
    np.exp(weights, out=weights)
    totals = weights.sum(axis=2)
    confidences = 1 / totals
    scales = confidences.copy()

    def look(at: tuple[NDArray[np.intp], ...]) -> None:
        logits = features[at] @ rare_weights[:, :-1].T + rare_weights[:, -1] - highest[at][:, None]
        highest_rare = logits.max(axis=1)
        classes[at] = np.where(highest_rare > 0, common.shape[2] + logits.argmax(axis=1), classes[at])
        above = np.maximum(highest_rare, 0)
        confidences[at] = 1 / (totals[at] * np.exp(-above) + np.exp(logits - above[:, None]).sum(axis=1))
        scales[at] = confidences[at] * np.exp(-above)

    close = rare > highest - _CLOSE
    for at in _some(close):
        look(at)
    # Where one rare character stands more may, of which `rare` told too little.
    for at in _some((classes >= common.shape[2]).any(axis=1)[:, None] & (classes > 0) & ~close):
        look(at)
    return Steps(classes=classes, confidences=confidences, spaces=weights[:, :, -1] * scales, weights=weights, scales=scales)


def _some(mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], ...]]:
    """The places that are set, so many at a time as may be computed at once."""
    places = np.nonzero(mask)
    for start in range(0, len(places[0]), _AT_ONCE):
        yield tuple(axis[start : start + _AT_ONCE] for axis in places)


def _at(values: Floats, classes: NDArray[np.int64]) -> Floats:
    return np.take_along_axis(values, classes[:, :, None], axis=2)[:, :, 0]
