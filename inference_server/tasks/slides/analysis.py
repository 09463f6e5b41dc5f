"""The slide task: opens a slide, runs an analysis over its tissue with reading and inference overlapped, and delivers what it found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import structlog

from inference_server.allocator import KEPT_FOR_FINDINGS, KEPT_FOR_SLIDES, Reuse, return_what_is_free
from inference_server.errors import InvalidInput
from inference_server.scheduler.port import Caller, Inference
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides import checkpoints, scratch, survey
from inference_server.tasks.slides.analyses import Analyses, Prepared
from inference_server.tasks.slides.budget import CacheBudget, CallBudget
from inference_server.tasks.slides.checkpoints import Journal
from inference_server.tasks.slides.computing import Flow, Ran, compute
from inference_server.tasks.slides.engines import TileEngines
from inference_server.tasks.slides.events import EventStream, Pulse, first_failure
from inference_server.tasks.slides.findings import AnalysisPlan, Concluding, Findings
from inference_server.tasks.slides.manifest import BUILT_IN
from inference_server.tasks.slides.output_places import OutputPlaces
from inference_server.tasks.slides.outputs import artifacts, dicom_annotations, report, thumbnails
from inference_server.tasks.slides.outputs.table import TileRows
from inference_server.tasks.slides.readers.colour import with_managed_colours
from inference_server.tasks.slides.readers.opening import OpenedSlide, open_slide, opened
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.runs import Emit, Event, Run, Runs
from inference_server.tasks.slides.survey import Outline, Slide, outline
from inference_server.tasks.slides.tile_calls import analyze_client_tiles, decode_client_tiles
from inference_server.tasks.slides.turns import Turn, Turns
from inference_server.tasks.slides.values import (
    AnalysisRequest,
    AnalysisResult,
    ClientTile,
    Progress,
    SlideFacts,
    SlideLimits,
    TileFindings,
)

_log = structlog.get_logger()
# Progress is repeated after so long: surveys and uploads of large slides take minutes.
_SILENCE_SECONDS = 20.0


class SlideAnalyzer:
    """Analyses slides with the models of a repository."""

    def __init__(
        self,
        *,
        inference: Inference,
        storage: Storage,
        models: Path,
        limits: SlideLimits | None = None,
        staging: Staging | None = None,
        memory: Reuse | None = None,
    ) -> None:
        """`models`: the repository's folder, where the manifests of tile models lie; `staging`: copies of remote slides.

        `memory`: the process' one.
        """
        self._inference = inference
        self._storage = storage
        self._analyses = Analyses(inference=inference, models=models)
        self._limits = limits or SlideLimits()
        self._turns = Turns()
        self._places = OutputPlaces()
        self._memory = memory or Reuse()
        self._caches = CacheBudget(self._limits.most_cache_bytes)
        self._calls = CallBudget(self._limits.most_pixels_in_flight)
        self._staging = staging or Staging(storage, most_bytes=self._limits.most_staged_bytes)

    def sweep(self) -> None:
        """Remove what killed servers left on this machine; blocks."""
        self._staging.sweep()
        scratch.sweep()

    async def info(self, slide_uri: str) -> SlideFacts:
        """What a slide is, from its headers. Raises as `opened` does."""
        async with open_slide(self._storage, slide_uri, self._limits, self._staging) as reader:
            return reader.facts

    def analyze(self, request: AnalysisRequest, caller: Caller) -> AsyncGenerator[Event]:
        """Run one analysis: progress and checkpoints, then chunks when there is no output_uri, then the result.

        Closing the iterator stops the work at once. Raises `NotFound`, `AccessDenied`, `InvalidInput`, `InvalidSlide`,
        `ContentChanged`, `OutputTaken`, `Unavailable` and what `Inference.infer` raises.
        """
        return EventStream[Event]().run(lambda emit: self._run(request, caller, emit))

    async def analyze_tiles(self, analysis: str, tiles: Sequence[ClientTile], mpp: float, caller: Caller) -> tuple[list[TileFindings], str]:
        """Run a tile model on pixels that the client holds: findings in the order of the tiles, and the model as name:version."""
        # Before anything else is asked for: what passes a limit is told so.
        pixels = await decode_client_tiles(tiles, self._limits)
        model = await self._analyses.of_tiles(analysis)
        return await analyze_client_tiles(self._inference, tiles, pixels, mpp, model=model, caller=caller)

    async def _run(self, request: AnalysisRequest, caller: Caller, emit: Emit) -> None:
        pulse = Pulse[Event](emit, seconds=_SILENCE_SECONDS)

        async def told(event: Event) -> None:
            await (pulse.tell(event) if isinstance(event, Progress) else pulse.emit(event))

        async with pulse.beating():
            result = await self._analyzed(request, caller, told)
        _log.info(
            "slide_analyzed",
            request_id=request.request_id,
            analysis=result.analysis,
            engine=result.engine,
            tiles=result.tiles_analyzed,
            resumed=result.tiles_resumed,
            unreadable=result.tiles_skipped,
            seconds=round(result.duration_seconds, 3),
        )
        await emit(result)

    async def _analyzed(self, request: AnalysisRequest, caller: Caller, emit: Emit) -> AnalysisResult:
        started = time.monotonic()
        with self._turns.take(request.analysis or BUILT_IN, priority=caller.priority) as turn:
            _check_share(request)
            prepared = await self._analyses.prepare(request.analysis, request.tile_size)
            names = artifacts.chosen(request.artifacts, prepared.plan)
            async with self._places.taken(request.output_uri, await self._place(request, names)):
                await emit(Progress(stage="opening"))
                await turn.may_open(self._inference.facts(prepared.plan.model))
                return await self._opened(request, prepared, names, caller, emit, turn=turn, started=started)

    async def _place(self, request: AnalysisRequest, names: Sequence[str]) -> Hashable:
        """Where it will write, once it is known that it may; None where it streams. Raises `AccessDenied`, `InvalidInput`."""
        if not request.output_uri:
            return None
        for name in names:
            await asyncio.to_thread(self._storage.check_writable, artifacts.place(request.output_uri, name))
        return await asyncio.to_thread(self._storage.written_place, request.output_uri)

    async def _opened(
        self, request: AnalysisRequest, prepared: Prepared, names: Sequence[str], caller: Caller, emit: Emit, *, turn: Turn, started: float
    ) -> AnalysisResult:
        async with AsyncExitStack() as stack:
            is_read_over = self._is_read_over(request, prepared.plan, names)
            opening = opened(self._storage, request.slide_uri, self._limits, self._staging, moved=turn.moved, is_read_over=is_read_over)
            slide = await stack.enter_async_context(opening)
            reader = with_managed_colours(slide.reader) if request.apply_icc_profile else slide.reader
            names = artifacts.fitting(names, request.artifacts, reader.facts)
            outlined = outline(reader, request, prepared.plan, self._limits, moved=turn.moved, caches=self._caches)
            stack.callback(outlined.regions.forget)
            runs = self._runs(slide.files, outlined, request, prepared, emit)
            flow = Flow(
                inference=self._inference, caller=caller, calls_in_flight=self._limits.calls_in_flight, budget=self._calls, turn=turn
            )
            async with self._memory.reused(KEPT_FOR_SLIDES):
                run, journal = await _begun(runs, request, names)
                ran = await compute(run, journal, flow, emit=emit)
            turn.end()
            if not request.share.whole:
                await slide.check_unchanged(self._storage)
                return _result(run, ran, started)
            if isinstance(run.analysis, Concluding):
                await run.analysis.conclude(self._inference, caller)
            await emit(Progress(stage="writing", tiles_done=run.tiles_total, tiles_total=run.tiles_total))
            return await self._deliver(request, names, slide, run, ran, emit, started)

    def _is_read_over(self, request: AnalysisRequest, plan: AnalysisPlan, names: Sequence[str]) -> Callable[[SlideFacts], bool]:
        # What earlier runs saved holds the survey, and most tiles are read once alone.
        once = bool(request.resume_uris or request.resume_parts) and not (request.share.whole and artifacts.OVERLAY in names)
        return lambda facts: not once and survey.is_read_over(facts, request, plan, self._limits)

    def _runs(self, files: Sequence[StoredObject], outlined: Outline, request: AnalysisRequest, prepared: Prepared, emit: Emit) -> Runs:
        plan = prepared.plan
        fingerprint = checkpoints.fingerprint(
            slide=files,
            plan=plan,
            mpp=outlined.mpp,
            model=self._inference.facts(plan.model),
            settings={"mpp": request.mpp, "icc_profile": request.apply_icc_profile, **prepared.settings},
        )
        return Runs(
            storage=self._storage,
            request=request,
            outlined=outlined,
            plan=plan,
            fingerprint=fingerprint,
            analysis_of=prepared.begin,
            emit=emit,
        )

    async def _deliver(
        self, request: AnalysisRequest, names: Sequence[str], source: OpenedSlide, run: Run, ran: Ran, emit: Emit, started: float
    ) -> AnalysisResult:
        with scratch.folder() as folder:
            async with self._memory.reused(KEPT_FOR_FINDINGS):
                contents = await self._contents(request, names, source, run, ran)
                await asyncio.to_thread(artifacts.make, folder, contents, names)
            # As late as can be: what is delivered is of one state of the slide.
            await source.check_unchanged(self._storage)
            delivered = await artifacts.deliver(folder, names, storage=self._storage, output_uri=request.output_uri, stream=emit)
        return replace(_result(run, ran, started), report_json=contents.report, artifacts=delivered)

    async def _contents(
        self, request: AnalysisRequest, names: Sequence[str], source: OpenedSlide, run: Run, ran: Ran
    ) -> artifacts.Contents:
        slide, plan = run.slide, run.analysis.plan
        picture = slide.thumbnail
        if picture is None and artifacts.OVERLAY in names:
            picture = await thumbnails.read(slide.regions, slide.grid)
        # Nothing more is read, and what is to be written takes the room.
        slide.regions.forget()
        await asyncio.to_thread(return_what_is_free)
        findings = await asyncio.to_thread(run.analysis.findings)
        # What they were made from, in blocks of many sizes.
        await asyncio.to_thread(return_what_is_free)
        engines = TileEngines(slide.batches, run.engines)
        is_annotated = dicom_annotations.FILE in names
        header = await dicom_annotations.header(self._storage, source.files, slide.facts) if is_annotated else b""
        return artifacts.Contents(
            findings=findings,
            picture=picture,
            report=_report(request, slide, plan, ran, engines, findings),
            rows=TileRows(tiles=slide.tiles, grid=slide.grid, facts=slide.facts, tissue=slide.tissue, engines=engines),
            about={"analysis": plan.name, "model": f"{plan.model}:{ran.version}", "engine": ran.engine},
            mpp=slide.mpp,
            dicom_header=header,
            wanted=request.artifacts,
        )


async def _begun(runs: Runs, request: AnalysisRequest, names: Sequence[str]) -> tuple[Run, Journal | None]:
    """Survey the slide, and meanwhile load what writes: the first slide takes long to, and the survey leaves a core idle."""
    with first_failure():
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(artifacts.load, names if request.share.whole else ()))
            run, journal = await runs.begin()
    if run.refused:
        event = "parts_refused" if run.tiles_resumed else "slide_started_over"
        _log.warning(event, request_id=request.request_id, reason=run.refused)
    return run, journal


def _check_share(request: AnalysisRequest) -> None:
    share = request.share
    if not 0 <= share.index < share.count:
        raise InvalidInput(f"share is {share.index} of {share.count}; expected an index from 0 up to one less than count.")
    if not share.whole and not request.checkpoints:
        raise InvalidInput("a share of a slide makes nothing but parts of checkpoints; ask for checkpoints with it.")


def _result(run: Run, ran: Ran, started: float) -> AnalysisResult:
    """Without a report and artifacts, as of a share."""
    plan = run.analysis.plan
    return AnalysisResult(
        analysis=plan.name,
        model=f"{plan.model}:{ran.version}",
        engine=ran.engine,
        report_json="",
        artifacts=(),
        facts=run.slide.facts,
        tiles_analyzed=run.tiles_total,
        tiles_skipped=len(run.slide.regions.unreadable),
        duration_seconds=time.monotonic() - started,
        tiles_resumed=run.tiles_resumed,
        resume_refused=run.refused,
    )


def _report(request: AnalysisRequest, slide: Slide, plan: AnalysisPlan, ran: Ran, engines: TileEngines, findings: Findings) -> str:
    run = report.RunFacts(
        model=plan.model,
        version=ran.version,
        engine=ran.engine,
        sha256=ran.sha256,
        tiles_analyzed=len(slide.tiles),
        tiles_by_engine=engines.counts,
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
