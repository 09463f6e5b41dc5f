"""The embedded names of a catalogue, kept on disk so that each name is computed once for each encoder."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from inference_server.scheduler.port import Caller, ModelFacts
from inference_server.tasks.labs.catalogue.catalogue import FOLDER
from inference_server.tasks.labs.embed import Embedder, Vectors

_log = structlog.get_logger()
# Behind every client: a catalogue may be embedded while the server serves.
_CALLER = Caller(client="catalogue", priority=1_000)
# Names embedded between two writes, so that a restart in between does not begin anew.
_KEPT_EVERY = 4096


async def embedded_names(
    texts: Sequence[str], embedder: Embedder, models: Path, *, model: str, progress: Callable[[int], None] | None = None
) -> Vectors:
    """One row for each of the unique texts, from the disk where it is known there; `progress` gets the count of texts that are done.

    Where the folder cannot be written, that is logged and the rows are kept in memory alone.
    """
    path = models / FOLDER / f"vectors-{_digest(embedder.facts(model))}.npz"
    known = await asyncio.to_thread(_read, path)
    missing = [text for text in texts if _key(text) not in known]
    for start in range(0, len(missing), _KEPT_EVERY):
        part = missing[start : start + _KEPT_EVERY]
        report = None if progress is None else partial(_report, progress, len(texts) - len(missing) + start)
        rows, _ = await embedder.embed(part, model=model, caller=_CALLER, progress=report)
        known.update(zip(map(_key, part), rows, strict=True))
        await asyncio.to_thread(_write, path, known)
    return await asyncio.to_thread(lambda: np.stack([known[_key(text)] for text in texts]).astype(np.float32))


def _report(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _digest(facts: ModelFacts) -> str:
    return hashlib.sha256(f"{facts.name}:{facts.version}:{facts.sha256}".encode()).hexdigest()[:24]


def _read(path: Path) -> dict[int, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(zip(file["keys"].tolist(), file["vectors"], strict=True))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return {}


def _write(path: Path, known: Mapping[int, NDArray[np.generic]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=".vectors-", dir=path.parent, delete=False) as file:
            # Half precision changes a cosine by less than 0.001.
            np.savez(file, keys=np.array(list(known), np.uint64), vectors=np.stack(list(known.values())).astype(np.float16))
        # Whoever reads the models folder reads this too.
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        _log.warning("vectors_not_kept", folder=str(path.parent), error=type(error).__name__)
