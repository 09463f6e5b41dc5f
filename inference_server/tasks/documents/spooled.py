"""Files that are made piece by piece, of which nobody knows beforehand how large they become."""

from __future__ import annotations

import tempfile
from typing import BinaryIO

# They stay in memory up to here, and go to the disk beyond.
_IN_MEMORY = 16 * 1024 * 1024


def spooled_file() -> BinaryIO:
    """An empty one, which is gone when it is closed."""
    return tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # type: ignore[return-value]
