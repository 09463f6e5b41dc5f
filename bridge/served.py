"""The systems that a bridge serves, opened as the settings say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bridge.errors import OverloadError
from bridge.settings import Settings
from bridge.settings_cards import load_card_worker
from bridge.settings_consensus import ConsensusSettings, check_key, load_consensus
from bridge.settings_labs import load_lab_worker
from bridge.sources.port import QueueLevel
from bridge.steps import Observer
from bridge.store import Store
from bridge.surroundings import server_trust
from bridge.systems.port import Handler
from bridge.systems.router import Recogniser
from bridge.tracing.port import Tracer
from bridge.transports.aws import open_aws

if TYPE_CHECKING:
    from starlette.routing import Route

    from bridge.aws.access import Aws
    from bridge.http.routes import Probe
    from bridge.inference.client import InferenceClient
    from bridge.results import ResultStore
    from bridge.systems.wsi.handler import SlideHandler


@dataclass(frozen=True, kw_only=True)
class Systems:
    """The systems that are served, and what they need to be reachable."""

    handlers: Sequence[Handler] = ()
    probes: Mapping[str, Probe] = field(default_factory=dict)
    # Systems whose messages are not in our own envelope.
    recognisers: Sequence[Recogniser] = ()
    # Told of every step.
    observers: Sequence[Observer] = ()
    # What is served over HTTP beside the bridge's own.
    routes: Sequence[Route] = ()
    # Of what lies in the queues, and how many jobs are worked on, what a platform's clients get of `/metrics`.
    metrics: Callable[[Sequence[QueueLevel] | None, int], Awaitable[Mapping[str, Any]]] | None = None
    # How many cases for people wait to be handed over and were given up; None where there are no such cases.
    escalations: Callable[[], Awaitable[Mapping[str, int]]] | None = None
    # Run beside the worker until they are told to stop; one that sets the event itself ends the bridge.
    loops: Sequence[Callable[[asyncio.Event], Awaitable[None]]] = ()
    # By system, whether the platform's row of a job is to be worked on, and nobody has begun: then an earlier end of it counts for nothing.
    asked_anew: Mapping[str, Callable[[str], Awaitable[bool]]] = field(default_factory=dict)
    # How many inference servers there are of each standing; None where none is asked.
    servers: Callable[[], Mapping[str, int]] | None = None


@asynccontextmanager
async def open_systems(settings: Settings, store: Store, tracer: Tracer | None = None) -> AsyncIterator[Systems]:
    """Set up every system that is served. Raises `ConfigurationError`, `TransientError`."""
    consensus = load_consensus()
    check_key(consensus)
    async with AsyncExitStack() as stack:
        parts: list[Systems] = []
        # The consensus pipeline asks no inference server: beside it one is looked for only where it is named.
        if not consensus.served or "inference" in settings.model_fields_set:
            parts += await stack.enter_async_context(_inference_systems(settings, store, tracer))
        if consensus.served:
            parts.append(await stack.enter_async_context(_consensus(consensus, store)))
        yield _joined(parts)


def _joined(parts: Sequence[Systems]) -> Systems:
    """All of them as one. Of queues and servers, at most one of them tells."""
    return Systems(
        handlers=[handler for part in parts for handler in part.handlers],
        probes={name: probe for part in parts for name, probe in part.probes.items()},
        recognisers=[recogniser for part in parts for recogniser in part.recognisers],
        observers=[observer for part in parts for observer in part.observers],
        routes=[route for part in parts for route in part.routes],
        metrics=next((part.metrics for part in parts if part.metrics), None),
        escalations=next((part.escalations for part in parts if part.escalations), None),
        loops=[loop for part in parts for loop in part.loops],
        asked_anew={system: asked for part in parts for system, asked in part.asked_anew.items()},
        servers=next((part.servers for part in parts if part.servers), None),
    )


def result_store(settings: Settings) -> ResultStore:
    """Where results go. Raises `ConfigurationError`."""
    from bridge.results import ResultStore

    return ResultStore(settings.results, allow_http=_has_no_tls(settings))


def _has_no_tls(settings: Settings) -> bool:
    """Whether S3 is to be asked without it: an endpoint that is named so, such as a local MinIO, is meant so."""
    return settings.aws_endpoint.startswith("http://")


@asynccontextmanager
async def _inference_systems(settings: Settings, store: Store, tracer: Tracer | None) -> AsyncIterator[Sequence[Systems]]:
    """Connect to the inference server and set up what it does the work of. Raises `ConfigurationError`."""
    # Only a bridge that runs needs gRPC and object storage, which take long to import.
    from bridge.inference.client import InferenceClient
    from bridge.inference.retries import log_retries
    from bridge.systems.wsi.handler import SlideHandler

    log_retries()
    results = result_store(settings)
    async with AsyncExitStack() as stack:
        aws = await stack.enter_async_context(open_aws(settings))
        client = await stack.enter_async_context(InferenceClient(settings.inference, trust=server_trust(settings), tracer=tracer))
        slides = SlideHandler(client=client, results=results, shared_storage=settings.results_shared, jobs=store.jobs)
        yield [
            _own_systems(settings, store, client, slides, results),
            _slide_platform(settings, slides, aws),
            await _lab_platform(store, client, aws),
            await stack.enter_async_context(_card_platform(settings, store, client)),
        ]


def _own_systems(settings: Settings, store: Store, client: InferenceClient, slides: SlideHandler, results: ResultStore) -> Systems:
    """Those whose messages are in our own envelope."""
    from bridge.platforms.alias_feed import AliasFeed
    from bridge.records.lab_reviews import LabReviews
    from bridge.systems.documents.handler import DocumentHandler
    from bridge.systems.labs.handler import LabHandler

    async def inference_ready() -> None:
        if not await client.server_ready():
            raise OverloadError(f"the inference server at {settings.inference} is not ready, or does not answer; jobs wait for it")

    reviews = LabReviews(store.database)
    feed = AliasFeed(reviews, settings.inference, trust=server_trust(settings), every_seconds=settings.lab_alias_seconds)
    return Systems(
        handlers=[
            slides,
            DocumentHandler(client=client, results=results, read_roots=settings.read_roots),
            LabHandler(client=client, results=results, reviews=reviews),
        ],
        probes={"inference": inference_ready},
        loops=[feed.run] if settings.lab_alias_seconds else [],
        servers=client.standings,
    )


async def _lab_platform(store: Store, client: InferenceClient, aws: Aws) -> Systems:
    labs = load_lab_worker()
    if not labs.served:
        return Systems()
    from bridge.platforms.labs import open_lab_platform

    platform = await open_lab_platform(labs, store.database, client, aws)
    return Systems(recognisers=[platform.handler], loops=[platform.loop])


@asynccontextmanager
async def _card_platform(settings: Settings, store: Store, client: InferenceClient) -> AsyncIterator[Systems]:
    cards = load_card_worker()
    if not cards.served:
        yield Systems()
        return
    from bridge.platforms.cards import open_card_platform

    async with open_card_platform(cards, settings, store, client) as platform:
        yield Systems(
            recognisers=[platform.handler],
            loops=[platform.loop],
            routes=platform.routes,
            metrics=platform.metrics,
            escalations=platform.escalations,
        )


@asynccontextmanager
async def _consensus(settings: ConsensusSettings, store: Store) -> AsyncIterator[Systems]:
    from bridge.platforms.consensus import open_pipeline

    async with open_pipeline(settings, store.database) as pipeline:
        yield Systems(
            recognisers=[pipeline.handler],
            observers=[pipeline.handler.lifecycle],
            routes=pipeline.routes,
            asked_anew={pipeline.handler.system: pipeline.is_queued},
        )


def _slide_platform(settings: Settings, slides: SlideHandler, aws: Aws) -> Systems:
    from bridge.results import ResultStore
    from bridge.systems.wsi.platform_handler import RequestedSlideHandler
    from bridge.systems.wsi.platform_messages import AnswerNames
    from bridge.transports.aws import object_options, wsi_source

    if not settings.wsi_bucket:
        return Systems()
    bucket = ResultStore(
        f"s3://{settings.wsi_bucket}",
        allow_http=_has_no_tls(settings),
        s3=object_options(settings),
        s3_credentials=aws.credentials if settings.aws_role_arn else None,
    )
    names = AnswerNames(source=wsi_source(settings))
    asked = {"analysis": settings.wsi_analysis, "assumed_mpp": settings.wsi_mpp, "apply_icc_profile": settings.wsi_icc}
    return Systems(recognisers=[RequestedSlideHandler(slides=slides, bucket=bucket, names=names, asked=asked)])
