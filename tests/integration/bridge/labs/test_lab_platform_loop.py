"""What a bridge of the lab platform does by itself beside its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text

from bridge.aws.access import Aws
from bridge.platforms import labs as lab_platform
from bridge.platforms.labs import open_lab_platform
from bridge.settings_labs import LabWorkerSettings
from bridge.store import Store
from tests.support.bridge.platform_rows import lab_store, meal, report, rows, vital
from tests.support.inference_server.lab_classifier import Classifier


@pytest.fixture
async def store(new_postgres_database: Callable[[], str]) -> AsyncIterator[Store]:
    async with lab_store(new_postgres_database()) as opened:
        yield opened


@pytest.mark.parametrize(("mode", "interval"), [("sqs", 0.05), ("both", 0)])
async def test_rows_that_failed_are_tried_again_though_no_job_comes_for_them_any_more(
    store: Store, monkeypatch: pytest.MonkeyPatch, mode: str, interval: float
) -> None:
    """Whatever took them up first. In mode `sqs` the others are left to their jobs."""
    monkeypatch.setattr(lab_platform, "_DUE_SECONDS", 0.05)
    settings = LabWorkerSettings(ml_worker_mode=mode, aggregation_interval=interval)
    async with Aws() as aws:
        platform = await open_lab_platform(settings, store.database, Classifier(), aws)
    await _given_up(store, user=7)
    if mode == "sqs":
        await report(store, "Hemoglobin", "13", user_id=8)
    stop = asyncio.Event()
    loop = asyncio.create_task(platform.loop(stop))
    await asyncio.sleep(0.3)
    assert [] == await rows(store, "SELECT 1 FROM lab_reports_daily UNION ALL SELECT 1 FROM vitals_daily_aggregates"), "it is not due"

    await store.database.change(text("UPDATE lamina.row_failures SET due_at = 0"))

    async with asyncio.timeout(60):
        while not await rows(store, "SELECT 1 FROM lab_reports_daily, vitals_daily_aggregates, nutrition_daily_aggregates"):
            assert not loop.done()
            await asyncio.sleep(0.02)
    stop.set()
    await loop
    left = await rows(store, "SELECT user_id FROM lab_reports WHERE categorization_status <> 'categorized'")
    assert ([8] if mode == "sqs" else []) == [row["user_id"] for row in left]
    assert [] == await rows(store, "SELECT 1 FROM lamina.row_failures")


async def _given_up(store: Store, *, user: int) -> None:
    """A row of each kind that failed three times, so that its job was given up."""
    await report(store, "Glucose", "90", user_id=user, categorization_status="failed")
    await vital(store, user, "Steps", 10, "count", "2026-03-02 08:00", aggregation_status="failed")
    await meal(store, user, "2026-03-02", "lunch", 500, aggregation_status="failed")
    for kind, table in (("labs", "lab_reports"), ("vitals", "vitals_raw_data"), ("nutrition", "nutrition_raw_data")):
        failed = f"INSERT INTO lamina.row_failures SELECT '{kind}', id, 3, now + 240, 'it broke' FROM {table}, lamina.clock"
        await store.database.change(text(failed))
