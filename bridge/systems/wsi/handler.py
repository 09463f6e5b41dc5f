"""The slide system's work: one analysis of one slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

import structlog

from bridge.errors import BridgeError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.slides import Artifact, ArtifactChunk, SlideCheckpoint, SlideOptions, SlideProgress, SlideResult
from bridge.job import Delivery, Job, Outcome, Units
from bridge.ledger.port import Jobs
from bridge.results import ResultFolder, ResultStore
from bridge.systems import native
from bridge.systems.port import Context
from bridge.systems.received_artifacts import ReceivedArtifacts
from bridge.systems.wsi import messages
from bridge.systems.wsi.checkpoints import FolderOf, Found, SlideCheckpoints, saved_in, swept
from bridge.systems.wsi.messages import SlideRequest
from bridge.systems.wsi.shares import Brought, SharePlace, SharingPolicy, gathered

_log = structlog.get_logger()
# Where each stage begins and ends; only tiles can be counted.
_SHARES = {"opening": (0.0, 0.0), "tissue": (0.01, 0.01), "tiles": (0.02, 0.95), "writing": (0.95, 0.95)}


class SlideHandler:
    """Has slides analysed, and keeps what was found under `slides/{job key}/{fence}/`."""

    def __init__(
        self,
        *,
        client: InferenceClient,
        results: ResultStore,
        shared_storage: bool = True,
        sharing: SharingPolicy | None = None,
        jobs: Jobs | None = None,
    ) -> None:
        """`shared_storage`: the server writes the artifacts to the results' place itself; else they are streamed here and written here.

        `jobs`: tells which shares have ended without a word.
        """
        self._sharing = sharing or SharingPolicy()
        self._jobs = jobs
        self._client = client
        self._results = results
        self._shared_storage = shared_storage

    @property
    def system(self) -> str:
        """Its name."""
        return messages.SYSTEM

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`."""
        return messages.job_of(delivery.body)

    async def handle(self, job: Job, context: Context) -> Outcome:
        """Analyse the slide. Raises `TransientError`, `OverloadError`, `NotYetError`, `PermanentError`, `ConfigurationError`."""
        request = messages.request_of(job)
        if request.share is not None:
            return await self._analyze_share(job, request, request.share, context)
        if request.shares > 1:
            return await self._merge(job, request, context)
        found = await self.analyze_into(self._folders(job.key), job, context)
        return native.completed(job, found.result)

    async def analyze_into(
        self, folder_of: FolderOf, job: Job, context: Context, *, others: Sequence[tuple[ResultFolder, int]] = ()
    ) -> Found:
        """Analyse the slide of a job into the folder of its fence, going on from where earlier tries came to. Raises as `handle` does.

        `others`: folders of other jobs' tries that are gone on from too, with how many parts of each count.
        """
        checkpoints = SlideCheckpoints(context=context, folder_of=folder_of, shared_storage=self._shared_storage, others=others)
        if checkpoints.finished is not None:
            return checkpoints.finished
        folder = folder_of(context.claim.fence)
        with ReceivedArtifacts() as received:
            found = await self._analyze(job, context, folder, checkpoints, received)
            artifacts = [await self._kept(artifact, folder, received) for artifact in found.artifacts]
        if found.resume_refused:
            _log.warning("parts_refused" if found.tiles_resumed else "slide_started_over", reason=found.resume_refused)
        return await checkpoints.finish(_result(job, found, folder, artifacts))

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a slide that is given up; of a share nobody is told, for the slide's own job goes on without it."""
        if messages.request_of(job).share is not None:
            return Outcome(succeeded=False, result={"error": "the share could not be analysed", "reason": reason})
        return native.failed(job, error="the slide could not be analysed", reason=reason)

    def _folders(self, job_key: str) -> FolderOf:
        return lambda fence: self._results.folder("slides", job_key, fence)

    async def _analyze_share(self, job: Job, request: SlideRequest, index: int, context: Context) -> Outcome:
        """Analyse one share, keep its parts, and leave word of them."""
        place = SharePlace(self._results, request.merged_by, request.shares)
        checkpoints = SlideCheckpoints(context=context, folder_of=self._folders(job.key), shared_storage=self._shared_storage)
        if checkpoints.finished is not None:
            return Outcome(succeeded=True, result=checkpoints.finished.result)
        if await place.done():
            return await self._late(job, index)
        folder = self._folders(job.key)(context.claim.fence)
        try:
            with ReceivedArtifacts() as received:
                found = await self._analyze(job, context, folder, checkpoints, received)
        except PermanentError:
            # Nobody needs to wait for it; what it has saved counts, and is removed with that of the others.
            if not await place.leave(index, Brought(job_key=job.key, runs=tuple(checkpoints.runs))):
                await self._late(job, index)
            raise
        if not await place.leave(index, Brought(job_key=job.key, runs=tuple(checkpoints.runs))):
            return await self._late(job, index)
        kept = {
            "share": index,
            "merged_by": request.merged_by,
            "tiles_analyzed": found.tiles_analyzed,
            "tiles_resumed": found.tiles_resumed,
        }
        return Outcome(succeeded=True, result=(await checkpoints.finish(kept, keep_parts=True)).result)

    async def _merge(self, job: Job, request: SlideRequest, context: Context) -> Outcome:
        """Go on from what the shares saved, once they are there. Raises `NotYetError`."""
        place = SharePlace(self._results, job.key, request.shares)
        keys = messages.share_keys(job.key, request.shares)
        finished = "finished" in context.claim.checkpoint
        others = [] if finished else await self._brought(place, keys, context)
        found = await self.analyze_into(self._folders(job.key), job, context, others=others)
        await self._close(place, [job.key, *keys])
        return native.completed(job, found.result)

    async def _brought(self, place: SharePlace, keys: Sequence[str], context: Context) -> Sequence[tuple[ResultFolder, int]]:
        """Folders of the shares' tries, with how many parts of each count. Raises `NotYetError`; as `ResultFolder` does."""
        words = await gathered(place, keys, self._sharing, context, self._jobs)
        brought = [
            words[number] if number in words else Brought(job_key=key, runs=tuple(await saved_in(self._results.tries("slides", key))))
            for number, key in enumerate(keys)
        ]
        return [(self._folders(each.job_key)(fence), parts) for each in brought for fence, parts in each.runs]

    async def _close(self, place: SharePlace, keys: Sequence[str]) -> None:
        """Say that the slide is done, then remove what its jobs saved and said. What cannot be removed is in nobody's way."""

        async def sweep() -> None:
            for key in {*keys, *(word.job_key for word in (await place.found()).values())}:
                await swept(self._results.tries("slides", key))

        for step in (place.close, sweep, place.clear):
            try:
                await step()
            except BridgeError as error:
                _log.warning("shares_left_behind", reason=str(error))

    async def _late(self, job: Job, index: int) -> Outcome:
        """Of a share without which the slide is done: nobody else would remove what it has saved since."""
        await swept(self._results.tries("slides", job.key))
        return Outcome(succeeded=True, result={"share": index, "skipped": "the slide is done"})

    async def _analyze(
        self, job: Job, context: Context, folder: ResultFolder, checkpoints: SlideCheckpoints, received: ReceivedArtifacts
    ) -> SlideResult:
        request = messages.request_of(job)
        options = SlideOptions(
            analysis=request.analysis,
            output_uri=folder.location if self._shared_storage else "",
            mpp=request.mpp,
            assumed_mpp=request.assumed_mpp,
            apply_icc_profile=request.apply_icc_profile,
            tile_size=request.tile_size,
            priority=job.priority,
            artifacts=request.artifacts,
            share=None if request.share is None else (request.share, request.shares),
            checkpoints=True,
            resume=await checkpoints.resume(),
        )
        events = self._client.analyze_slide(request.slide_uri, request_id=job.key, options=options)
        async with aclosing(events):
            async for event in events:
                match event:
                    case SlideProgress():
                        context.report(_share(event), event.stage, _units(event))
                    case ArtifactChunk():
                        await received.add(event)
                    case SlideCheckpoint():
                        await checkpoints.keep(event, received)
                    case SlideResult():
                        return event
        raise TransientError("the inference server ended the analysis without a result.")

    async def _kept(self, artifact: Artifact, folder: ResultFolder, received: ReceivedArtifacts) -> dict[str, Any]:
        uri = artifact.uri or await folder.write(artifact.name, await received.whole(artifact))
        return {
            "name": artifact.name,
            "media_type": artifact.media_type,
            "uri": uri,
            "size_bytes": artifact.size_bytes,
            "sha256": artifact.sha256,
        }


def _share(event: SlideProgress) -> float:
    begin, end = _SHARES.get(event.stage, (0.0, 0.0))
    return begin + (end - begin) * min(1.0, event.tiles_done / event.tiles_total) if event.tiles_total else begin


def _units(event: SlideProgress) -> Units:
    return Units(
        done=event.tiles_done, total=event.tiles_total, per_second=round(event.tiles_per_second, 3), seconds_left=event.seconds_left
    )


def _result(job: Job, found: SlideResult, folder: ResultFolder, artifacts: list[dict[str, Any]]) -> Mapping[str, Any]:
    return {
        "slide_uri": job.request["slide_uri"],
        "analysis": found.analysis,
        "model": found.model,
        "engine": found.engine,
        "width": found.width,
        "height": found.height,
        "summary": _summary(found.report),
        "tiles_analyzed": found.tiles_analyzed,
        "tiles_skipped": found.tiles_skipped,
        "tiles_resumed": found.tiles_resumed,
        # Why nothing of what earlier tries and shares had saved was taken up, or some of it was not; both empty when all was.
        "started_over": "" if found.tiles_resumed else found.resume_refused,
        "parts_refused": found.resume_refused if found.tiles_resumed else "",
        "duration_seconds": round(found.duration_seconds, 3),
        "location": folder.location,
        "artifacts": artifacts,
    }


def _summary(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of analysis.json: tissue, and the analysis' own measures. Places and lists stay in the file, so that the row is small."""
    tissue = _part(report, "tissue")
    figures = {f"tissue_{name}": tissue[name] for name in ("area_mm2", "share") if name in tissue}
    return {**figures, **_part(report, "measures")}


def _part(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = report.get(name)
    return part if isinstance(part, dict) else {}
