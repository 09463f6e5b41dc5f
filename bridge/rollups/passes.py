"""Passes over what waits: all users in turns, so that nobody's backlog holds another's up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from bridge.errors import BridgeError, NotYetError, OverloadError, TooSlowError, TransientError
from bridge.pauses import stopped
from bridge.rollups.port import Rolled, Rollup

_log = structlog.get_logger()
_TROUBLE_SECONDS = 5.0
# So often in a row may the database take too long over some user.
_MOST_SLOW = 3


async def one_pass(rollup: Rollup, *, user: int | None = None, failed: bool = False, slow: dict[int, TooSlowError] | None = None) -> Rolled:
    """One batch of each user who waits, or of one user. Raises `TransientError`, `OverloadError`; `NotYetError` for the one user.

    `failed`: of users alone whose rows have failed and are due. `slow`: takes the users over whom the database takes too long; those
    who are in it are passed over.
    """
    if user is not None:
        return await rollup.roll(user)
    whole, slow = Rolled(), {} if slow is None else slow
    for one in await rollup.users(failed=failed):
        try:
            whole += await rollup.roll(one) if one not in slow else Rolled()
        except NotYetError as error:
            _log.info("user_passed_over", reason=str(error))
        except TooSlowError as error:
            _log.warning("user_passed_over", reason=str(error))
            slow[one] = error
    return whole


async def until_empty(rollups: Sequence[Rollup], *, stop: asyncio.Event, user: int | None = None, failed: bool = False) -> Rolled:
    """Passes, as `one_pass` makes them, until nothing waits, or until `stop`; between two passes of one kind the others have theirs.

    Raises as `one_pass` does, once the other kinds are done, which one that fails does not hold up; `TooSlowError` once everybody else's
    rows are done.
    """
    whole, slow = Rolled(), {rollup.name: dict[int, TooSlowError]() for rollup in rollups}
    busy, errors = list(rollups), list[BridgeError]()
    while busy and not stop.is_set():
        for rollup in list(busy):
            found = Rolled()
            try:
                found = await one_pass(rollup, user=user, failed=failed, slow=slow[rollup.name])
            except BridgeError as error:
                errors.append(error)
            whole += found
            if found == Rolled():
                busy.remove(rollup)
    errors += [error for found_slow in slow.values() for error in found_slow.values()]
    if errors:
        raise errors[0]
    return whole


async def once(rollups: Sequence[Rollup], *, stop: asyncio.Event, pause: float = _TROUBLE_SECONDS) -> Rolled:
    """As `until_empty`, but trouble that may pass is waited out, `pause` seconds at a time. Raises `PermanentError`, `TooSlowError`."""
    slow = 0
    while not stop.is_set():
        try:
            return await until_empty(rollups, stop=stop)
        except (TransientError, OverloadError) as error:
            _log.warning("rollup_delayed", error=str(error))
            slow = slow + 1 if isinstance(error, TooSlowError) else 0
            if slow == _MOST_SLOW:
                raise
        await stopped(stop, pause)
    return Rolled()


async def for_ever(rollups: Sequence[Rollup], *, stop: asyncio.Event, interval: float, failed: bool = False) -> None:
    """Passes until nothing waits, then a pause of `interval` seconds, until `stop`. Trouble is waited out, whoever must end it.

    `failed`: of users alone whose rows have failed and are due.
    """
    while not stop.is_set():
        pause = interval
        try:
            found = await until_empty(rollups, stop=stop, failed=failed)
            if found != Rolled():
                _log.info("rolled_up", rows=found.taken, failed=found.failed)
        except BridgeError as error:
            _log.warning("rollup_delayed", error=str(error))
            pause = min(interval, _TROUBLE_SECONDS)
        await stopped(stop, pause)
