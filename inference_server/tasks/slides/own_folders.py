"""Folders that are locked for as long as their server runs, so that the next one may remove what a killed one left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_LOCK = "in-use"


def make(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and the open file that locks it until it is closed. Blocks. Raises `OSError`.

    Until it is locked, another server may take it for one that was left behind: then another is made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)


def sweep(parent: Path, prefix: str) -> None:
    """Remove our folders that no process holds, half removed ones too. Blocks."""
    for folder in parent.glob(f"{prefix}*"):
        # Another server may be at it, and others' folders are none of ours.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, opened)
            if os.fstat(opened).st_uid != os.geteuid():
                continue
            # One that lacks the file was left before it was locked, or by a removal that was cut short.
            lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=opened)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
