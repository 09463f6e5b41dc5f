"""Keeps the process small: what is freed goes back to the machine."""

from __future__ import annotations

import ctypes
import os

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 2**20


def return_what_is_freed() -> None:
    """Have glibc give large blocks back as soon as they are freed; elsewhere nothing is done.

    By itself it learns from the first large block that is freed, such as an engine that was compared and not chosen, to keep blocks of
    that size: 60 to 100 MB that nobody uses.
    """
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
    libc.mallopt(_TRIM_THRESHOLD, _LARGE_BYTES)
