"""Documents that lie where the bridge can read them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog

from bridge.errors import PermanentError, TransientError

_log = structlog.get_logger()
_ABSENT = "BRIDGE_READ_ROOTS names it, and it is not there or cannot be looked at; nothing is read from it so far"


class DocumentFiles:
    """Reads whole files under allowed folders, up to a size."""

    def __init__(self, *, roots: Sequence[Path], most_bytes: int) -> None:
        """`roots`: the folders that may be read; `/` alone allows all."""
        self._roots = tuple(root.expanduser().resolve() for root in roots)
        for root in self._roots:
            # It may be mounted later.
            if not _is_there(root):
                _log.warning("read_root_absent", root=str(root), reason=_ABSENT)
        self._most_bytes = most_bytes

    async def read(self, path: Path) -> bytes:
        """The bytes of a file. Raises `PermanentError`, `TransientError`."""
        return await asyncio.to_thread(self._read, path)

    def _read(self, path: Path) -> bytes:
        try:
            # Links are followed first, so that none leads out of a folder.
            found = path.expanduser().resolve()
            if not any(found.is_relative_to(root) for root in self._roots):
                raise PermanentError(f"{path} may not be read: it is not under an allowed folder. Name its folder in BRIDGE_READ_ROOTS.")
            if found.is_dir():
                raise PermanentError(f"{path} is a folder; a PDF or an image was expected.")
            size = found.stat().st_size
            if size == 0:
                raise PermanentError(f"{path} is empty (0 bytes); a PDF or an image was expected. Was it copied whole?")
            if size > self._most_bytes:
                raise PermanentError(f"{path} has {size} bytes; at most {self._most_bytes} are accepted. Send a smaller file, or its URL.")
            return found.read_bytes()
        except FileNotFoundError as error:
            raise PermanentError(f"{path} does not exist. Check the path, and that the bridge sees the same files as you.") from error
        except PermissionError as error:
            raise PermanentError(f"the bridge may not read {path}. Grant its user read access.") from error
        except OSError as error:
            raise TransientError(f"{path} could not be read: {error.strerror or error}") from error


def _is_there(root: Path) -> bool:
    try:
        return root.exists()
    except OSError:  # such as a mount whose server is gone, or a folder that this user may not look into
        return False
