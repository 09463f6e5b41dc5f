"""Keeps the process small: what is freed goes back to the machine."""

from __future__ import annotations

import ctypes
import os

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 2**20
# What each thread may keep free for its next blocks: work that takes and frees some MB again and again, such as the matching of lab
# tests, else has the kernel hand out and clear the same pages each time, a fifth of its processor time.
_KEPT_BYTES = 2 * 2**20


def return_what_is_freed() -> None:
    """Have glibc give large blocks back as soon as they are freed; elsewhere nothing is done.

    By itself it learns from the first large block that is freed, such as an engine that was compared and not chosen, to keep blocks of
    that size: 60 to 100 MB that nobody uses.
    """
    if libc := _glibc():
        libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def return_what_is_free() -> None:
    """Have glibc give back what lies free between blocks that are in use, after much of a small size was freed; blocks for some ms."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
