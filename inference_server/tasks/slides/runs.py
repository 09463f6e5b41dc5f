"""One run of an analysis over the tiles of one slide: from the start, or from where earlier runs came to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from inference_server.errors import AccessDenied, ContentChanged, InvalidInput, NotFound
from inference_server.storage.storage import Storage
from inference_server.tasks.slides import checkpoints
from inference_server.tasks.slides.checkpoints import Journal, NotResumable, Part, Refusals, Saved, recall
from inference_server.tasks.slides.findings import AnalysisPlan, TileAnalysis
from inference_server.tasks.slides.outputs import artifacts
from inference_server.tasks.slides.readers.regions import News
from inference_server.tasks.slides.survey import Outline, Slide, boxes_of, fits, read_batch, scan_cells, survey
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Checkpoint, Chunk, Pixels, Progress, Share

# Below the output, where parts lie.
FOLDER = "checkpoint"
_NAME = re.compile(r"([0-9]{1,12})\.part")

Event = Progress | Checkpoint | Chunk | AnalysisResult
Emit = Callable[[Event], Awaitable[None]]


@dataclass(kw_only=True)
class Run:
    """A slide with what has been found on it so far."""

    slide: Slide
    analysis: TileAnalysis
    # Numbers of the batches that earlier runs have done.
    done: set[int] = field(default_factory=set)
    # By number, which engine ran each batch that is done, as engine:precision.
    engines: dict[int, str] = field(default_factory=dict)
    # Why what earlier runs saved was not taken up, or some of it; empty when all was, or there was nothing.
    refused: str = ""
    # Whether any part of it was, even where it holds no tiles but the survey.
    resumed: bool = False
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


class _Spoiled(Exception):
    """A part was taken up that an analysis cannot use, so that nothing that was taken up can be told from it; the message says why."""


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
        refusals = Refusals(self._parts)
        try:
            run, scanned = await self._resumed(refusals)
        except _Spoiled as error:
            refusals = Refusals(self._parts)
            refusals.add(str(error), self._parts)
            run = scanned = None
        if run is None:
            scanned = await scan_cells(self._outlined, self._plan)
            run = await self._run(scanned)
        run.refused = refusals.told()
        journal = await self._journal(run)
        if journal and scanned is not None:
            await journal.begin(scanned)
        return run, journal

    @property
    def _parts(self) -> int:
        return len(self._request.resume_parts) + len(self._request.resume_uris)

    async def _run(self, cells: Pixels) -> Run:
        # Calls are the same in every run of a request, so that what they compute is.
        share = checkpoints.CALL_SHARE if self._request.checkpoints or self._parts else 1.0
        slide = await survey(self._outlined, self._plan, cells, call_share=share)
        return Run(slide=slide, analysis=await self._analysis_of(slide), share=self._request.share)

    async def _resumed(self, refusals: Refusals) -> tuple[Run | None, Pixels | None]:
        """What earlier runs saved; and the cells, where they had to be read again. Nothing where no part can be taken up."""
        run, scanned, news = None, None, list[News]()
        saved = Saved(
            count=self._parts,
            read=self._content,
            fingerprint=self._fingerprint,
            fits=partial(fits, outlined=self._outlined, plan=self._plan),
            refusals=refusals,
        )
        async for part in recall(saved):
            if run is None:
                cells = part.cells
                if cells is None:
                    cells = scanned = await scan_cells(self._outlined, self._plan)
                run = await self._run(cells)
                del cells
            if reason := await asyncio.to_thread(_take_up, run, part):
                refusals.add(reason)
            else:
                news.append(News(read=part.read, unreadable=part.unreadable))
        if run is None or not run.resumed:
            return None, None
        for each in news:
            run.slide.regions.recall(each)
        if refusals.count:
            await self._read_again(run)
        return run, scanned

    async def _read_again(self, run: Run) -> None:
        """Read the tiles below which lie stored ones that none but a lost part has told of: they may be damaged."""
        slide, halo = run.slide, self._plan.halo

        def untold() -> list[int]:
            numbered = ((number, boxes_of(slide.batches[number], slide.grid, halo)) for number in sorted(run.done))
            return [number for number, boxes in numbered if slide.regions.lacks(slide.grid.level, boxes)]

        for number in await asyncio.to_thread(untold):
            await read_batch(slide, self._plan, slide.batches[number])

    async def _content(self, number: int) -> bytes:
        """Of a part."""
        sent = self._request.resume_parts
        if number < len(sent):
            return sent[number]
        try:
            return await self._storage.read(
                self._request.resume_uris[number - len(sent)], most_bytes=checkpoints.MOST_PART_BYTES, written=True
            )
        except (NotFound, AccessDenied, InvalidInput, ContentChanged) as error:
            raise NotResumable(str(error)) from error

    def _last_number(self) -> int:
        """The highest by which parts that are gone on from are named where those of this run are written: none is replaced. Blocks."""
        if not self._request.output_uri:
            return 0
        folder, last = self._storage.written_place(artifacts.place(self._request.output_uri, FOLDER)), 0
        for uri in self._request.resume_uris:
            with contextlib.suppress(AccessDenied, InvalidInput):  # such a part is not read either
                place = self._storage.written_place(uri)
                number = _NAME.fullmatch(place.name) if place.parent == folder else None
                last = max(last, int(number[1]) if number else 0)
        return last

    async def _journal(self, run: Run) -> Journal | None:
        if not self._request.checkpoints:
            return None
        numbers, earlier = itertools.count(1), await asyncio.to_thread(self._last_number)

        async def write(content: bytes, tiles_done: int) -> None:
            number = next(numbers)
            name = f"{FOLDER}/{earlier + number:06}.part"
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
                resumed=run.resumed,
            )
            await self._emit(saved)

        return Journal(
            fingerprint=self._fingerprint, tiles=run.tiles_total, news=run.slide.regions.news, write=write, done=run.tiles_resumed
        )


def _take_up(run: Run, part: Part) -> str:
    """Have the analysis collect what a part holds; why it cannot, if so. Raises `_Spoiled`.

    Of batches that two runs have done, as of a share that came late and of whoever computed it in its place, one is taken; others of the
    same part are computed again, because what was kept of them cannot be told apart.
    """
    numbers = set(part.batches)
    if len(numbers) < len(part.batches) or not numbers <= set(range(len(run.slide.batches))):
        return "it does not fit the slide"
    run.resumed = True
    if not numbers or numbers & run.done:
        return ""
    try:
        run.analysis.collect([tile for number in part.batches for tile in run.slide.batches[number]], part.kept)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise _Spoiled(f"a part of it cannot be taken up ({type(error).__name__})") from error
    run.done |= numbers
    run.engines.update(zip(part.batches, part.engines, strict=True))
    return ""
