"""What stands at each step of a line, out of what recognisers answer."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.recognition.steps import Steps, answered, steps_of

COMMON, RARE, FEATURES, STEPS = 5, 40, 8, 12


@pytest.fixture
def layer() -> np.ndarray:
    """Of features and 1 [FEATURES + 1] the logits of all classes, the rare ones last."""
    layer = np.random.default_rng(3).normal(0, 1, (FEATURES + 1, COMMON + RARE)).astype(np.float32)
    # Of one length, so that each class is the likeliest where features are like its weights.
    layer[:-1] /= np.linalg.norm(layer[:-1], axis=0)
    layer[-1] = 0.01
    return layer


def features_of(layer: np.ndarray, classes: list[int]) -> np.ndarray:
    """At each step those at which a class is by far the likeliest: [1, steps, FEATURES]."""
    return np.ascontiguousarray(40 * layer[:-1, classes].T[None])


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)


def split(layer: np.ndarray, features: np.ndarray) -> Steps:
    """What is made of the answer of a model with rare classes."""
    logits = features @ layer[:-1] + layer[-1]
    answer = {"common": logits[:, :, :COMMON], "rare": logits[:, :, COMMON:].max(axis=2), "features": features}
    assert (COMMON, FEATURES) == answered(answer)
    return steps_of(answer, np.ascontiguousarray(layer[:, COMMON:].T))


def whole(layer: np.ndarray, features: np.ndarray) -> Steps:
    """What is made of the likelihoods of all classes."""
    answer = {"likelihood": softmax(features @ layer[:-1] + layer[-1])}
    assert (COMMON + RARE, None) == answered(answer)
    return steps_of(answer, None)


def test_rare_classes_are_found_with_the_likelihood_that_they_have_among_all(layer: np.ndarray) -> None:
    features = features_of(layer, [0, 1, COMMON, COMMON + RARE - 1, 3, COMMON + 17, 0])
    some, all_of_them = split(layer, features), whole(layer, features)
    np.testing.assert_array_equal(all_of_them.classes, some.classes)
    assert {COMMON, COMMON + 17, COMMON + RARE - 1} <= set(some.classes.ravel().tolist())
    np.testing.assert_allclose(all_of_them.confidences, some.confidences, atol=1e-3)


def test_all_classes_share_the_likelihood_where_a_rare_one_is_close(layer: np.ndarray) -> None:
    features = np.random.default_rng(4).normal(0, 3, (3, STEPS, FEATURES)).astype(np.float32)
    some, all_of_them = split(layer, features), softmax(features @ layer[:-1] + layer[-1])
    for number, line in enumerate(some.by_line()):
        np.testing.assert_allclose(all_of_them[number, :, :COMMON], line.common(0, STEPS), atol=0.02)
        np.testing.assert_allclose(all_of_them[number, :, COMMON - 1], line.spaces, atol=0.02)
        np.testing.assert_allclose(all_of_them[number].max(axis=1), line.confidences, atol=0.02)


def test_beside_a_rare_character_one_of_which_too_little_was_told_is_found_too(layer: np.ndarray) -> None:
    features = features_of(layer, [COMMON + 3, COMMON + 9])
    logits = features @ layer[:-1] + layer[-1]
    rare = logits[:, :, COMMON:].max(axis=2)
    rare[0, 1] = -100.0
    answer = {"common": logits[:, :, :COMMON].copy(), "rare": rare, "features": features}
    answer["common"][0, 1, 1] = logits[0, 1, :COMMON].max() + 1
    found = steps_of(answer, np.ascontiguousarray(layer[:, COMMON:].T))
    assert [[COMMON + 3, COMMON + 9]] == found.classes.tolist()


def test_rare_logits_beyond_what_floats_hold_the_exponential_of_are_sure(layer: np.ndarray) -> None:
    found = split(layer, 20 * features_of(layer, [COMMON + 3, 1]))
    assert COMMON + 3 == found.classes[0, 0]
    assert np.isfinite(found.confidences).all()
    assert 1.0 == pytest.approx(found.confidences[0, 0])


def test_more_steps_than_are_looked_at_at_once_are_all_looked_at(layer: np.ndarray) -> None:
    features = features_of(layer, [COMMON + index % RARE for index in range(600)])
    np.testing.assert_array_equal(whole(layer, features).classes, split(layer, features).classes)
