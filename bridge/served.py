"""The systems that a bridge serves, opened as the settings say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge.errors import OverloadError
from bridge.settings import Settings
from bridge.settings_cards import load_card_worker
from bridge.settings_consensus import load_consensus
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
    from bridge.systems.wsi.handler import SlideHandler


@dataclass(frozen=True, kw_only=True)
class Systems:
    """The systems that are served, and what they need to be reachable."""

    handlers: Sequence[Handler]
    probes: dict[str, Probe]
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
    # How many inference servers there are of each standing; None where none is asked.
    servers: Callable[[], Mapping[str, int]] | None = None


@asynccontextmanager
async def open_systems(settings: Settings, store: Store, tracer: Tracer | None = None) -> AsyncIterator[Systems]:
    """Set up every system that is served. Raises `ConfigurationError`, `TransientError`."""
    consensus = load_consensus()
    if not consensus.served:
        async with open_inference_systems(settings, store, tracer) as systems:
            yield systems
        return
    from bridge.consensus_pipeline import open_pipeline

    async with AsyncExitStack() as stack:
        pipeline = await stack.enter_async_context(open_pipeline(consensus, store.database))
        # The pipeline asks no inference server: one is looked for only where it is named.
        beside = (
            await stack.enter_async_context(open_inference_systems(settings, store, tracer))
            if "inference" in settings.model_fields_set
            else None
        )
        yield Systems(
            handlers=beside.handlers if beside else (),
            probes=beside.probes if beside else {},
            recognisers=[*(beside.recognisers if beside else ()), pipeline.handler],
            observers=[pipeline.handler.lifecycle],
            routes=[*pipeline.routes, *(beside.routes if beside else ())],
            metrics=beside.metrics if beside else None,
            escalations=beside.escalations if beside else None,
            loops=beside.loops if beside else (),
            servers=beside.servers if beside else None,
        )


@asynccontextmanager
async def open_inference_systems(settings: Settings, store: Store, tracer: Tracer | None = None) -> AsyncIterator[Systems]:
    """Connect to the inference server and set up what it does the work of. Raises `ConfigurationError`."""
    # Only a bridge that runs needs gRPC and object storage, which take long to import.
    from bridge.alias_feed import AliasFeed
    from bridge.inference.client import InferenceClient
    from bridge.inference.retries import log_retries
    from bridge.records.lab_reviews import LabReviews
    from bridge.results import ResultStore
    from bridge.systems.documents.handler import DocumentHandler
    from bridge.systems.labs.handler import LabHandler
    from bridge.systems.wsi.handler import SlideHandler

    log_retries()
    results = ResultStore(settings.results)
    async with AsyncExitStack() as stack:
        aws = await stack.enter_async_context(open_aws(settings))
        client = await stack.enter_async_context(InferenceClient(settings.inference, trust=server_trust(settings), tracer=tracer))

        async def inference_ready() -> None:
            if not await client.server_ready():
                raise OverloadError(f"the inference server at {settings.inference} is not ready, or does not answer; jobs wait for it")

        labs = load_lab_worker()
        platform = None
        if labs.served:
            from bridge.lab_platform import open_lab_platform

            platform = await open_lab_platform(labs, store.database, client, aws)
        cards, card_platform = load_card_worker(), None
        if cards.served:
            from bridge.card_platform import open_card_platform

            card_platform = await stack.enter_async_context(open_card_platform(cards, settings, store, client))
        reviews = LabReviews(store.database)
        feed = AliasFeed(reviews, settings.inference, trust=server_trust(settings), every_seconds=settings.lab_alias_seconds)
        slides = SlideHandler(client=client, results=results, shared_storage=settings.results_shared)
        yield Systems(
            handlers=[
                slides,
                DocumentHandler(client=client, results=results, read_roots=settings.read_roots),
                LabHandler(client=client, results=results, reviews=reviews),
            ],
            probes={"inference": inference_ready},
            recognisers=[
                *_platform_systems(settings, slides, aws),
                *([platform.handler] if platform else []),
                *([card_platform.handler] if card_platform else []),
            ],
            loops=[
                *([feed.run] if settings.lab_alias_seconds else []),
                *([platform.loop] if platform and platform.loop else []),
                *([card_platform.loop] if card_platform else []),
            ],
            routes=card_platform.routes if card_platform else (),
            servers=client.standings,
            metrics=card_platform.metrics if card_platform else None,
            escalations=card_platform.escalations if card_platform else None,
        )


def _platform_systems(settings: Settings, slides: SlideHandler, aws: Aws) -> Sequence[Recogniser]:
    """The systems of the platforms that are set."""
    from bridge.results import ResultStore
    from bridge.systems.wsi.requests import AnswerNames
    from bridge.systems.wsi.worker import RequestedSlideHandler
    from bridge.transports.aws import object_options, wsi_source

    if not settings.wsi_bucket:
        return ()
    bucket = ResultStore(
        f"s3://{settings.wsi_bucket}",
        allow_http=settings.aws_endpoint.startswith("http://"),
        s3=object_options(settings),
        s3_credentials=aws.credentials if settings.aws_role_arn else None,
    )
    names = AnswerNames(source=wsi_source(settings))
    asked = {"analysis": settings.wsi_analysis, "assumed_mpp": settings.wsi_mpp, "apply_icc_profile": settings.wsi_icc}
    return (RequestedSlideHandler(slides=slides, bucket=bucket, names=names, asked=asked),)
