"""The scheduler's counts and times as the protocol tells them."""

from __future__ import annotations

from inference import grpc_service_pb2 as wire

from inference_server.scheduler.metrics.statistics import Parts, Statistics, Tally


def statistics_message(statistics: Statistics) -> wire.ModelStatistics:
    """Counts and times of one version. Each request has one response, so that the only entry of `response_stats` is 0."""
    parts = statistics.parts
    return wire.ModelStatistics(
        name=statistics.model,
        version=statistics.version,
        last_inference=round(statistics.last_inference * 1000),
        inference_count=statistics.inference_count,
        execution_count=statistics.execution_count,
        inference_stats=wire.InferStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.fail),
            queue=_duration(statistics.queue),
            compute_input=_duration(parts.compute_input),
            compute_infer=_duration(parts.compute_infer),
            compute_output=_duration(parts.compute_output),
            cache_hit=_duration(statistics.cache_hit),
            cache_miss=_duration(statistics.cache_miss),
        ),
        batch_stats=[_batch(rows, batch) for rows, batch in sorted(statistics.batches.items())],
        response_stats={
            "0": wire.InferResponseStatistics(
                compute_infer=_duration(parts.compute_infer),
                compute_output=_duration(parts.compute_output),
                success=_duration(statistics.success),
                fail=_duration(statistics.fail),
                cancel=_duration(statistics.cancelled),
            )
        },
    )


def _batch(rows: int, parts: Parts) -> wire.InferBatchStatistics:
    return wire.InferBatchStatistics(
        batch_size=rows,
        compute_input=_duration(parts.compute_input),
        compute_infer=_duration(parts.compute_infer),
        compute_output=_duration(parts.compute_output),
    )


def _duration(tally: Tally) -> wire.StatisticDuration:
    return wire.StatisticDuration(count=tally.count, ns=round(tally.seconds * 1e9))
