"""Values that come from files, and follow them when they change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from inference_server.errors import ConfigurationError

_log = structlog.get_logger()

T = TypeVar("T")

# Of each file: time of change, size, and where it lies on the disk. None when it cannot be looked at.
_Signature = tuple[tuple[int, int, int] | None, ...]


class Watched(Generic[T]):
    """A value read from files. `refresh` reads it again when one of them changed; while they are wrong, the last good value stays."""

    def __init__(self, paths: Sequence[Path], load: Callable[[], T], *, name: str) -> None:
        """Loads at once. `name`: what the log calls it. Raises what `load` raises, which is a `ConfigurationError`."""
        self._paths = tuple(paths)
        self._load = load
        self._name = name
        self._lock = threading.Lock()
        self._signature = self._look()
        self.value = load()

    def refresh(self) -> T:
        """The value as the files say now; blocks on them. From any thread."""
        with self._lock:
            # Looked at before they are read: what changes meanwhile is seen the next time.
            signature = self._look()
            if signature != self._signature:
                self._signature = signature
                self._reload()
            return self.value

    def _reload(self) -> None:
        try:
            self.value = self._load()
        except ConfigurationError as error:
            _log.error("files_not_taken", what=self._name, reason=str(error), instead="what was read before stays in use")
        else:
            _log.info("files_read_again", what=self._name)

    def _look(self) -> _Signature:
        return tuple(map(_signature, self._paths))


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
