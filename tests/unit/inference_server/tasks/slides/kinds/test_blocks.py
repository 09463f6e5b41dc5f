"""Arrays of one size get the memory of those that are gone, and never that of one that somebody still sees."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from inference_server.tasks.slides.kinds.blocks import Blocks

SHAPE, KIND = (2, 3, 64, 64), np.dtype(np.float32)


def place_of(array: np.ndarray) -> int:  # type: ignore[type-arg]
    return int(array.__array_interface__["data"][0])


def test_the_memory_of_an_array_that_is_gone_is_the_next_one_s() -> None:
    blocks = Blocks()
    first = blocks.empty(SHAPE, KIND)
    place = place_of(first)
    assert (SHAPE, KIND, True) == (first.shape, first.dtype, first.flags.writeable)
    del first
    gc.collect()
    assert place == place_of(blocks.empty((1, *SHAPE[1:]), KIND)), "a smaller one fits in too"


def test_the_memory_of_an_array_of_which_a_part_is_seen_is_nobody_else_s() -> None:
    blocks = Blocks()
    whole = blocks.empty(SHAPE, KIND)
    whole[:] = 7
    part = whole.view(np.int32)[1:, 0].view(KIND).reshape(-1)[5:]
    del whole
    gc.collect()
    others = [blocks.empty(SHAPE, KIND) for _ in range(3)]
    for other in others:
        other[:] = 1
    assert {7.0} == set(part.tolist())
    assert 3 == len({place_of(other) for other in others})


def test_a_larger_array_gets_memory_of_its_own() -> None:
    blocks = Blocks()
    blocks.empty((4,), KIND)
    gc.collect()
    large = blocks.empty((1000,), KIND)
    large[:] = 1
    assert 1000 == large.sum()


def test_threads_do_not_share_memory() -> None:
    blocks = Blocks()

    def fill(number: int) -> bool:
        array = blocks.empty(SHAPE, KIND)
        array[:] = number
        return bool((array == number).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(fill, range(400)))
