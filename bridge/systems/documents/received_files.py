"""Files that the server makes of a document, put beside what was read."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from bridge.inference.documents import DocumentChunk
from bridge.inference.slides import Artifact, ArtifactChunk
from bridge.results import ResultFolder
from bridge.systems.received_artifacts import ReceivedArtifacts


class ReceivedFiles:
    """Takes pieces; a file that ends is written to the folder of results. Memory stays small however large files are."""

    def __init__(self, folder: ResultFolder) -> None:
        self._folder = folder
        self._received = ReceivedArtifacts()
        # What was written, as results have it.
        self.artifacts: list[dict[str, Any]] = []
        # Why a file was not, by its name.
        self.errors: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._received.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._received.__exit__(kind, error, trace)

    async def add(self, chunk: DocumentChunk) -> None:
        """Keep a piece. Raises `TransientError` when one before it is missing, or the file cannot be written."""
        if chunk.error:
            self.errors[chunk.name] = chunk.error
            await self._received.drop(chunk.name)
            return
        await self._received.add(ArtifactChunk(name=chunk.name, offset=chunk.offset, data=chunk.data))
        if chunk.last:
            await self._keep(chunk, chunk.offset + len(chunk.data))

    async def _keep(self, chunk: DocumentChunk, size: int) -> None:
        told = Artifact(name=chunk.name, media_type=chunk.media_type, uri="", size_bytes=size, sha256="")
        uri = await self._folder.write(chunk.name, await self._received.whole(told))
        self.artifacts.append({"name": chunk.name, "media_type": chunk.media_type, "uri": uri, "size_bytes": size})
        await self._received.drop(chunk.name)
