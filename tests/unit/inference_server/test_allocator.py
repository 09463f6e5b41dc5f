"""Pages that a process asks for again and again, and those that it keeps."""

from __future__ import annotations

import os
import resource

import numpy as np
import pytest

from inference_server.allocator import Reuse, return_what_is_freed

PAGES = 1024
BYTES = PAGES * os.sysconf("SC_PAGE_SIZE")

pytestmark = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="glibc alone can be told what to keep")


def faults() -> int:
    """Of ten blocks, each freed before the next."""
    np.ones(BYTES // 2, np.uint8)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        np.ones(BYTES // 2, np.uint8)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def test_large_blocks_are_kept_for_the_next_ones_as_long_as_anybody_wants_it() -> None:
    return_what_is_freed()
    memory = Reuse()
    assert faults() >= 5 * PAGES
    with memory.reused():
        with memory.reused():
            assert faults() < PAGES
        assert faults() < PAGES
    assert faults() >= 5 * PAGES
