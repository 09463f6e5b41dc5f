"""The temporary folder, in which an analysis keeps what would not fit into memory until it is delivered."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference_server.errors import Unavailable
from inference_server.tasks.slides import own_folders

_PREFIX = "lamina-analysis-"


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
    with taking_room():
        sweep()
        made, lock = own_folders.make(Path(tempfile.gettempdir()), _PREFIX)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def sweep() -> None:
    """Remove what killed servers left; folders of those that run stay. Blocks."""
    with contextlib.suppress(OSError):
        own_folders.sweep(Path(tempfile.gettempdir()), _PREFIX)
