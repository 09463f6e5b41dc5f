"""When the parts of a checkpoint are saved."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from inference_server.tasks.slides import checkpoints
from inference_server.tasks.slides.checkpoints import Journal, unpack
from inference_server.tasks.slides.readers.regions import News


class Slide:
    """One of 10,000 tiles, and the numbers of the batches in each of its parts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        self.parts: list[tuple[int, ...]] = []
        # As told with each part.
        self.saved: list[int] = []
        monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: self.seconds))
        self._journal = Journal(fingerprint=b"slide", tiles=10_000, news=lambda: News(read=[], unreadable=[]), write=self._write)

    async def done(self, batch: int, tiles: int = 1, *, after: float) -> None:
        """So many seconds after the last, a batch of tiles is done."""
        self.seconds += after
        await self._journal.add(batch, tiles, engine="engine:float32", kept={"value": np.full(tiles, batch)})

    async def _write(self, part: bytes, saved: int) -> None:
        self.parts.append(unpack(part).batches)
        self.saved.append(saved)


async def test_what_is_done_is_saved_after_ten_seconds_however_little_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Slide(monkeypatch)
    for batch in range(31):
        await slide.done(batch, after=1.0)
    assert [tuple(range(10)), tuple(range(10, 20)), tuple(range(20, 30))] == slide.parts
    assert [10, 20, 30] == slide.saved


async def test_a_part_is_due_sooner_when_much_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 % of the tiles."""
    slide = Slide(monkeypatch)
    for batch in range(5):
        await slide.done(batch, 50, after=0.2)
    assert [(0, 1), (2, 3)] == slide.parts


async def test_parts_are_a_tenth_of_a_second_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Slide(monkeypatch)
    for batch in range(9):
        await slide.done(batch, 150, after=0.03)
    assert [(0, 1, 2, 3), (4, 5, 6, 7)] == slide.parts
