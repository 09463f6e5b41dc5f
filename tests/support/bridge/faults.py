"""What may happen to a bridge at any of its steps. The crash matrix plays each of these on each source."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.support.bridge.freezing import freeze_between_writes
from tests.support.bridge.trial_stage import LEASE_SECONDS, Stage
from tests.support.servers.fault_proxy import FaultProxy

# Longer than a lease, so that what a bridge has is others' for a while.
_PAST_A_LEASE = 1.5 * LEASE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of mishap."""

    # Starts bridges, and has it happen to the first of them at the stage's step. Those that run afterwards finish the work.
    happen: Callable[[Stage], Awaitable[None]]
    # Exit statuses of the bridges.
    statuses: tuple[int, ...]
    # The line that it happens to: database, queue, inference. Empty when it is none.
    line: str = ""
    # How many sources see it at each step; with a line, whatever happens to that line counts together.
    sources_a_step: int = 1


async def _killed(stage: Stage) -> None:
    await stage.ended(stage.start(signal.SIGKILL))
    assert await stage.longest_lease() <= LEASE_SECONDS, "others may go on within a lease"
    stage.start()


async def _told_to_stop(stage: Stage) -> None:
    await stage.ended(stage.start(signal.SIGTERM))
    assert await stage.longest_lease() == 0, "who stops in peace leaves no lease"
    stage.start()


async def _frozen_past_its_lease(stage: Stage) -> None:
    bridge = stage.start(signal.SIGSTOP)
    await stage.frozen(bridge)
    stage.start()
    await asyncio.sleep(_PAST_A_LEASE)
    # One that holds the lock of a SQLite file keeps it as long as it is frozen.
    await stage.until_done(at_most=2 * LEASE_SECONDS)
    stage.thaw(bridge)


async def _delivered_again(stage: Stage) -> None:
    """While the bridge stands at the step, everything comes again: in the reverse order, and what it has under the same ids too."""
    bridge = stage.start(signal.SIGSTOP)
    await stage.frozen(bridge)
    await freeze_between_writes(bridge.pid or 0, stage.store.database)
    for body in reversed(stage.messages):
        await stage.rig.send(body)
    await stage.rig.redeliver()
    stage.thaw(bridge)


async def _gone(proxy: FaultProxy) -> None:
    proxy.refuse()
    await asyncio.sleep(_PAST_A_LEASE)


async def _slow(proxy: FaultProxy) -> None:
    proxy.delay(0.05)
    await asyncio.sleep(_PAST_A_LEASE)


async def _silent(proxy: FaultProxy) -> None:
    proxy.swallow()
    await asyncio.sleep(_PAST_A_LEASE)
    proxy.cut()  # as a fail-over ends what it has left hanging


def _to_the_line(misbehave: Callable[[FaultProxy], Awaitable[None]]) -> Callable[[Stage], Awaitable[None]]:
    async def happen(stage: Stage) -> None:
        bridge = stage.start(signal.SIGSTOP)
        await stage.frozen(bridge)
        # The fault is there before the bridge takes its next step.
        fault = asyncio.ensure_future(misbehave(stage.proxy))
        await asyncio.sleep(0)
        stage.thaw(bridge)
        await fault
        stage.proxy.mend()

    return happen


FAULTS: Mapping[str, Fault] = {
    "killed": Fault(happen=_killed, statuses=(-signal.SIGKILL, 0), sources_a_step=3),
    "told to stop": Fault(happen=_told_to_stop, statuses=(0, 0)),
    "frozen": Fault(happen=_frozen_past_its_lease, statuses=(0, 0)),
    "delivered again": Fault(happen=_delivered_again, statuses=(0,)),
} | {
    f"{line} {name}": Fault(happen=_to_the_line(misbehave), statuses=(0,), line=line)
    for line in ("database", "queue", "inference")
    for name, misbehave in {"gone": _gone, "slow": _slow, "silent": _silent}.items()
}
