"""How fast are vitals rolled up, and does it cost what is touched or what is there?

A million readings of 100 users over 30 days, in the platform's tables on a PostgreSQL that keeps what it confirms on the disk, are taken up
and rolled up into hours, days, weeks and months. Bar: 60 s. Then one user adds 100 readings of one day, twice: with the million
in the tables, and in a database with 10,000. Bar: the first takes at most 3 times as long as the second.

Run: python benchmarks/aggregation.py [--check] [--rows 1000000]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from statistics import median

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from bridge.rollups.passes import until_empty
from bridge.rollups.port import Rolled
from bridge.rollups.tables import RollupOptions, TableRollup
from bridge.store import Store
from tests.support.bridge.platform_rows import lab_store
from tests.support.servers.postgres import PostgresServer, postgres_server

MOST_SECONDS = 60.0
MOST_RATIO = 3.0
_SMALL = 10_000
_USERS = 100
_ROUNDS = 5
_DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_wal_size": "2GB"}
# Five metrics in turns, a reading every few minutes.
_FILL = """
INSERT INTO vitals_raw_data (user_id, metric_type, value, unit, start_date, end_date, data_source)
SELECT 1 + number % :users,
       (ARRAY['Heart Rate', 'Steps', 'Oxygen Saturation', 'Active Energy', 'Distance Walking'])[1 + number / :users % 5],
       50 + number % 50, (ARRAY['bpm', 'count', '%', 'kcal', 'km'])[1 + number / :users % 5], moment, moment, 'apple_healthkit'
FROM (
    SELECT number, timestamp '2026-01-01' + make_interval(secs => (number / :users) * (30 * 86400.0 * :users / :rows)) AS moment
    FROM generate_series(0, :rows - 1) AS number
) AS readings
"""
_MORE = """
INSERT INTO vitals_raw_data (user_id, metric_type, value, unit, start_date, end_date, data_source)
SELECT 1, 'Heart Rate', 70, 'bpm', moment, moment, :source
FROM (SELECT timestamp '2026-01-15' + make_interval(mins => number) AS moment FROM generate_series(0, 99) AS number) AS readings
"""


def main() -> int:
    """Print the table; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--rows", type=int, default=1_000_000, help="readings that wait")
    options = parser.parse_args()
    with postgres_server(**_DURABLE) as postgres:
        seconds, many = asyncio.run(measure(postgres, options.rows))
        _, few = asyncio.run(measure(postgres, _SMALL))
    ratio = many / few
    table = Table("figure", "measured", "bar", title="Vitals rolled up")
    met = seconds < MOST_SECONDS
    table.add_row(f"{options.rows:,} readings", f"{seconds:.1f} s; below {MOST_SECONDS:.0f}", "met" if met else "MISSED")
    told = f"{1000 * many:.0f} and {1000 * few:.0f} ms: {ratio:.2f}; at most {MOST_RATIO:g}"
    table.add_row(f"100 readings more, beside {options.rows:,} and {_SMALL:,}", told, "met" if ratio <= MOST_RATIO else "MISSED")
    Console(width=110).print(table)
    return int(options.check and not (met and ratio <= MOST_RATIO))


async def measure(postgres: PostgresServer, count: int) -> tuple[float, float]:
    """Seconds for all, and the median for a few more."""
    async with lab_store(postgres.new_database()) as store:
        await store.database.change(text("SET statement_timeout = 0"))
        for begin in range(0, count, 200_000):
            await _fill(store, begin, min(200_000, count - begin), count)
        rollup = TableRollup(store.database, "vitals", RollupOptions())
        began = time.monotonic()
        rolled = await until_empty([rollup], stop=asyncio.Event())
        whole = time.monotonic() - began
        assert rolled == Rolled(taken=count), rolled
        await store.database.change(text("ANALYZE"))
        taken = []
        for number in range(_ROUNDS):
            await store.database.change(text(_MORE), {"source": f"device {number}"})
            began = time.monotonic()
            assert await until_empty([rollup], stop=asyncio.Event(), user=1) == Rolled(taken=100)
            taken.append(time.monotonic() - began)
    return whole, median(taken)


async def _fill(store: Store, begin: int, count: int, whole: int) -> None:
    """Some of the readings, so that no statement takes long."""
    statement = _FILL.replace("generate_series(0, :rows - 1)", "generate_series(:begin, :begin + :count - 1)")
    await store.database.change(text(statement), {"users": _USERS, "rows": whole, "begin": begin, "count": count})


if __name__ == "__main__":
    sys.exit(main())
