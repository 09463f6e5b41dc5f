"""What an analysis saves while it runs, so that another server goes on from there: numbered parts, each with what is new since the last.

A part is a zlib stream of safetensors. Together the parts of a run, and of the runs before it that it went on from, hold all that was
found; the first holds the survey too. A part is bound to the slide's bytes, the request and the model by a fingerprint; it tells which
engine ran its tiles. One that does not fit, or is lost, takes its own tiles with it and no others; but one that fits and holds what the
analysis cannot use spoils what was taken up with it, and the analysis starts over.
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
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides.findings import AnalysisPlan
from inference_server.tasks.slides.readers.regions import News
from inference_server.tasks.slides.values import Pixels, Place

# Raised whenever the same slide and model would give other results, or parts are written otherwise.
_FORMAT = 5
# A part is due after this share of the tiles; at most twice as many are not saved, beside those in flight: 5 % in all.
PORTION = 0.01
# Most tiles of a model call while checkpoints are saved. Of four in flight, one waits for the part that it saves, or less is not saved.
CALL_SHARE = 0.01
# A part is due after so many seconds in any case, and not sooner than so many after the last.
_MOST_SECONDS = 10.0
_LEAST_SECONDS = 0.1
# Most bytes of a part when it is unpacked.
MOST_PART_BYTES = 512 * 1024 * 1024
# Most parts that a request may name: those of a week.
MOST_PARTS = 20_000
_KEPT = "kept."


class NotResumable(Exception):
    """A part of what was saved does not fit the request or cannot be read; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What was new when it was saved."""

    fingerprint: bytes
    # Mean colours of the tissue mask's cells, in the first part of a slide.
    cells: Pixels | None
    # Numbers of the batches that were done, what ran each of them, as engine:precision, and what the analysis kept of their tiles, in
    # that order.
    batches: tuple[int, ...]
    engines: tuple[str, ...]
    kept: Tensors
    # Stored tiles that were read, and those of them that could not be decoded.
    read: Sequence[Place]
    unreadable: Sequence[Place]


def fingerprint(
    *, slide: Sequence[StoredObject], plan: AnalysisPlan, mpp: tuple[float, float], model: ModelFacts, settings: Mapping[str, object]
) -> bytes:
    """Names all that the result depends on but the engines, which are held to the same reference.

    `slide`: its files as they were opened; `settings`: how the model is used, beside the plan.
    """
    told = {
        "format": _FORMAT,
        "slide": sorted([each.uri, each.size_bytes, each.revision] for each in slide),
        "plan": asdict(plan),
        "mpp": mpp,
        "model": [model.name, model.version, model.sha256],
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()


def pack(part: Part) -> bytes:
    """A part as bytes; blocks."""
    tensors: dict[str, NDArray[np.generic]] = {
        "fingerprint": np.frombuffer(part.fingerprint, np.uint8),
        "batches": np.array(part.batches, np.int32),
        "engines": np.frombuffer("\n".join(part.engines).encode(), np.uint8),
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
    if not content:
        raise NotResumable("a part of the checkpoint is missing")
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(content, MOST_PART_BYTES)
        if not stream.eof:
            raise NotResumable("a part of the checkpoint is cut short, or too large")
        tensors = load(raw)
        batches, engines = tuple(tensors["batches"].tolist()), tuple(tensors["engines"].tobytes().decode().splitlines())
        if len(engines) != len(batches):
            raise NotResumable("a part of the checkpoint does not tell which engine ran its tiles")
        return Part(
            fingerprint=tensors["fingerprint"].tobytes(),
            cells=tensors.get("cells"),
            batches=batches,
            engines=engines,
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
        self._pending: list[tuple[int, str, Tensors]] = []
        # Tiles that wait to be saved, and all that are not saved yet: those of a part that is being written too.
        self._waiting = self._unsaved = 0
        self._written_at = time.monotonic()
        self._turn = asyncio.Lock()

    async def begin(self, cells: Pixels) -> None:
        """Save the survey. Raises as `write` does."""
        async with self._turn:
            await self._save(cells)

    async def add(self, batch: int, tiles: int, *, engine: str, kept: Tensors) -> None:
        """Take up a batch that is done. Whoever finds a part due saves it; while too much is unsaved, all wait for that."""
        self._pending.append((batch, engine, kept))
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
            batches=tuple(number for number, _, _ in pending),
            engines=tuple(engine for _, engine, _ in pending),
            kept=_joined([kept for _, _, kept in pending]),
            read=news.read,
            unreadable=news.unreadable,
        )
        self._saved += tiles
        await self._write(await asyncio.to_thread(pack, part), self._saved)
        self._unsaved -= tiles


def _joined(kept: Sequence[Tensors]) -> Tensors:
    return {name: np.concatenate([each[name] for each in kept]) for name in kept[0]} if kept else {}


class Refusals:
    """Parts that were not taken up, and why."""

    def __init__(self, parts: int) -> None:
        """`parts`: of all."""
        self._parts = parts
        self.count = 0
        self._reason = ""

    def add(self, reason: str, parts: int = 1) -> None:
        """Count so many more."""
        self.count += parts
        self._reason = self._reason or reason

    def told(self) -> str:
        """In words; empty where all were taken up."""
        if not self.count or self.count >= self._parts:
            return self._reason
        return f"{self.count:,} of {self._parts:,} parts were not taken up, and their tiles are computed again; the first: {self._reason}"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The parts of earlier runs."""

    count: int
    # The bytes of a number; raises `NotResumable`.
    read: Callable[[int], Awaitable[bytes]]
    # What they must have been saved for, and whether cells are of the slide.
    fingerprint: bytes
    fits: Callable[[Pixels], bool]
    refusals: Refusals

    async def part(self, number: int) -> Part | None:
        """One of them; none where it does not fit or cannot be read, which is told to the refusals."""
        try:
            part = await asyncio.to_thread(unpack, await self.read(number))
            if part.fingerprint != self.fingerprint:
                raise NotResumable("it was saved for another state of the slide, another request or another model")
            if part.cells is not None and not self.fits(part.cells):
                raise NotResumable("its survey is of another size than the slide")
        except NotResumable as error:
            self.refusals.add(str(error))
            return None
        return part


async def recall(saved: Saved) -> AsyncIterator[Part]:
    """The parts that fit, one at a time, the first with the cells if any has them.

    Those that come before all cells wait, and are read again: together they may hold more than memory does.
    """
    surveyed, early = False, list[int]()
    for number in range(min(saved.count, MOST_PARTS)):
        part = await saved.part(number)
        surveyed = surveyed or (part is not None and part.cells is not None)
        if part is not None and surveyed:
            yield part
        elif part is not None:
            early.append(number)
    if saved.count > MOST_PARTS:
        saved.refusals.add(f"there are more than {MOST_PARTS:,} parts", saved.count - MOST_PARTS)
    for number in early:
        part = await saved.part(number)
        if part is not None:
            yield part
