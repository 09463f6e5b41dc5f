"""The card platform, opened as its settings say: its documents' handler, its cases, its health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from bridge.errors import ConfigurationError
from bridge.escalations import ESCALATIONS
from bridge.escalations.cases import EscalationList
from bridge.escalations.handing_over import HandOver
from bridge.inference.client import InferenceClient
from bridge.records.documents import DocumentRecords
from bridge.results import ResultStore
from bridge.reviews import ReviewService
from bridge.settings import Settings
from bridge.settings_cards import CardWorkerSettings
from bridge.sources.port import QueueLevel
from bridge.store import Store
from bridge.systems.cards.handler import CardHandler
from bridge.systems.cards.options import CardOptions
from bridge.systems.cards.reading.tesseract import Tesseract
from bridge.systems.cards.review import Gate
from bridge.transports.redis import open_redis

if TYPE_CHECKING:
    from starlette.routing import Route

    from bridge.http.cards import CardFacts

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class CardPlatform:
    """What is served of it."""

    handler: CardHandler
    loop: Callable[[asyncio.Event], Awaitable[None]]
    routes: Sequence[Route]
    # Of what lies in the queues, and how many documents are being read, what its clients get of `/metrics`.
    metrics: Callable[[Sequence[QueueLevel] | None, int], Awaitable[Mapping[str, Any]]]
    # How many cases for people wait to be handed over, and how many were given up.
    escalations: Callable[[], Awaitable[Mapping[str, int]]]


@asynccontextmanager
async def open_card_platform(
    cards: CardWorkerSettings, settings: Settings, store: Store, client: InferenceClient
) -> AsyncIterator[CardPlatform]:
    """Set it up, its table checked. Raises `ConfigurationError`, `TransientError`."""
    from bridge.http.cards import CardRoutes

    records = DocumentRecords(store.database)
    await records.check()
    reviews = ReviewService(cards.buli2_api_url, api_key=cards.buli2_api_key.get_secret_value())
    tesseract = Tesseract(data=cards.tessdata_prefix, seconds=cards.bridge_card_tesseract_seconds)
    if cards.ocr_gpu_autofallback and (lack := await tesseract.lack()):
        _log.warning("no_fallback", reason=lack)
    async with open_redis(settings) as redis:
        escalations = EscalationList(redis, ESCALATIONS)
        hand_over = HandOver(
            escalations,
            reviews,
            is_with_people=records.is_with_people,
            keep_ticket=records.keep_ticket,
            interval=cards.bridge_escalation_seconds,
        )
        handler = CardHandler(
            client=client,
            records=records,
            bucket=bucket_of(cards),
            reviews=reviews,
            escalations=escalations,
            options=_options(cards, settings),
            tesseract=tesseract,
        )
        routes = CardRoutes(_facts(cards, settings, client, escalations, reviews))
        yield CardPlatform(
            handler=handler, loop=hand_over.run, routes=routes.routes(), metrics=routes.metrics, escalations=escalations.counts
        )


def _options(cards: CardWorkerSettings, settings: Settings) -> CardOptions:
    return CardOptions(
        channel=cards.ocr_gpu_publish_channel,
        most_attempts=settings.max_attempts,
        falls_back=cards.ocr_gpu_autofallback,
        has_gpu=cards.has_gpu,
        gate=Gate(cards.bridge_card_gate),
        gpu_seconds=cards.bridge_card_gpu_seconds,
        cpu_seconds=cards.bridge_card_cpu_seconds,
    )


def _facts(
    cards: CardWorkerSettings, settings: Settings, client: InferenceClient, escalations: EscalationList, reviews: ReviewService
) -> CardFacts:
    from bridge.http.cards import CardFacts

    gpu_queue, cpu_queue = (*settings.redis_queues, "", "")[:2]
    return CardFacts(
        environment=cards.node_env,
        gpu_queue=gpu_queue,
        cpu_queue=cpu_queue,
        gpu_enabled=cards.ocr_gpu_enabled,
        has_gpu=cards.has_gpu,
        falls_back=cards.ocr_gpu_autofallback,
        server_ready=client.server_ready,
        cases_waiting=escalations.waiting,
        reviews_open=lambda: reviews.breaker.is_open,
    )


def bucket_of(cards: CardWorkerSettings) -> ResultStore:
    """Where the documents' objects lie. Raises `ConfigurationError`."""
    missing = [name for name in ("cf_r2_access_key_id", "cf_r2_secret_access_key") if not getattr(cards, name).get_secret_value()]
    if missing:
        names = " and ".join(map(str.upper, missing))
        raise ConfigurationError(f"{names}: not set; set the keys of the store that CF_R2_BUCKET_NAME lies in")
    options = {
        "region": cards.cf_r2_region,
        "endpoint": cards.cf_r2_endpoint,
        "access_key_id": cards.cf_r2_access_key_id.get_secret_value(),
        "secret_access_key": cards.cf_r2_secret_access_key.get_secret_value(),
    }
    names = "CF_R2_ENDPOINT, CF_R2_BUCKET_NAME, CF_R2_ACCESS_KEY_ID and CF_R2_SECRET_ACCESS_KEY"
    return ResultStore(f"s3://{cards.cf_r2_bucket_name}", allow_http=cards.cf_r2_endpoint.startswith("http://"), s3=options, set_by=names)
