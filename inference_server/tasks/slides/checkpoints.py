"""What an analysis saves while it runs, so that another server goes on from there: numbered parts, each with what is new since the last.

A part is a zlib stream of safetensors. Together the parts of a run, and of the runs before it that it went on from, hold all that was
found; the first holds the survey too. A part is bound to the slide's bytes, the request, the model, and the engine by a fingerprint.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from inference_server.engine.port import Tensors
from inference_server.scheduler.port import ModelFacts
from inference_server.stored import StoredObject
from inference_server.tasks.slides.findings import AnalysisPlan
from inference_server.tasks.slides.readers.regions import News
from inference_server.tasks.slides.values import Pixels, Place

# Raised whenever the same slide and model would give other results, or parts are written otherwise.
_FORMAT = 2
# A part is due after this share of the tiles; at most twice as many are not saved, beside those in flight: 4 % in all.
PORTION = 0.015
# Tiles of one model call while checkpoints are saved: a smaller share, so that few are lost in flight.
CALL_SHARE = 0.0025
# A part is due after so many seconds in any case, and not sooner than so many after the last.
_MOST_SECONDS = 10.0
_LEAST_SECONDS = 0.1
# Most bytes of a part when it is unpacked.
MOST_PART_BYTES = 512 * 1024 * 1024
# Most parts that a request may name: those of a week.
MOST_PARTS = 20_000
_KEPT = "kept."


class NotResumable(Exception):
    """What was saved does not fit the request or cannot be read; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What was new when it was saved."""

    fingerprint: bytes
    # Mean colours of the tissue mask's cells, in the first part of a slide.
    cells: Pixels | None
    # Numbers of the batches that were done, and what the analysis kept of their tiles, in that order.
    batches: tuple[int, ...]
    kept: Tensors
    # Stored tiles that were read, and those of them that could not be decoded.
    read: Sequence[Place]
    unreadable: Sequence[Place]


def fingerprint(
    *, slide: Sequence[StoredObject], plan: AnalysisPlan, mpp: tuple[float, float], model: ModelFacts, settings: Mapping[str, object]
) -> bytes:
    """Names all that the result depends on. `slide`: its files as they were opened; `settings`: how the model is used, beside the plan."""
    told = {
        "format": _FORMAT,
        "slide": sorted([each.uri, each.size_bytes, each.revision] for each in slide),
        "plan": asdict(plan),
        "mpp": mpp,
        "model": [model.name, model.version, model.sha256, model.engine],
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()


def pack(part: Part) -> bytes:
    """A part as bytes; blocks."""
    tensors: dict[str, NDArray[np.generic]] = {
        "fingerprint": np.frombuffer(part.fingerprint, np.uint8),
        "batches": np.array(part.batches, np.int32),
        "read": np.array(part.read, np.int32).reshape(-1, 3),
        "unreadable": np.array(part.unreadable, np.int32).reshape(-1, 3),
        **{f"{_KEPT}{name}": np.ascontiguousarray(values) for name, values in part.kept.items()},
    }
    if part.cells is not None:
        tensors["cells"] = np.ascontiguousarray(part.cells)
    # A sixth of the time that zlib takes.
    return isal_zlib.compress(save(tensors), 1)


def unpack(content: bytes) -> Part:
    """Bytes as a part; blocks. Raises `NotResumable`."""
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(content, MOST_PART_BYTES)
        if not stream.eof:
            raise NotResumable("a part of the checkpoint is cut short, or too large")
        tensors = load(raw)
        return Part(
            fingerprint=tensors["fingerprint"].tobytes(),
            cells=tensors.get("cells"),
            batches=tuple(tensors["batches"].tolist()),
            kept={name.removeprefix(_KEPT): values for name, values in tensors.items() if name.startswith(_KEPT)},
            read=_places(tensors["read"]),
            unreadable=_places(tensors["unreadable"]),
        )
    except (zlib.error, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise NotResumable(f"a part of the checkpoint cannot be read ({type(error).__name__})") from error


def _places(values: NDArray[np.generic]) -> list[Place]:
    return [(int(level), int(column), int(row)) for level, column, row in values.tolist()]


class Journal:
    """Saves the parts of one run, when they are due."""

    def __init__(
        self, *, fingerprint: bytes, tiles: int, news: Callable[[], News], write: Callable[[bytes, int], Awaitable[None]], done: int = 0
    ) -> None:
        """`tiles`: in all; `done`: those saved by earlier runs. `write`: keeps a part, told how many tiles are saved with it."""
        self._fingerprint = fingerprint
        self._portion = max(PORTION * tiles, 1.0)
        self._news = news
        self._write = write
        self._saved = done
        self._pending: list[tuple[int, Tensors]] = []
        # Tiles that wait to be saved, and all that are not saved yet: those of a part that is being written too.
        self._waiting = self._unsaved = 0
        self._written_at = time.monotonic()
        self._turn = asyncio.Lock()

    async def begin(self, cells: Pixels) -> None:
        """Save the survey. Raises as `write` does."""
        async with self._turn:
            await self._save(cells)

    async def add(self, batch: int, tiles: int, kept: Tensors) -> None:
        """Take up a batch that is done. Whoever finds a part due saves it; while too much is unsaved, all wait for that."""
        self._pending.append((batch, kept))
        self._waiting += tiles
        self._unsaved += tiles
        busy, behind = self._turn.locked(), self._unsaved >= 2 * self._portion
        if (busy and behind) or (not busy and self._due()):
            async with self._turn:
                if self._due():
                    await self._save(None)

    async def end(self) -> None:
        """Save what is left."""
        async with self._turn:
            if self._pending:
                await self._save(None)

    def _due(self) -> bool:
        passed = time.monotonic() - self._written_at
        return bool(self._pending) and passed >= _LEAST_SECONDS and (self._waiting >= self._portion or passed >= _MOST_SECONDS)

    async def _save(self, cells: Pixels | None) -> None:
        tiles, pending, news = self._waiting, self._pending, self._news()
        self._pending, self._waiting, self._written_at = [], 0, time.monotonic()
        part = Part(
            fingerprint=self._fingerprint,
            cells=cells,
            batches=tuple(number for number, _ in pending),
            kept=_joined([kept for _, kept in pending]),
            read=news.read,
            unreadable=news.unreadable,
        )
        self._saved += tiles
        await self._write(await asyncio.to_thread(pack, part), self._saved)
        self._unsaved -= tiles


def _joined(kept: Sequence[Tensors]) -> Tensors:
    return {name: np.concatenate([each[name] for each in kept]) for name in kept[0]} if kept else {}


async def recall(read: Callable[[int], Awaitable[bytes]], count: int, fingerprint: bytes) -> AsyncIterator[Part]:
    """So many parts of earlier runs, one at a time, the first with the cells. `read`: the bytes of a number. Raises `NotResumable`.

    Those that come before all cells wait, and are read again: together they may hold more than memory does.
    """

    async def found(number: int) -> Part:
        part = await asyncio.to_thread(unpack, await read(number))
        if part.fingerprint != fingerprint:
            raise NotResumable("it was saved for another state of the slide, the request, the model or its engine")
        return part

    surveyed, early = False, list[int]()
    for number in range(count):
        part = await found(number)
        surveyed = surveyed or part.cells is not None
        if surveyed:
            yield part
        else:
            early.append(number)
    if not surveyed:
        raise NotResumable("its first part is missing, which holds the survey")
    for number in early:
        yield await found(number)
