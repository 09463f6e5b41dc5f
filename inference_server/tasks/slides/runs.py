"""One run of an analysis over the tiles of one slide: from the start, or from where earlier runs came to."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from inference_server.engine.port import Tensor, Tensors
from inference_server.errors import AccessDenied, InvalidInput, NotFound
from inference_server.scheduler.port import Caller, Inference, InferenceRequest
from inference_server.storage import Storage
from inference_server.tasks.slides import checkpoints, large_tiles
from inference_server.tasks.slides.budget import CallBudget
from inference_server.tasks.slides.checkpoints import Journal, NotResumable, Part
from inference_server.tasks.slides.events import first_failure
from inference_server.tasks.slides.findings import AnalysisPlan, TileAnalysis
from inference_server.tasks.slides.outputs import artifacts
from inference_server.tasks.slides.progress import ProgressMeter
from inference_server.tasks.slides.readers.regions import News
from inference_server.tasks.slides.survey import Outline, Slide, fits, pixels_under_way, read_batch, scan_cells, survey
from inference_server.tasks.slides.tiling import Tile
from inference_server.tasks.slides.turns import Turn
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Checkpoint, Chunk, Pixels, Progress, Share

# Below the output, where parts lie.
FOLDER = "checkpoint"

Event = Progress | Checkpoint | Chunk | AnalysisResult
Emit = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What ran the tiles."""

    version: str
    # As engine:precision.
    engine: str
    sha256: str

    @staticmethod
    def unseen(inference: Inference, model: str) -> Ran:
        """What would run them; a blank slide has none."""
        facts = inference.facts(model)
        return Ran(version=facts.version, engine=facts.engine, sha256=facts.sha256)


@dataclass(kw_only=True)
class Run:
    """A slide with what has been found on it so far."""

    slide: Slide
    analysis: TileAnalysis
    # Numbers of the batches that earlier runs have done.
    done: set[int] = field(default_factory=set)
    # Why what they saved was not taken up; empty when it was, or there was nothing.
    refused: str = ""
    # The part of the batches that is this run's.
    share: Share = field(default_factory=Share)

    @property
    def todo(self) -> range:
        """Numbers of the batches of its share."""
        return self.share.of(len(self.slide.batches))

    @property
    def tiles_resumed(self) -> int:
        """Tiles of its share that earlier runs have computed."""
        return sum(len(self.slide.batches[number]) for number in self.todo if number in self.done)

    @property
    def tiles_total(self) -> int:
        """Tiles of its share."""
        return sum(len(self.slide.batches[number]) for number in self.todo)


class Runs:
    """Starts runs, or goes on with them."""

    def __init__(
        self,
        *,
        storage: Storage,
        request: AnalysisRequest,
        outlined: Outline,
        plan: AnalysisPlan,
        fingerprint: bytes,
        analysis_of: Callable[[Slide], Awaitable[TileAnalysis]],
        emit: Emit,
    ) -> None:
        """`analysis_of`: a fresh analysis of a slide."""
        self._storage = storage
        self._request = request
        self._outlined = outlined
        self._plan = plan
        self._fingerprint = fingerprint
        self._analysis_of = analysis_of
        self._emit = emit

    async def begin(self) -> tuple[Run, Journal | None]:
        """A run, gone on with where the request says so, and its journal where one is asked for. Raises as reading the slide does."""
        await self._emit(Progress(stage="tissue"))
        refused = ""
        if self._goes_on:
            try:
                run = await self._resumed()
                return run, self._journal(run, resumed=True)
            except NotResumable as error:
                refused = str(error)
        cells = await scan_cells(self._outlined, self._plan)
        run = await self._run(cells)
        run.refused = refused
        journal = self._journal(run, resumed=False)
        if journal:
            await journal.begin(cells)
        return run, journal

    @property
    def _goes_on(self) -> bool:
        return bool(self._request.resume_uris or self._request.resume_parts)

    async def _run(self, cells: Pixels) -> Run:
        # Calls are the same in every run of a request, so that what they compute is.
        share = checkpoints.CALL_SHARE if self._request.checkpoints or self._goes_on else 1.0
        slide = await survey(self._outlined, self._plan, cells, call_share=share)
        return Run(slide=slide, analysis=await self._analysis_of(slide), share=self._request.share)

    async def _resumed(self) -> Run:
        run: Run | None = None
        news: list[News] = []
        parts = len(self._request.resume_parts) + len(self._request.resume_uris)
        if parts > checkpoints.MOST_PARTS:
            raise NotResumable(f"it has more than {checkpoints.MOST_PARTS} parts")
        async for part in checkpoints.recall(self._content, parts, self._fingerprint):
            if part.cells is not None and run is None:
                if not fits(part.cells, self._outlined, self._plan):
                    raise NotResumable("its survey is of another size than the slide")
                run = await self._run(part.cells)
            if run is not None:
                await asyncio.to_thread(_take_up, run, part)
            news.append(News(read=part.read, unreadable=part.unreadable))
        assert run is not None  # noqa: S101 - the first part has cells
        for each in news:
            run.slide.regions.recall(each)
        return run

    async def _content(self, number: int) -> bytes:
        """Of a part."""
        sent = self._request.resume_parts
        if number < len(sent):
            return sent[number]
        try:
            return await self._storage.read(
                self._request.resume_uris[number - len(sent)], most_bytes=checkpoints.MOST_PART_BYTES, written=True
            )
        except (NotFound, AccessDenied, InvalidInput) as error:
            raise NotResumable(str(error)) from error

    def _journal(self, run: Run, *, resumed: bool) -> Journal | None:
        if not self._request.checkpoints:
            return None
        numbers = itertools.count(1)

        async def write(content: bytes, tiles_done: int) -> None:
            number = next(numbers)
            name = f"{FOLDER}/{number:06}.part"
            uri = artifacts.place(self._request.output_uri, name) if self._request.output_uri else ""
            if uri:
                await self._storage.write(uri, content)
            else:
                for offset in range(0, len(content), artifacts.CHUNK_BYTES):
                    await self._emit(Chunk(name=name, offset=offset, data=content[offset : offset + artifacts.CHUNK_BYTES]))
            saved = Checkpoint(
                part=number,
                name=name,
                uri=uri,
                size_bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                tiles_done=tiles_done,
                tiles_total=run.tiles_total,
                resumed=resumed,
            )
            await self._emit(saved)

        return Journal(
            fingerprint=self._fingerprint, tiles=run.tiles_total, news=run.slide.regions.news, write=write, done=run.tiles_resumed
        )


def _take_up(run: Run, part: Part) -> None:
    """Have the analysis collect what a part holds. Raises `NotResumable`.

    Of batches that two runs have done, as of a share that came late and of whoever computed it in its place, one is taken; others of the
    same part are computed again, because what was kept of them cannot be told apart.
    """
    numbers = set(part.batches)
    if not numbers or numbers & run.done:
        return
    if len(numbers) < len(part.batches) or not numbers <= set(range(len(run.slide.batches))):
        raise NotResumable("its parts do not fit the slide")
    try:
        run.analysis.collect([tile for number in part.batches for tile in run.slide.batches[number]], part.kept)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise NotResumable(f"a part of it cannot be taken up ({type(error).__name__})") from error
    run.done |= numbers


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
    plan = run.analysis.plan
    meter = ProgressMeter(total=run.tiles_total, done=run.tiles_resumed)
    todo = ((number, run.slide.batches[number]) for number in run.todo if number not in run.done)
    ran = Ran.unseen(flow.inference, plan.model)

    async def work() -> None:
        for number, batch in todo:
            async with flow.budget.taken(pixels_under_way(run.slide, plan, batch)):
                with meter.working():
                    kept = await one(batch)
            with meter.working():
                if journal:
                    await journal.add(number, len(batch), kept)
            if progress := meter.advance(len(batch)):
                await emit(progress)

    async def one(batch: Sequence[Tile]) -> Tensors:
        nonlocal ran
        pixels = await read_batch(run.slide, plan, batch)
        inputs = await asyncio.to_thread(run.analysis.inputs, pixels)
        request = InferenceRequest(model=plan.model, version=ran.version, inputs=inputs, outputs=plan.outputs, caller=flow.caller)
        async with AsyncExitStack() as call:
            with meter.waiting():
                await call.enter_async_context(flow.turn.call())
            response = await large_tiles.infer(flow.inference, request, plan)
        kept = await asyncio.to_thread(_taken, run.analysis, batch, pixels, response.outputs)
        ran = Ran(version=response.version, engine=response.engine, sha256=ran.sha256)
        return kept

    finished = False
    try:
        await emit(meter.now())
        with first_failure():
            async with asyncio.TaskGroup() as group:
                for _ in range(flow.calls_in_flight):
                    group.create_task(work())
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
    return ran


def _taken(analysis: TileAnalysis, batch: Sequence[Tile], pixels: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
    kept = analysis.reduce(pixels, outputs)
    analysis.collect(batch, kept)
    return kept
