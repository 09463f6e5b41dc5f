"""The temporary folder, in which an analysis keeps what would not fit into memory until it is delivered."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference_server.errors import Unavailable

_PREFIX = "lamina-analysis-"
# So old is a folder that nobody is about to lock any more.
_SETTLED_SECONDS = 60.0


@contextmanager
def taking_room() -> Iterator[None]:
    """Write into the temporary folder. Raises `Unavailable` where it takes no more."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the temporary folder takes no more of an analysis ({error.strerror or error}). Make room, or set TMPDIR to a larger disk."
        ) from error


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for as long as the block lasts; what killed servers left is removed first. Blocks. Raises `Unavailable`."""
    parent = Path(tempfile.gettempdir())
    with taking_room():
        _sweep(parent)
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove our folders that no process holds."""
    for left in parent.glob(f"{_PREFIX}*"):
        # Another server may be at it, and others' folders are none of ours.
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                facts = os.fstat(lock)
                if facts.st_uid == os.geteuid() and time.time() - facts.st_mtime > _SETTLED_SECONDS:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
