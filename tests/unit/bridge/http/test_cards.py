"""What the card platform's clients get over HTTP."""

from __future__ import annotations

import math
from typing import Any

import pytest
from starlette.testclient import TestClient

from bridge.errors import TransientError
from bridge.http.cards import CardFacts, CardRoutes
from bridge.http.events import JobEvents
from bridge.http.figures import Figures
from bridge.http.metrics import Metrics
from bridge.http.routes import Routes
from bridge.ledger.port import Backlog
from bridge.sources.port import QueueLevel

GPU, CPU = "filot:ocr:gpu:queue", "filot:ocr:queue"
LEVELS = [
    QueueLevel(queue=GPU, waiting=21, leased=2, delayed=0, oldest_seconds=4),
    QueueLevel(queue=CPU, waiting=3, leased=0, delayed=0, oldest_seconds=0),
]


class Ledger:
    """With nothing in it."""

    async def backlog(self) -> Backlog:
        return Backlog(depth=0, oldest_age=0)

    async def waiting(self) -> int:
        return 0


def card_routes(*, cases: int | None = 11, ready: bool = True, has_gpu: bool = True, reviews_open: bool = False) -> CardRoutes:
    async def cases_waiting() -> int:
        if cases is None:
            raise TransientError("Redis is out of reach")
        return cases

    async def server_ready() -> bool:
        return ready

    return CardRoutes(
        CardFacts(
            environment="staging",
            gpu_queue=GPU,
            cpu_queue=CPU,
            gpu_enabled=True,
            has_gpu=has_gpu,
            falls_back=False,
            server_ready=server_ready,
            cases_waiting=cases_waiting,
            reviews_open=lambda: reviews_open,
        )
    )


def client(cards: CardRoutes, levels: list[QueueLevel] | None = LEVELS) -> TestClient:
    async def found() -> list[QueueLevel]:
        if levels is None:
            raise TransientError("Redis is out of reach")
        return levels

    ledger: Any = Ledger()
    figures = Figures(metrics=Metrics(in_flight=lambda: 2), outbox=ledger, dead_letters=ledger, levels=found)
    routes = Routes(
        jobs=None,  # type: ignore[arg-type]
        figures=figures,
        events=JobEvents(),
        probes={},
        more=cards.routes(),
        platform_metrics=lambda told: cards.metrics(told, 2),
    )
    return TestClient(routes.application())


def told(**facts: Any) -> dict[str, Any]:
    answer = client(card_routes(**facts)).get("/metrics", headers={"Accept": "application/json"})
    assert 200 == answer.status_code
    return answer.json()  # type: ignore[no-any-return]


def test_metrics_are_json_in_the_platforms_shape_for_those_who_name_it() -> None:
    answer = told()
    metrics = answer["metrics"]
    assert answer["ok"] is True
    assert "staging" == metrics["environment"]
    assert {"gpuQueueLength": 21, "cpuQueueLength": 3, "gpuActiveJobs": 2, "buli2RetryQueueLength": 11} == metrics["queues"]
    assert {"isRunning": True, "isGPUAvailable": True, "isGPUEnabled": True, "activeJobsCount": 2, "autoFallbackEnabled": False} == metrics[
        "gpuWorker"
    ]
    assert ({"buli2": "CLOSED"}, {"size": 0}) == (metrics["circuitBreaker"], metrics["metricsBuffer"])
    assert {"timestamp", "uptime"} <= metrics.keys()


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/metrics", "application/json, text/plain, */*", "application/json"),
        ("/metrics?format=json", "*/*", "application/json"),
        ("/metrics", "*/*", "application/json"),
        ("/metrics", "text/plain", "text/plain"),
        ("/metrics", "application/openmetrics-text;version=1.0.0,*/*;q=0.1", "text/plain"),
        ("/metrics", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", "text/plain"),
    ],
    ids=["axios", "by the query", "curl", "text by name", "openmetrics alone", "prometheus"],
)
def test_prometheus_and_old_clients_each_get_what_they_read(path: str, accept: str, kind: str) -> None:
    assert client(card_routes()).get(path, headers={"Accept": accept}).headers["content-type"].startswith(kind)


def test_what_is_out_of_reach_is_null_and_told() -> None:
    assert (False, None) == (told(cases=None)["ok"], told(cases=None)["metrics"]["queues"]["buli2RetryQueueLength"])
    answer = client(card_routes(), None).get("/metrics?format=json").json()
    assert (False, None, 11) == (
        answer["ok"],
        answer["metrics"]["queues"]["gpuQueueLength"],
        answer["metrics"]["queues"]["buli2RetryQueueLength"],
    )
    unknown = [QueueLevel(queue=GPU, waiting=math.nan, leased=0, delayed=0, oldest_seconds=0)]
    queues = client(card_routes(), unknown).get("/metrics?format=json").json()["metrics"]["queues"]
    assert (None, 0) == (queues["gpuQueueLength"], queues["cpuQueueLength"])


def test_a_server_that_is_not_ready_and_an_open_breaker_are_told() -> None:
    metrics = told(ready=False, reviews_open=True)["metrics"]
    assert (False, "OPEN") == (metrics["gpuWorker"]["isGPUAvailable"], metrics["circuitBreaker"]["buli2"])


def test_a_gpu_that_the_container_is_kept_from_is_not_available() -> None:
    worker = told(has_gpu=False)["metrics"]["gpuWorker"]
    assert (False, True) == (worker["isGPUAvailable"], worker["isGPUEnabled"])


def test_health_has_the_platforms_keys() -> None:
    answer = client(card_routes()).get("/health").json()
    assert {
        "ok": True,
        "status": "ok",
        "environment": "staging",
        "ocrEngine": "lamina",
        "temporalConfigured": False,
    }.items() <= answer.items()
    assert {"uptime", "timestamp"} <= answer.keys()
