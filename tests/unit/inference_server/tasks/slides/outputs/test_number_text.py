"""Numbers as text, whole arrays at a time, are those of JSON's encoder to the letter."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.tasks.slides.outputs import number_text

RANDOM = np.random.default_rng(1)
COUNT = 3000


def texts(values: NDArray[np.float64]) -> list[str]:
    """What each number becomes."""
    found = number_text.json_numbers(values)
    return [number_text.without_gaps(each).decode() for each in found.reshape(-1, found.shape[-1])]


@pytest.mark.parametrize("most", [1e-3, 1.0, 9999.0, 9e6, 9e7])
@pytest.mark.parametrize("decimals", range(10))
def test_random_numbers_of_any_decimals(decimals: int, most: float) -> None:
    values = [round(value, decimals) for value in RANDOM.uniform(0, most, COUNT).tolist()]
    assert [json.dumps(value) for value in values] == texts(np.array(values))


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1.0, 9.0, 10.0, 9999.0, 10_000.0, 10_001.0, 99_999_999.0, 0.1, 0.01, 0.001, 0.0001],
        [0.0, 1e-8, 1e-5, 9.999e-5, 1e-4, 1.5, 0.00012345],
        [1e8, 1e15, 1e16, 1e22, 1e300],
        [0.0, -0.0, -1.5, 2.0],
        [float("nan"), float("inf"), -float("inf"), 1.0],
        [],
    ],
    ids=["bounds", "small", "large", "negative", "not finite", "none"],
)
def test_numbers_at_the_bounds(values: list[float]) -> None:
    assert [json.dumps(value) for value in values] == texts(np.array(values, np.float64))


def test_numbers_of_a_table_in_any_order_of_memory() -> None:
    values = np.round(RANDOM.uniform(0, 100, (3, 70)), 4)
    for each in (values, values.T):
        assert [json.dumps(value) for value in each.reshape(-1).tolist()] == texts(each)
        assert each.shape == number_text.json_numbers(each).shape[:-1]


@pytest.mark.parametrize("decimals", [2, 4, 6])
def test_numbers_are_rounded_as_python_rounds_them(decimals: int) -> None:
    ties = RANDOM.integers(-(10**7), 10**7, COUNT)
    values = np.concatenate(
        [RANDOM.uniform(-1e5, 1e5, COUNT), ties / 1000, ties / 2**7, RANDOM.uniform(-1e12, 1e12, 100), [0.0, -0.0, -0.001, 1.005, 2.675]]
    )
    assert [str(round(value, decimals)) for value in values.tolist()] == [
        str(value) for value in number_text.rounded(values, decimals).tolist()
    ]


def test_hexadecimals_keep_their_zeros() -> None:
    found = number_text.hexadecimals(np.array([0, 10, 255, 2**40]), 12)
    assert ["00000000000a", "0000000000ff", "010000000000"] == [bytes(each).decode() for each in found[1:]]
