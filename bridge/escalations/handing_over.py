"""Hands over what waits, one program at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from secrets import token_hex

import structlog

from bridge.errors import BridgeError, ConfigurationError, OverloadError, PermanentError
from bridge.escalations.cases import Escalation, EscalationList
from bridge.pauses import stopped
from bridge.reviews import NoAnswerError, ReviewService

_log = structlog.get_logger()
# After so many failures of its own a case is given up. A service that is down, busy or does not know us is no failure of a case.
_MOST_ATTEMPTS = 5
# A case's second try waits one interval; each next one waits so many times as long.
_GROWTH = 4.0
# Of so many cases it is known how often the service had answered when they got no answer.
_MOST_UNANSWERED = 1000
# Intervals between two looks while the service refuses us: only a person can mend that.
_REFUSED = 10


class HandOver:
    """The loop that empties the list. A case leaves it once it has its ticket, or once it is not wanted any more."""

    def __init__(
        self,
        cases: EscalationList,
        reviews: ReviewService,
        *,
        is_with_people: Callable[[str, str], Awaitable[bool]],
        keep_ticket: Callable[[str, str, str], Awaitable[None]],
        interval: float = 30.0,
    ) -> None:
        """`is_with_people`: whether a person has had the last word on a document, or its case has a ticket already.

        `keep_ticket`: takes a document's id and its ticket. Both take the platform's review too, empty for a worker's case. `interval`:
        seconds between two looks.
        """
        self._cases = cases
        self._reviews = reviews
        self._is_with_people = is_with_people
        self._keep_ticket = keep_ticket
        self._interval = interval
        # By document: how many cases the service had taken when this one got no answer.
        self._unanswered: dict[str, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Hand cases over until `stop`."""
        while not stop.is_set():
            pause = self._interval
            try:
                while not stop.is_set() and await self.hand_over():
                    pass
            except ConfigurationError as error:
                pause *= _REFUSED
                _log.error("escalations_refused", reason=str(error), kept=True, next_try_in=pause)
            except OverloadError as error:
                # Whoever is taken next is asked for: refused, it would lose its place to one that may be the cause, again and again.
                pause = max(pause, error.retry_after, self._reviews.seconds_left_alone)
                _log.warning("escalations_delayed", reason=str(error), next_try_in=pause)
            except BridgeError as error:
                _log.warning("escalations_delayed", reason=str(error), next_try_in=pause)
            await stopped(stop, pause)

    async def hand_over(self) -> bool:
        """Hand the first case over that is due; false when there is none, or another program has its turn.

        Raises `OverloadError` while the service is down or busy, and `ConfigurationError` when it does not know us: the case waits on then.
        """
        who = token_hex(8)
        case = await self._cases.take(who)
        if case is None:
            return False
        if not case.document:
            _log.error("escalation_unreadable")
            await self._cases.bury(who, case, reason=case.reason)
            return True
        try:
            await self._work_on(who, case)
        except BridgeError:
            raise
        except Exception as error:  # one odd case must not end the program, again after each start
            told = type(error).__name__
            _log.error("escalation_broken", document=case.document, error=told)
            await self._cases.bury(who, case, reason=f"it could not be handed over ({told})")
        return True

    async def _work_on(self, who: str, case: Escalation) -> None:
        if case.ticket:
            await self._keep(who, case, case.ticket)
            return
        try:
            is_with_people = await self._is_with_people(case.document, case.review)
        except BridgeError:  # the database will be back
            await self._cases.put_back(who, case)
            raise
        if is_with_people:
            _log.info("escalation_not_needed", document=case.document)
            await self._cases.finish(who, case)
            return
        await self._submit(who, case)

    async def _submit(self, who: str, case: Escalation) -> None:
        try:
            ticket = await self._reviews.submit(case.content["payload"])
        except (OverloadError, ConfigurationError) as error:
            if isinstance(error, NoAnswerError) and self._answers_others(case):
                await self._failed(who, case, error)
                return
            await self._cases.put_back(who, case)
            raise
        except BridgeError as error:
            await self._failed(who, case, error)
            return
        self._unanswered.pop(case.document, None)
        await self._keep(who, case, ticket)

    def _answers_others(self, case: Escalation) -> bool:
        """Whether the service has taken others since this case got no answer before: then it does not get one for its own sake."""
        before = self._unanswered.pop(case.document, self._reviews.taken)
        if len(self._unanswered) >= _MOST_UNANSWERED:
            del self._unanswered[next(iter(self._unanswered))]
        self._unanswered[case.document] = self._reviews.taken
        return self._reviews.taken > before

    async def _failed(self, who: str, case: Escalation, error: BridgeError) -> None:
        """Count a try of a case that the service failed over: later each time, so that it holds up no other, and not for ever."""
        reason, attempts = str(error), case.attempts + 1
        if attempts >= _MOST_ATTEMPTS or isinstance(error, PermanentError):
            _log.error("escalation_given_up", document=case.document, attempts=attempts, reason=reason)
            await self._cases.bury(who, case, reason=reason)
            return
        pause = self._interval * _GROWTH ** (attempts - 1)
        _log.warning("escalation_failed", document=case.document, attempts=attempts, reason=reason, next_try_in=pause)
        await self._cases.postpone(who, case, seconds=pause)

    async def _keep(self, who: str, case: Escalation, ticket: str) -> None:
        try:
            await self._keep_ticket(case.document, ticket, case.review)
        except Exception as error:  # with its ticket, so that it is not handed over again; for good or not, it holds up no other
            reason = str(error) if isinstance(error, BridgeError) else type(error).__name__
            _log.warning("ticket_not_kept", document=case.document, reason=reason, next_try_in=self._interval)
            await self._cases.put_back_with(who, case, ticket=ticket, seconds=self._interval)
            return
        await self._cases.finish(who, case)
