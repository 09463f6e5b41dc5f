"""SlideService on the wire: messages to values, one call into the slide task, values to messages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from lamina.v1 import slides_pb2, slides_pb2_grpc

from inference_server.service.caller import caller_of
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.runs import Event
from inference_server.tasks.slides.values import (
    AnalysisRequest,
    AnalysisResult,
    Checkpoint,
    Chunk,
    ClientTile,
    Level,
    Progress,
    Share,
    SlideFacts,
    TileFindings,
)

_Context = grpc.aio.ServicerContext[Any, Any]


class SlideServicer(slides_pb2_grpc.SlideServiceServicer):
    """Serves SlideService."""

    def __init__(self, slides: SlideAnalyzer) -> None:
        """`slides`: the task."""
        self._slides = slides

    async def GetSlideInfo(  # noqa: N802  # named by the protocol
        self, request: slides_pb2.GetSlideInfoRequest, context: _Context
    ) -> slides_pb2.GetSlideInfoResponse:
        """Size, pyramid and resolution of a slide."""
        return slides_pb2.GetSlideInfoResponse(info=_info(await self._slides.info(request.slide_uri)))

    async def AnalyzeSlide(  # noqa: N802  # named by the protocol
        self, request: slides_pb2.AnalyzeSlideRequest, context: _Context
    ) -> AsyncIterator[slides_pb2.AnalyzeSlideResponse]:
        """Progress, checkpoints, chunks, and the result last; a client that goes away stops the work."""
        wanted = AnalysisRequest(
            slide_uri=request.slide_uri,
            analysis=request.analysis,
            output_uri=request.output_uri,
            mpp=request.mpp if request.HasField("mpp") else None,
            assumed_mpp=request.assumed_mpp if request.HasField("assumed_mpp") else None,
            tile_size=request.tile_size,
            apply_icc_profile=request.apply_icc_profile,
            request_id=request.request_id,
            checkpoints=request.checkpoints,
            resume_uris=tuple(request.resume.part_uris),
            resume_parts=tuple(request.resume.parts),
            artifacts=tuple(request.artifacts),
            share=Share(index=request.share.index, count=request.share.count) if request.HasField("share") else Share(),
        )
        events = self._slides.analyze(wanted, caller_of(context, priority=request.priority))
        async with contextlib.aclosing(events) as stream:
            async for event in stream:
                yield _response(event)

    async def AnalyzeTiles(  # noqa: N802  # named by the protocol
        self, request: slides_pb2.AnalyzeTilesRequest, context: _Context
    ) -> slides_pb2.AnalyzeTilesResponse:
        """One tile model on the client's own pixels."""
        tiles = [ClientTile(id=tile.id, encoded=tile.encoded, rgb=tile.rgb, width=tile.width, height=tile.height) for tile in request.tiles]
        found, model = await self._slides.analyze_tiles(request.analysis, tiles, request.mpp, caller_of(context))
        return slides_pb2.AnalyzeTilesResponse(tiles=map(_tile, found), model=model)


def _response(event: Event) -> slides_pb2.AnalyzeSlideResponse:
    if isinstance(event, Progress):
        return slides_pb2.AnalyzeSlideResponse(progress=_progress(event))
    if isinstance(event, Chunk):
        return slides_pb2.AnalyzeSlideResponse(chunk=slides_pb2.ArtifactChunk(name=event.name, offset=event.offset, data=event.data))
    if isinstance(event, Checkpoint):
        return slides_pb2.AnalyzeSlideResponse(checkpoint=_checkpoint(event))
    return slides_pb2.AnalyzeSlideResponse(result=_result(event))


def _checkpoint(saved: Checkpoint) -> slides_pb2.SlideCheckpoint:
    return slides_pb2.SlideCheckpoint(
        part=saved.part,
        name=saved.name,
        uri=saved.uri,
        size_bytes=saved.size_bytes,
        sha256=saved.sha256,
        tiles_done=saved.tiles_done,
        tiles_total=saved.tiles_total,
        resumed=saved.resumed,
    )


def _progress(progress: Progress) -> slides_pb2.AnalysisProgress:
    return slides_pb2.AnalysisProgress(
        stage=progress.stage,
        tiles_done=progress.tiles_done,
        tiles_total=progress.tiles_total,
        tiles_per_second=progress.tiles_per_second,
        seconds_left=progress.seconds_left,
    )


def _result(result: AnalysisResult) -> slides_pb2.SlideAnalysis:
    return slides_pb2.SlideAnalysis(
        analysis=result.analysis,
        model=result.model,
        engine=result.engine,
        report_json=result.report_json,
        artifacts=[
            slides_pb2.Artifact(name=each.name, media_type=each.media_type, uri=each.uri, size_bytes=each.size_bytes, sha256=each.sha256)
            for each in result.artifacts
        ],
        info=_info(result.facts),
        tiles_analyzed=result.tiles_analyzed,
        tiles_skipped=result.tiles_skipped,
        duration_seconds=result.duration_seconds,
        tiles_resumed=result.tiles_resumed,
        resume_refused=result.resume_refused,
    )


def _info(facts: SlideFacts) -> slides_pb2.SlideInfo:
    return slides_pb2.SlideInfo(
        slide_uri=facts.uri,
        vendor=facts.vendor,
        width=facts.width,
        height=facts.height,
        mpp_x=facts.mpp_x,
        mpp_y=facts.mpp_y,
        objective_power=facts.objective_power,
        levels=map(_level, facts.levels),
        bounds_x=facts.bounds_x,
        bounds_y=facts.bounds_y,
        reader=facts.reader,
    )


def _level(level: Level) -> slides_pb2.SlideLevel:
    return slides_pb2.SlideLevel(
        width=level.width, height=level.height, downsample=level.downsample, tile_width=level.tile_width, tile_height=level.tile_height
    )


def _tile(found: TileFindings) -> slides_pb2.TileAnalysis:
    return slides_pb2.TileAnalysis(
        id=found.id, scores=found.scores, points=[slides_pb2.TilePoint(x=point.x, y=point.y, score=point.score) for point in found.points]
    )
