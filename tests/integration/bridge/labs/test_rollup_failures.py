"""Rows that fail where several bridges are at them, and kinds of rows that cannot be had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import text

from bridge.errors import PermanentError, TransientError
from bridge.inference.labs import LabTest
from bridge.platforms.labs import rollups
from bridge.rollups.labs import LabRollup
from bridge.rollups.passes import until_empty
from bridge.rollups.port import Rolled
from bridge.rollups.tables import RollupOptions, RollupTables, TableRollup
from bridge.settings_labs import LabWorkerSettings
from bridge.store import Store
from tests.support.bridge.platform_rows import lab_store, meal, report, rows, vital
from tests.support.inference_server.lab_classifier import Classifier


@pytest.fixture
async def store(new_postgres_database: Callable[[], str]) -> AsyncIterator[Store]:
    async with lab_store(new_postgres_database()) as opened:
        yield opened


class Blaming(Classifier):
    """Fails over glucose, once all who ask have asked."""

    def __init__(self, *, askers: int) -> None:
        super().__init__()
        self._all = asyncio.Barrier(askers)

    async def classify_lab_tests(self, tests: Sequence[LabTest], **more: Any) -> Any:
        if any(test.name == "Glucose" for test in tests):
            await self._all.wait()
            raise PermanentError("it fails [INTERNAL]")
        return await super().classify_lab_tests(tests, **more)


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_row_that_several_bridges_fail_over_at_once_has_failed_once(store: Store, given_up: bool) -> None:
    await report(store, "Glucose", "90")
    if given_up:
        await store.database.change(text("UPDATE lab_reports SET categorization_status = 'failed'"))
        await store.database.change(
            text("INSERT INTO lamina.row_failures SELECT 'labs', id, 1, now, 'it broke' FROM lab_reports, lamina.clock")
        )
    blaming = Blaming(askers=4)
    bridges = [LabRollup(store.database, blaming, RollupOptions()) for _ in range(4)]

    await asyncio.gather(*(until_empty([one], stop=asyncio.Event(), failed=given_up) for one in bridges))

    [failure] = await rows(store, "SELECT attempts, due_at FROM lamina.row_failures")
    assert (2 if given_up else 1) == failure["attempts"]
    assert failure["due_at"] is not None


@pytest.mark.parametrize("name", ["vitals", "nutrition"])
async def test_a_row_that_another_bridge_has_done_meanwhile_has_not_failed(store: Store, name: str) -> None:
    await vital(store, 7, "Steps", 10, "count", "2026-03-02 08:00")
    await meal(store, 7, "2026-03-02", "lunch", 500)
    await TableRollup(store.database, name, RollupOptions()).roll(7)

    assert Rolled() == await RollupTables(store.database, name, RollupOptions()).fail(1, "it broke", passing=True)

    [row] = await rows(store, f"SELECT aggregation_status FROM {name}_raw_data")
    assert {"vitals": "categorized", "nutrition": "completed"}[name] == row["aggregation_status"]
    assert [] == await rows(store, "SELECT 1 FROM lamina.row_failures")


async def test_one_kind_of_rows_that_cannot_be_looked_at_holds_no_other_up(store: Store) -> None:
    labs, others = rollups(LabWorkerSettings(), store.database, Classifier())
    await report(store, "Glucose", "90")
    await store.database.change(text("ALTER TABLE vitals_raw_data RENAME TO vitals_elsewhere"))

    with pytest.raises(TransientError, match="vitals_raw_data"):
        await until_empty([*others, labs], stop=asyncio.Event())

    assert [1] == [row["count"] for row in await rows(store, "SELECT count FROM lab_reports_daily")]
