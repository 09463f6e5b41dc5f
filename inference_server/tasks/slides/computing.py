"""Runs the tiles of a slide that no earlier run has done: read, computed and taken up side by side."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from inference_server.engine.port import Tensor, Tensors
from inference_server.scheduler.port import Caller, Inference, InferenceRequest
from inference_server.tasks.slides import large_tiles
from inference_server.tasks.slides.budget import CallBudget
from inference_server.tasks.slides.checkpoints import Journal
from inference_server.tasks.slides.events import first_failure
from inference_server.tasks.slides.findings import TileAnalysis
from inference_server.tasks.slides.progress import ProgressMeter
from inference_server.tasks.slides.runs import Emit, Run
from inference_server.tasks.slides.survey import boxes_of, pixels_under_way, read_batch
from inference_server.tasks.slides.tiling import Tile
from inference_server.tasks.slides.turns import Turn
from inference_server.tasks.slides.values import Pixels
from inference_server.threads import in_thread

# Most tiles that are read together for several calls, where these are of few: half of what a call of one tile costs is told by the read.
_READ_TOGETHER = 12
# A part of a checkpoint, or what is told of it, is taken within this time: else the store or the caller has gone quiet.
_QUIET_SECONDS = 2.0
# The number of a call, and its tiles.
_Numbered = tuple[int, Sequence[Tile]]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What ran the tiles."""

    version: str
    # As engine:precision; where several did, all of them.
    engine: str
    sha256: str

    @staticmethod
    def unseen(inference: Inference, model: str) -> Ran:
        """What would run them; a blank slide has none."""
        facts = inference.facts(model)
        return Ran(version=facts.version, engine=facts.engine, sha256=facts.sha256)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What calls of a model go through."""

    inference: Inference
    caller: Caller
    # At most, of this run.
    calls_in_flight: int
    # Of what the calls of all slides hold.
    budget: CallBudget
    # The slide's among those that want the model; tiles are read before it comes.
    turn: Turn


async def compute(run: Run, journal: Journal | None, flow: Flow, *, emit: Emit) -> Ran:
    """Run all tiles that are not done, several calls at once: while one is computed, others are read and taken up.

    Raises `InvalidSlide`, and as `Inference.infer` and the journal do.
    """
    calls = _Calls(run, journal, flow, emit)
    finished = False
    try:
        await _announce(run)
        await emit(calls.meter.now())
        with first_failure():
            async with asyncio.TaskGroup() as group:
                for _ in range(flow.calls_in_flight):
                    group.create_task(calls.work())
        if journal:
            await journal.end()
        # Of a part of the slide too many may be damaged where of the whole there are few: who merges the shares judges.
        if run.share.whole:
            run.slide.regions.judge()
            finished = True
    finally:
        # Of a whole slide a picture may be made from what is held; else nothing more is read, and the memory is given back.
        if not finished:
            run.slide.regions.forget()
    return replace(calls.ran, engine=", ".join(sorted(set(run.engines.values()))) or calls.ran.engine)


async def _announce(run: Run) -> None:
    """Have nothing fetched for tiles that earlier runs have done, or that are another share's."""
    slide = run.slide
    todo = [tile for number in run.todo if number not in run.done for tile in slide.batches[number]]
    if len(todo) < len(slide.tiles):
        slide.regions.narrow(slide.grid.level, await asyncio.to_thread(boxes_of, todo, slide.grid, run.analysis.plan.halo))


class _Calls:
    """The calls of a run, which several tasks make one after another."""

    def __init__(self, run: Run, journal: Journal | None, flow: Flow, emit: Emit) -> None:
        self._run = run
        self._plan = run.analysis.plan
        self._journal = journal
        self._flow = flow
        self._emit = emit
        todo = ((number, run.slide.batches[number]) for number in run.todo if number not in run.done)
        # Not so many that tasks wait for the last of them while the model has nothing to do.
        fair = run.tiles_total // (4 * flow.calls_in_flight)
        self._todo = _together(todo, min(self._plan.batch, _READ_TOGETHER, fair))
        self.meter = ProgressMeter(total=run.tiles_total, done=run.tiles_resumed)
        # What ran the last one.
        self.ran = Ran.unseen(flow.inference, self._plan.model)

    async def work(self) -> None:
        """Make calls until none is left that nobody has begun."""
        for calls in self._todo:
            left: Sequence[_Numbered] = calls
            while left:
                left = await self._make(left)
                self._expect_again(left)

    async def _make(self, calls: Sequence[_Numbered]) -> Sequence[_Numbered]:
        """Make calls whose tiles are read together; their pixels are counted until the last one needs them no more.

        Where the store or the caller has gone quiet, what was read for the next calls is let go of, so that no other slide waits for its
        room. These calls are answered, and read again.
        """
        run, meter = self._run, self.meter
        tiles = [tile for _, batch in calls for tile in batch]
        async with self._flow.budget.taken(pixels_under_way(run.slide, self._plan, tiles)) as give_back:
            with meter.working():
                read = await self._read(tiles, [len(batch) for _, batch in calls])

            def let_go() -> None:
                read.clear()
                give_back()

            for done, (number, batch) in enumerate(calls, 1):
                with meter.working():
                    kept, run.engines[number] = await self._call(batch, *read.popleft())
                if not read:
                    give_back()
                quiet = asyncio.get_running_loop().call_later(_QUIET_SECONDS, let_go)
                try:
                    await self._tell(number, batch, kept)
                finally:
                    quiet.cancel()
                if not read:
                    return calls[done:]
        return ()

    def _expect_again(self, calls: Sequence[_Numbered]) -> None:
        """Tell that tiles which were read for these calls are read once more."""
        grid = self._run.slide.grid
        tiles = [tile for _, batch in calls for tile in batch]
        self._run.slide.regions.expect_again(grid.level, boxes_of(tiles, grid, self._plan.halo))

    async def _tell(self, number: int, batch: Sequence[Tile], kept: Tensors) -> None:
        """Have what a call made saved, and tell how far the slide is."""
        with self.meter.working():
            if self._journal:
                await self._journal.add(number, len(batch), engine=self._run.engines[number], kept=kept)
        if progress := self.meter.advance(len(batch)):
            await self._emit(progress)

    async def _read(self, tiles: Sequence[Tile], counts: Sequence[int]) -> deque[tuple[Pixels, Tensors]]:
        """Pixels and the model's inputs for calls of so many tiles each."""
        pixels = await read_batch(self._run.slide, self._plan, tiles)
        # Short, and the model waits for it: not behind tiles that are decoded for later calls.
        inputs = await in_thread(self._run.analysis.inputs, pixels)
        ends = list(itertools.accumulate(counts))
        parts = [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]
        return deque((pixels[part], {name: each[part] for name, each in inputs.items()}) for part in parts)

    async def _call(self, batch: Sequence[Tile], pixels: Pixels, inputs: Tensors) -> tuple[Tensors, str]:
        """What is kept of its tiles, and the engine that computed it."""
        plan, flow = self._plan, self._flow
        request = InferenceRequest(model=plan.model, version=self.ran.version, inputs=inputs, outputs=plan.outputs, caller=flow.caller)
        async with AsyncExitStack() as call:
            with self.meter.waiting():
                await call.enter_async_context(flow.turn.call())
            response = await large_tiles.infer(flow.inference, request, plan)
        kept = await in_thread(_taken, self._run.analysis, batch, pixels, response.outputs)
        self.ran = Ran(version=response.version, engine=response.engine, sha256=self.ran.sha256)
        return kept, response.engine


def _together(calls: Iterable[_Numbered], most: int) -> Iterator[list[_Numbered]]:
    """Calls one after another, some at a time: of so many tiles at most, but one call in any case."""
    some: list[_Numbered] = []
    for call in calls:
        if some and sum(len(batch) for _, batch in (*some, call)) > most:
            yield some
            some = []
        some.append(call)
    if some:
        yield some


def _taken(analysis: TileAnalysis, batch: Sequence[Tile], pixels: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
    kept = analysis.reduce(pixels, outputs)
    analysis.collect(batch, kept)
    return kept
