"""Rows of the lab platform's tables, and what was made of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import text

from bridge.database.platforms import create_tables
from bridge.settings import load
from bridge.store import Store, open_store


@asynccontextmanager
async def lab_store(database: str) -> AsyncIterator[Store]:
    """A ledger beside the platform's tables."""
    async with open_store(load(database=database)) as store:
        await create_tables(store.database, "labs")
        yield store


async def insert(store: Store, table: str, **columns: Any) -> None:
    """Write one row."""
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    await store.database.change(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), columns)


async def report(store: Store, name: str, value: str | None, unit: str | None = "mg/dL", day: str = "2026-03-02", **columns: Any) -> None:
    """A result as a laboratory reported it."""
    facts = {"user_id": 7, "test_name": name, "test_value": value, "test_unit": unit, "test_date": date.fromisoformat(day)}
    await insert(store, "lab_reports", **{**facts, **columns})


async def vital(store: Store, user: int, metric: str, value: float, unit: str, at: str, **columns: Any) -> None:
    """A reading at a local time; `minutes`: how long it lasted."""
    began = datetime.fromisoformat(at)
    ended = began + timedelta(minutes=columns.pop("minutes", 0))
    facts = {"user_id": user, "metric_type": metric, "value": value, "unit": unit, "start_date": began, "end_date": ended}
    await insert(store, "vitals_raw_data", **{**facts, "data_source": "manual_entry", **columns})


async def meal(store: Store, user: int, day: str, kind: str, calories: float, **columns: Any) -> None:
    """Something eaten."""
    facts = {
        "user_id": user,
        "food_item_name": "Food",
        "meal_type": kind,
        "portion_size": 1,
        "portion_unit": "plate",
        "calories": calories,
        "meal_date": date.fromisoformat(day),
        "meal_time": datetime.fromisoformat(f"{day} 12:00"),
        "data_source": "manual_entry",
    }
    await insert(store, "nutrition_raw_data", **{**facts, **columns})


async def rows(store: Store, query: str, **values: Any) -> Sequence[Mapping[str, Any]]:
    """What a query gives."""
    return [dict(row) for row in (await store.database.look(text(query), values)).rows]
