"""The lab platform, opened as its settings say: its jobs' handler, and the loop that looks at its tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from bridge.aws.access import Aws
from bridge.aws.names import Names
from bridge.database.port import Database
from bridge.errors import BridgeError
from bridge.rollups.labs import LabClassifier, LabRollup
from bridge.rollups.passes import for_ever, once
from bridge.rollups.port import Rollup
from bridge.rollups.tables import RollupOptions, TableRollup
from bridge.settings_labs import LabWorkerSettings
from bridge.systems.labs.platform_handler import PlatformLabHandler

_log = structlog.get_logger()
# How often rows that failed are looked for, where nothing says how often the tables are looked at.
_DUE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class LabPlatform:
    """What is served of it."""

    handler: PlatformLabHandler
    # Runs until `stop`; sets it when nothing else is to be done.
    loop: Callable[[asyncio.Event], Awaitable[None]]


async def open_lab_platform(settings: LabWorkerSettings, database: Database, classifier: LabClassifier, aws: Aws) -> LabPlatform:
    """Set it up. Raises `ConfigurationError` for a database that cannot hold its tables."""
    labs, others = rollups(settings, database, classifier)
    dead = await _dead_queue(settings, aws)
    handler = PlatformLabHandler(labs=labs, others={rollup.name: rollup for rollup in others}, dead_queue=dead)
    return LabPlatform(handler=handler, loop=_Loop(settings, [*others, labs]))


async def _dead_queue(settings: LabWorkerSettings, aws: Aws) -> str:
    if not settings.ml_worker_sqs_queue_url or settings.ml_worker_mode == "aggregation":
        return ""
    try:
        return await Names(aws).dead_letter_queue(settings.ml_worker_sqs_queue_url)
    except BridgeError as error:
        # The role may well lack the right to ask; the ledger keeps dead letters all the same.
        _log.warning("dead_letter_queue_unknown", error=str(error))
        return ""


def rollups(settings: LabWorkerSettings, database: Database, classifier: LabClassifier) -> tuple[LabRollup, Sequence[Rollup]]:
    """Labs, and what needs no inference server: vitals and nutrition. Raises `ConfigurationError`."""
    options = RollupOptions(zone=settings.default_timezone, batch=settings.vitals_batch_size, compat=settings.aggregation_compat)
    return LabRollup(database, classifier, options), [TableRollup(database, name, options) for name in ("vitals", "nutrition")]


class _Loop:
    def __init__(self, settings: LabWorkerSettings, every: Sequence[Rollup]) -> None:
        self._settings = settings
        self._rollups = every

    async def __call__(self, stop: asyncio.Event) -> None:
        interval = self._settings.aggregation_interval
        if self._settings.rolls_up and interval:
            await for_ever(self._rollups, stop=stop, interval=interval)
            return
        if self._settings.rolls_up:
            await self._look_once(stop)
        # Rows are taken up by the jobs for them; of those that failed then, no job may come any more.
        await for_ever(self._rollups, stop=stop, interval=interval or _DUE_SECONDS, failed=True)

    async def _look_once(self, stop: asyncio.Event) -> None:
        alone = self._settings.ml_worker_mode == "aggregation"
        try:
            found = await once(self._rollups, stop=stop)
            _log.info("rolled_up", rows=found.taken, failed=found.failed)
        except BridgeError as error:
            if alone:
                raise
            _log.error("rollup_given_up", error=str(error))  # jobs go on
        if alone:
            stop.set()
