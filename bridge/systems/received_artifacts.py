"""Files that come from the server as a stream of chunks."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from bridge.errors import TransientError
from bridge.inference.slides import Artifact, ArtifactChunk


class ReceivedArtifacts:
    """Gathers chunks in files of a temporary folder, which is gone in the end; memory stays small however large they are."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: dict[str, Path] = {}
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    async def add(self, chunk: ArtifactChunk) -> None:
        """Append a chunk. Raises `TransientError` when one before it is missing."""
        await asyncio.to_thread(self._append, chunk)

    async def drop(self, name: str) -> None:
        """Forget a file that is kept elsewhere now."""
        path = self._files.pop(name, None)
        if path is not None:
            await asyncio.to_thread(path.unlink)

    async def whole(self, artifact: Artifact) -> Path:
        """The file of an artifact, once all its chunks are here. Raises `TransientError` when it is not what the server announced."""
        return await asyncio.to_thread(self._checked, artifact)

    def _append(self, chunk: ArtifactChunk) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="lamina-artifacts-")
        # Files are numbered: the server's names stay out of our paths.
        path = self._files.setdefault(chunk.name, Path(self._folder.name) / str(next(self._numbers)))
        with path.open("ab") as file:
            if file.tell() != chunk.offset:
                raise TransientError(f"{chunk.name} came with a gap: {chunk.offset} after {file.tell()} bytes.")
            file.write(chunk.data)

    def _checked(self, artifact: Artifact) -> Path:
        path = self._files.get(artifact.name)
        if path is None or path.stat().st_size != artifact.size_bytes:
            size = path.stat().st_size if path else 0
            raise TransientError(f"{artifact.name} came with {size} of {artifact.size_bytes} bytes.")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if artifact.sha256 and digest != artifact.sha256:
            raise TransientError(f"{artifact.name} came damaged: its SHA-256 is not the one announced.")
        return path
