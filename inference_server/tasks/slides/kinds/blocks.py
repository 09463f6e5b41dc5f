"""Memory for arrays that come and go in the same size, call after call."""

from __future__ import annotations

import math
import weakref

import numpy as np
from numpy.typing import NDArray

# More than any slide has calls under way.
_MOST_SPARE = 8


class Blocks:
    """Hands out arrays, and the memory of one that nobody refers to any more to the next.

    The kernel takes large blocks back as soon as they are freed, and clears each page of the next one: of a float32 picture that is as
    much work as to fill it.
    """

    def __init__(self) -> None:
        """It holds nothing at first, and what it holds is freed with it."""
        self._spare: list[bytearray] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        """An array whose elements are whatever they are; from any thread."""
        size = math.prod(shape)
        # Not from an array, so that parts of it refer to `whole` and keep the block from being handed out again.
        block = self._block(size * dtype.itemsize)
        whole = np.frombuffer(block, dtype, count=size)
        weakref.finalize(whole, self._spare.append, block).atexit = False
        return whole.reshape(shape)

    def _block(self, length: int) -> bytearray:
        try:
            block = self._spare.pop()
        except IndexError:
            return bytearray(max(length, 1))
        del self._spare[_MOST_SPARE:]
        return block if len(block) >= length else bytearray(length)
