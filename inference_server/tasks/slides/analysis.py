"""The slide task: opens a slide, runs an analysis over its tissue with reading and inference overlapped, and delivers what it found."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from inference_server.scheduler.port import Caller, Inference, InferenceRequest
from inference_server.storage import Storage
from inference_server.tasks.builtin import builtin_facts
from inference_server.tasks.slides import artifacts, he_baseline, manifest, report, resolution
from inference_server.tasks.slides.classifier import SlideClassification, TileClassifier
from inference_server.tasks.slides.events import EventStream, first_failure
from inference_server.tasks.slides.findings import AnalysisPlan, Findings, TileAnalysis
from inference_server.tasks.slides.grid import Grid, choose_grid, coarser, read_cells
from inference_server.tasks.slides.progress import ProgressMeter
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.port import SlideReader
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.tile_calls import analyze_client_tiles
from inference_server.tasks.slides.tiling import Tile, tissue_tiles
from inference_server.tasks.slides.tissue import Tissue, find_tissue, scan
from inference_server.tasks.slides.values import (
    AnalysisRequest,
    AnalysisResult,
    Chunk,
    ClientTile,
    Pixels,
    Progress,
    SlideFacts,
    SlideLimits,
    TileFindings,
)

_log = structlog.get_logger()

Event = Progress | Chunk | AnalysisResult


class SlideAnalyzer:
    """Analyses slides with the models of a repository."""

    def __init__(self, *, inference: Inference, storage: Storage, models: Path, limits: SlideLimits | None = None) -> None:
        """`models`: the repository's folder, where the manifests of tile models lie."""
        self._inference = inference
        self._storage = storage
        self._models = models
        self._limits = limits or SlideLimits()

    async def info(self, slide_uri: str) -> SlideFacts:
        """What a slide is, from its headers. Raises `NotFound`, `AccessDenied`, `InvalidSlide`, `Unavailable`."""
        async with open_slide(self._storage, slide_uri, self._limits) as reader:
            return reader.facts

    def analyze(self, request: AnalysisRequest, caller: Caller) -> AsyncGenerator[Event]:
        """Run one analysis: progress, then chunks when there is no output_uri, then the result.

        Closing the iterator stops the work at once. Raises `NotFound`, `AccessDenied`, `InvalidInput`, `InvalidSlide`, `Unavailable`
        and what `Inference.infer` raises.
        """
        return EventStream[Event]().run(lambda emit: self._run(request, caller, emit))

    async def analyze_tiles(self, analysis: str, tiles: Sequence[ClientTile], mpp: float, caller: Caller) -> tuple[list[TileFindings], str]:
        """Run a tile model on pixels that the client holds: findings in the order of the tiles, and the model as name:version."""
        name = analysis or he_baseline.NAME
        classifier = None if name == he_baseline.NAME else await self._classifier(name)
        return await analyze_client_tiles(self._inference, tiles, mpp, classifier=classifier, limits=self._limits, caller=caller)

    async def _run(self, request: AnalysisRequest, caller: Caller, emit: Callable[[Event], Awaitable[None]]) -> None:
        started = time.monotonic()
        plan, classifier = await self._plan(request)
        if request.output_uri:
            for name in artifacts.MEDIA_TYPES:
                await asyncio.to_thread(self._storage.check_writable, artifacts.place(request.output_uri, name))
        await emit(Progress(stage="reading"))
        async with open_slide(self._storage, request.slide_uri, self._limits) as reader:
            slide = await self._survey(reader, request, plan)
            analysis = _analysis(slide, plan, classifier)
            engine = await self._tiles(slide, analysis, caller, emit)
            await emit(Progress(stage="artifacts", tiles_done=len(slide.tiles), tiles_total=len(slide.tiles)))
            result = await self._deliver(request, slide, analysis, engine, emit, started)
        _log.info(
            "slide_analyzed",
            request_id=request.request_id,
            analysis=plan.model,
            engine=result.engine,
            tiles=result.tiles_analyzed,
            unreadable=result.tiles_skipped,
            seconds=round(result.duration_seconds, 3),
        )
        await emit(result)

    async def _plan(self, request: AnalysisRequest) -> tuple[AnalysisPlan, TileClassifier | None]:
        name = request.analysis or he_baseline.NAME
        if name == he_baseline.NAME:
            builtin_facts(self._inference, name)
            return he_baseline.plan_of(request.tile_size), None
        classifier = await self._classifier(name)
        return classifier.plan(request.tile_size), classifier

    async def _classifier(self, name: str) -> TileClassifier:
        described = await asyncio.to_thread(manifest.read, self._models, name)
        return TileClassifier(manifest=described, facts=self._inference.facts(name))

    async def _survey(self, reader: SlideReader, request: AnalysisRequest, plan: AnalysisPlan) -> _Slide:
        facts = reader.facts
        mpp = resolution.effective(facts, request.mpp)
        resolution.check_fine_enough(facts, mpp, wanted=plan.mpp, analysis=plan.model)
        grid = choose_grid(facts, mpp, plan.mpp)
        regions = Regions(reader, cache_bytes=self._limits.cache_bytes, most_unreadable=self._limits.most_unreadable)
        cells = await scan(regions, coarser(facts, grid, plan.cell))
        tissue = await find_tissue(facts, coarser(facts, grid, plan.cell), cells)
        tiles = tissue_tiles(tissue.mask, cell=plan.cell, size=plan.tile_size, least=plan.least_tissue)
        return _Slide(regions=regions, facts=facts, mpp=mpp, grid=grid, cells=cells, tissue=tissue, tiles=tiles)

    async def _tiles(self, slide: _Slide, analysis: TileAnalysis, caller: Caller, emit: Callable[[Event], Awaitable[None]]) -> _Ran:
        """Several batches at once: while one is computed, others are read and taken up."""
        plan = analysis.plan
        meter = ProgressMeter(total=len(slide.tiles))
        batches = _batches(slide.tiles, plan.batch)
        ran = _Ran.unseen(self._inference, plan.model)

        async def work() -> None:
            nonlocal ran
            for batch in batches:
                pixels = await _read(slide, plan, batch)
                inputs = await asyncio.to_thread(analysis.inputs, pixels)
                response = await self._inference.infer(
                    InferenceRequest(model=plan.model, version=ran.version, inputs=inputs, outputs=plan.outputs, caller=caller)
                )
                await asyncio.to_thread(analysis.collect, batch, response.outputs)
                ran = _Ran(version=response.version, engine=response.engine, sha256=ran.sha256)
                if progress := meter.advance(len(batch)):
                    await emit(progress)

        await emit(meter.now())
        with first_failure():
            async with asyncio.TaskGroup() as group:
                for _ in range(self._limits.calls_in_flight):
                    group.create_task(work())
        slide.regions.judge()
        return ran

    async def _deliver(
        self,
        request: AnalysisRequest,
        slide: _Slide,
        analysis: TileAnalysis,
        ran: _Ran,
        emit: Callable[[Event], Awaitable[None]],
        started: float,
    ) -> AnalysisResult:
        plan, bounds = analysis.plan, (float(slide.facts.bounds_x), float(slide.facts.bounds_y))
        findings = await asyncio.to_thread(analysis.findings)
        picture = await artifacts.thumbnail(slide.regions, slide.grid, slide.cells, plan.cell)
        text = _report(request, slide, plan, ran, findings)
        with tempfile.TemporaryDirectory(prefix="lamina-analysis-") as name:
            folder = Path(name)
            await asyncio.to_thread(artifacts.make, folder, findings=findings, picture=picture, report=text, bounds=bounds)
            delivered = await artifacts.deliver(folder, storage=self._storage, output_uri=request.output_uri, stream=emit)
        return AnalysisResult(
            analysis=plan.model,
            model=f"{plan.model}:{ran.version}",
            engine=ran.engine,
            report_json=text,
            artifacts=delivered,
            facts=slide.facts,
            tiles_analyzed=len(slide.tiles),
            tiles_skipped=len(slide.regions.unreadable),
            duration_seconds=time.monotonic() - started,
        )


@dataclass(frozen=True, kw_only=True)
class _Slide:
    """A slide surveyed: where its tissue is, and which tiles will be analysed."""

    regions: Regions
    facts: SlideFacts
    # Micrometres per pixel of level 0 along x and y.
    mpp: tuple[float, float]
    grid: Grid
    # Mean colours of the tissue mask's cells.
    cells: Pixels
    tissue: Tissue
    tiles: Sequence[Tile]


@dataclass(frozen=True, kw_only=True)
class _Ran:
    """What ran the tiles."""

    version: str
    # As engine:precision.
    engine: str
    sha256: str

    @staticmethod
    def unseen(inference: Inference, model: str) -> _Ran:
        """What would run them; a blank slide has none."""
        facts = inference.facts(model)
        return _Ran(version=facts.version, engine=facts.engine, sha256=facts.sha256)


def _analysis(slide: _Slide, plan: AnalysisPlan, classifier: TileClassifier | None) -> TileAnalysis:
    if classifier is None:
        return he_baseline.HeBaseline(plan=plan, grid=slide.grid, tissue=slide.tissue)
    return SlideClassification(classifier=classifier, plan=plan, grid=slide.grid, tissue=slide.tissue)


def _report(request: AnalysisRequest, slide: _Slide, plan: AnalysisPlan, ran: _Ran, findings: Findings) -> str:
    run = report.RunFacts(
        model=plan.model,
        version=ran.version,
        engine=ran.engine,
        sha256=ran.sha256,
        tiles_analyzed=len(slide.tiles),
        unreadable=tuple(sorted(slide.regions.unreadable)),
    )
    return report.render(
        request=request,
        facts=slide.facts,
        mpp=slide.mpp,
        plan=plan,
        grid=slide.grid,
        tissue=slide.tissue,
        run=run,
        findings=findings,
    )


def _batches(tiles: Sequence[Tile], size: int) -> Iterator[tuple[Tile, ...]]:
    for start in range(0, len(tiles), size):
        yield tuple(tiles[start : start + size])


async def _read(slide: _Slide, plan: AnalysisPlan, batch: Sequence[Tile]) -> Pixels:
    edge = plan.tile_size + 2 * plan.halo
    pixels = np.empty((len(batch), edge, edge, 3), np.uint8)
    for index, tile in enumerate(batch):
        pixels[index] = await read_cells(slide.regions, slide.grid, tile.x - plan.halo, tile.y - plan.halo, edge, edge)
    return pixels
