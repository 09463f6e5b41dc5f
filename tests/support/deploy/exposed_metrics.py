"""What both programs tell Prometheus, by labels and values: scraped from running ones; what only a GPU tells, from its collectors."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
from inference import grpc_service_pb2_grpc as stubs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bridge.http.metrics import Metrics
from bridge.ledger.port import Backlog
from bridge.sources.port import QueueLevel
from bridge.store import Store
from inference_server.engine.gpu_monitor import GpuReading
from inference_server.scheduler.dispatch.admission import Admission, QueueLimits
from inference_server.scheduler.dispatch.executor import PlacedEngine
from inference_server.scheduler.loading.memory import MemoryBudget
from inference_server.scheduler.metrics.scheduler import ModelMetrics, SchedulerMetrics, tell_of_room
from inference_server.scheduler.response_cache import ResponseCache
from inference_server.service.metrics.calls import CallMetrics
from inference_server.service.metrics.devices import DeviceCollector
from tests.support.bridge.answering_bridge import answering_bridge, figures_of
from tests.support.bridge.trial_bridge import message
from tests.support.inference_server.running_application import running_application
from tests.support.models.requests import infer_request
from tests.support.models.small_models import write_small_repository

_Values = dict[str, dict[str, set[str]]]


@dataclass(frozen=True, kw_only=True)
class Exposed:
    """By sample, such as bridge_job_seconds_bucket: each label, and the values that were seen."""

    labels: dict[str, dict[str, set[str]]]
    # The samples of the bridge that ran, and of the server that did.
    of_bridge: frozenset[str]
    of_server: frozenset[str]

    def has(self, sample: str, label: str, value: str | None = None) -> bool:
        """Whether a sample has a label, with this value if one is given."""
        values = self.labels.get(sample, {}).get(label)
        return values is not None and (value is None or value in values)


async def everything_exposed(folder: Path) -> Exposed:
    """Run a bridge that does good and bad jobs, and a server that answers a request, and read what they tell."""
    texts = [await _of_a_bridge(folder), await _of_a_server(folder), _of_sqs(), _of_a_gpu()]
    labels: _Values = defaultdict(lambda: defaultdict(set))
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found = labels[sample.name]
                for name, value in sample.labels.items():
                    found[name].add(value)
    of_bridge, of_server = (
        frozenset(sample.name for family in text_string_to_metric_families(text) for sample in family.samples) for text in texts[:2]
    )
    return Exposed(labels={sample: dict(values) for sample, values in labels.items()}, of_bridge=of_bridge, of_server=of_server)


async def _do_some(store: Store) -> None:
    for key, request in {
        "good": {"parts": 2},
        "bad": {"broken": True},
        "flaky": {"transient_failures": 1},
        "spare": {"fallback": "spare"},
    }.items():
        await store.submit(message(key, **request))
    await store.queue.send("poison", b"?")
    async with asyncio.timeout(60):
        while await store.queue.depth():
            await asyncio.sleep(0.02)


async def _of_a_bridge(folder: Path) -> str:
    async with answering_bridge(folder) as (address, store):
        await _do_some(store)
        return await figures_of(address)


async def _of_a_server(folder: Path) -> str:
    write_small_repository(folder / "models")
    async with (
        running_application(folder / "models", folder) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        row = np.ones((1, 4), dtype=np.float32)
        await stubs.GRPCInferenceServiceStub(channel).ModelInfer(infer_request("sum_and_difference", a=row, b=row))
        return await figures_of(application.http.address)


def _of_sqs() -> str:
    level = QueueLevel(queue="jobs", waiting=1, leased=1, delayed=1, oldest_seconds=1, dead=1)
    metrics = Metrics(in_flight=lambda: 0, source="sqs")
    return metrics.render(Backlog(depth=0, oldest_age=0), [level], dead_letters=0).decode()


def _of_a_gpu() -> str:
    registry = CollectorRegistry()
    reading = GpuReading(device="cuda:0", name="a GPU", memory_used=1, memory_total=2, utilisation=0.5)
    registry.register(DeviceCollector(lambda: [reading]))
    scheduler = SchedulerMetrics(registry)
    ModelMetrics(scheduler, "model", "1").fell_back("device_lost")
    CallMetrics(registry, "1").limit_waited("calls")
    memory = MemoryBudget(1)
    tell_of_room(registry, admission=Admission(QueueLimits()), cache=ResponseCache(0), memory=memory, gpu_memory={"cuda:0": memory})
    engine: Any = SimpleNamespace(name="tensorrt", precision="float16", device_seconds=1.0, outside=0)
    scheduler.serves("model", "1", [PlacedEngine(engine=engine, device="cuda:0")])
    return generate_latest(registry).decode()
