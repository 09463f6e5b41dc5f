"""Cases for people that wait in a list of a real Redis, and a real HTTP server in the review service's place."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bridge.breaker import Breaker
from bridge.errors import ConfigurationError, OverloadError, PermanentError, TransientError
from bridge.escalations import State
from bridge.escalations.cases import EscalationList
from bridge.escalations.handing_over import HandOver
from bridge.redis.access import RedisAccess
from bridge.reviews import ReviewService
from tests.support.moved_clock import moved_clock
from tests.support.ports import free_port
from tests.support.servers.local_http import Answering, Asked, LocalHttp, local_http
from tests.support.servers.redis import RedisServer

TICKET = 200, b'{"taskId": "task-1"}'
# A whole number that no float holds.
HUGE = b"9" * 400


def answering(status: int, *, only: str = "") -> Answering:
    """This status for all cases, or for one document's alone."""

    def answer(asked: Asked) -> tuple[int, bytes]:
        return (status, b"{}") if not only or json.loads(asked.body)["documentId"] == only else TICKET

    return answer


@dataclass
class Desk:
    """The list, the loop, and what became of the cases."""

    redis: Redis
    key: str
    cases: EscalationList
    reviews: LocalHttp
    interval: float = 0.02
    # In a row, after which the service is left alone.
    failures: int = 5
    decided: set[str] = field(default_factory=set)
    # Documents that the database does not tell of.
    unknown: set[str] = field(default_factory=set)
    tickets: dict[str, str] = field(default_factory=dict)
    # Documents that a program's fault stands behind.
    unforeseen: set[str] = field(default_factory=set)
    # Whether the database takes no tickets, and documents of which it takes none.
    full: bool = False
    refused: dict[str, Exception] = field(default_factory=dict)

    def hand_over(self, url: str = "") -> HandOver:
        breaker = Breaker(name="the review service", failures=self.failures, seconds=0.05)
        service = ReviewService(url or self.reviews.url, api_key="key", breaker=breaker, wait_seconds=0.001)
        return HandOver(self.cases, service, is_with_people=self._is_with_people, keep_ticket=self._keep, interval=self.interval)

    async def add(self, *documents: str) -> None:
        for document in documents:
            await self.redis.rpush(self.key, self.cases.later({"documentId": document, "parsedData": {"name": "ANI"}}).body)

    async def attempts(self) -> dict[str, int]:
        return {case.document: case.attempts for case in await self.cases.list(State.WAITING, limit=100)}

    @asynccontextmanager
    async def running(self, url: str = "") -> AsyncIterator[None]:
        """The loop runs meanwhile."""
        stop = asyncio.Event()
        loop = asyncio.create_task(self.hand_over(url).run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(loop, 60)

    async def until(self, **counts: int) -> None:
        async with asyncio.timeout(60):
            while (found := {**await self.cases.counts(), "tickets": len(self.tickets)}) != {**found, **counts}:
                await asyncio.sleep(0.01)

    async def _is_with_people(self, document: str, _review: str) -> bool:
        if document in self.unknown:
            raise TransientError("the database is out of reach")
        if document in self.unforeseen:
            raise ZeroDivisionError("ANI")
        return document in self.decided or document in self.tickets

    async def _keep(self, document: str, ticket: str, review: str) -> None:
        if self.full:
            raise TransientError("the database takes nothing")
        if document in self.refused:
            raise self.refused[document]
        self.tickets[review or document] = ticket


@pytest.fixture
def reviews() -> Iterator[LocalHttp]:
    with local_http(lambda _: TICKET) as running:
        yield running


@pytest.fixture
async def desk(redis: RedisServer, reviews: LocalHttp) -> AsyncIterator[Desk]:
    access, client = RedisAccess(redis.url), Redis.from_url(redis.url)
    key = f"trial:{uuid4()}"
    yield Desk(redis=client, key=key, cases=EscalationList(access, key), reviews=reviews)
    await client.aclose()
    await access.close()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_an_outage_of_the_service_costs_no_case_an_attempt_however_long_it_lasts(desk: Desk, status: int) -> None:
    desk.reviews.answering = answering(status)
    await desk.add("one", "two")
    if status == 429:  # it asks for a second
        desk.interval = 0.01
    async with desk.running():
        while len(desk.reviews.asked) < (2 if status == 429 else 30):
            await asyncio.sleep(0.01)
        assert {"one": 0, "two": 0} == await desk.attempts()
        desk.reviews.answering = lambda _: TICKET
        await desk.until(waiting=0, dead=0, tickets=2)


async def test_a_service_that_is_out_of_reach_costs_no_attempt(desk: Desk) -> None:
    await desk.add("one")
    hand_over = desk.hand_over(f"http://127.0.0.1:{free_port()}")
    for _ in range(12):
        with pytest.raises(OverloadError):
            await hand_over.hand_over()
    assert ({"waiting": 1, "dead": 0}, {"one": 0}) == (await desk.cases.counts(), await desk.attempts())


@pytest.mark.parametrize(("status", "variable"), [(401, "BULI2_API_KEY"), (403, "BULI2_API_KEY"), (404, "BULI2_API_URL")])
async def test_a_service_that_does_not_know_us_is_told_of_aloud_and_costs_no_case_anything(desk: Desk, status: int, variable: str) -> None:
    desk.reviews.answering = answering(status)
    await desk.add("one")
    with capture_logs() as told:
        async with desk.running():
            while not told:
                await asyncio.sleep(0.01)
            assert {"one": 0} == await desk.attempts()
            desk.reviews.answering = lambda _: TICKET
            await desk.until(waiting=0, dead=0, tickets=1)
    first = told[0]
    assert ("error", "escalations_refused", True) == (first["log_level"], first["event"], variable in first["reason"])
    assert first["next_try_in"] == pytest.approx(10 * desk.interval), "only a person can mend it"


async def test_a_redirection_is_no_ticket(desk: Desk) -> None:
    desk.reviews.answering = lambda asked: (301, b"", {"Location": "/login"}) if asked.method == "POST" else TICKET
    await desk.add("one")
    with pytest.raises(ConfigurationError, match="BULI2_API_URL"):
        await desk.hand_over().hand_over()
    assert ({"one": 0}, {}) == (await desk.attempts(), desk.tickets)


async def test_a_case_that_the_service_refuses_is_given_up_with_the_reason_and_can_be_replayed(desk: Desk) -> None:
    desk.reviews.answering = answering(400)
    await desk.add("one")
    assert await desk.hand_over().hand_over()

    [dead] = await desk.cases.list(State.DEAD, limit=10)
    assert ("one", 1, "the review service refuses the case (400)") == (dead.document, dead.attempts, dead.reason)
    assert dead.died_at is not None
    assert {"waiting": 0, "dead": 1} == await desk.cases.counts()

    assert (True, False) == (await desk.cases.replay(dead), await desk.cases.replay(dead)), "it is there once"
    desk.reviews.answering = lambda _: TICKET
    assert await desk.hand_over().hand_over()
    assert ({"one": "task-1"}, {"waiting": 0, "dead": 0}) == (desk.tickets, await desk.cases.counts())
    assert {"documentId": "one", "parsedData": {"name": "ANI"}} == json.loads(desk.reviews.asked[-1].body), "as it was"


async def test_a_case_that_the_service_fails_over_holds_up_no_other_and_is_given_up_in_the_end(desk: Desk) -> None:
    desk.reviews.answering = answering(500, only="bad")
    desk.interval = 0.005
    await desk.add("bad", "good")
    async with desk.running():
        await desk.until(tickets=1, dead=1, waiting=0)
    asked = [json.loads(each.body)["documentId"] for each in desk.reviews.asked]
    assert "good" in asked[:-3], "the other was tried once more at least, and not given up before"
    [dead] = await desk.cases.list(State.DEAD, limit=10)
    assert ("bad", 5) == (dead.document, dead.attempts)


@pytest.mark.parametrize("status", [0, 502])
async def test_a_case_that_alone_gets_no_answer_while_others_are_taken_is_given_up_in_the_end(desk: Desk, status: int) -> None:
    def answer(asked: Asked) -> tuple[int, bytes]:
        if json.loads(asked.body)["documentId"] != "bad":
            return TICKET
        if not status:
            raise ConnectionAbortedError  # the connection is dropped
        return status, b"{}"

    desk.reviews.answering = answer
    desk.interval = 0.005
    await desk.add("bad")
    async with desk.running(), asyncio.timeout(60):
        for number in range(1000):
            await desk.add(f"good-{number}")
            await desk.until(tickets=number + 1)
            if (await desk.cases.counts())[State.DEAD]:
                break
        await desk.until(waiting=0, dead=1)
    [dead] = await desk.cases.list(State.DEAD, limit=10)
    assert ("bad", 5) == (dead.document, dead.attempts)


async def test_while_the_service_is_left_alone_no_case_loses_its_place_to_the_one_that_is_the_cause(desk: Desk) -> None:
    desk.reviews.answering = answering(502, only="bad")
    desk.interval, desk.failures = 0.005, 3  # as many as the tries of one case
    await desk.add("bad", "good")
    async with desk.running(), asyncio.timeout(20):
        await desk.until(tickets=1)
    assert ["bad", "bad", "bad", "good"] == [json.loads(each.body)["documentId"] for each in desk.reviews.asked[:4]]


@pytest.mark.parametrize("answer", [b"\xe9t\xe9", b"[" * 200_000, b"[" + b"1," * 2**20 + b"1]"])
async def test_an_answer_that_nobody_can_read_costs_its_case_a_try_and_holds_up_no_other(desk: Desk, answer: bytes) -> None:
    desk.reviews.answering = lambda asked: (200, answer) if json.loads(asked.body)["documentId"] == "bad" else TICKET
    desk.interval = 0.005
    await desk.add("bad", "one", "two")
    async with desk.running():
        await desk.until(tickets=2, dead=1)
    (dead,) = await desk.cases.list(State.DEAD, limit=10)
    assert ("bad", 5) == (dead.document, dead.attempts)
    assert "answer" in dead.reason


@asynccontextmanager
async def raw_service(*pieces: bytes, trickles: bytes = b"") -> AsyncIterator[str]:
    """The URL of a service that sends these bytes to whoever asks, then `trickles` one by one without end, or goes."""
    over = asyncio.Event()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            [length] = [int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length:")]
            await reader.readexactly(length)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            while trickles and not over.is_set():
                writer.write(trickles)
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    async with server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            over.set()
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("came", [b"", b'{"taskId": "ta'])
@pytest.mark.parametrize("announced", [b"Content-Length: 20\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n14\r\n"])
async def test_an_answer_that_is_cut_off_is_none_and_the_case_waits(desk: Desk, came: bytes, announced: bytes) -> None:
    await desk.add("one")
    async with raw_service(b"HTTP/1.1 200 OK\r\n", announced, came) as url:
        with pytest.raises(OverloadError, match=r"gave no answer \(IncompleteRead\)"):
            await desk.hand_over(url).hand_over()
    assert ({"one": 0}, {}) == (await desk.attempts(), desk.tickets)


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"\r\n", id="body"),
        pytest.param(b"X-Wait:", id="headers"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n", id="chunk-size"),
    ],
)
async def test_an_answer_that_has_no_end_is_none(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    """However often a piece of it comes."""
    monkeypatch.setattr("bridge.reviews._CALL_SECONDS", 0.3)
    async with asyncio.timeout(60), raw_service(b"HTTP/1.1 200 OK\r\n", begun, trickles=b" ") as url:
        with pytest.raises(OverloadError, match="gave no answer"):
            await ReviewService(url, wait_seconds=0.001).submit({"documentId": "one"})


async def test_tries_of_a_case_that_fails_are_further_and_further_apart(desk: Desk) -> None:
    desk.reviews.answering = answering(500)
    desk.interval = 100
    await desk.add("bad")
    hand_over = desk.hand_over()
    assert await hand_over.hand_over()
    assert not await hand_over.hand_over(), "it is not due"
    [case] = await desk.cases.list(State.WAITING, limit=1)
    assert 1 == case.attempts
    assert 95_000 < case.content["notBefore"] - case.content["queuedAt"] < 170_000


async def test_what_a_person_has_decided_meanwhile_is_not_asked_again(desk: Desk) -> None:
    desk.decided = {"one"}
    await desk.add("one", "two")
    async with desk.running():
        await desk.until(waiting=0, dead=0, tickets=1)
    assert ["two"] == [json.loads(asked.body)["documentId"] for asked in desk.reviews.asked]


async def test_while_the_database_is_out_of_reach_no_turn_is_kept_and_no_case_lost(desk: Desk) -> None:
    desk.unknown = {"one"}
    await desk.add("one", "two")
    hand_over = desk.hand_over()
    with pytest.raises(TransientError):
        await hand_over.hand_over()
    assert await hand_over.hand_over(), "the other's turn"
    desk.unknown = set()
    assert await hand_over.hand_over()
    assert {"one", "two"} == set(desk.tickets)


@pytest.mark.parametrize(
    "value",
    [
        b"{}",
        b"\xff",
        b"[1]",
        b'{"payload": {"documentId": ""}}',
        b'{"payload": {"documentId": 5}}',
        b'{"payload": {"documentId": ["one"]}}',
        b'{"payload": 3}',
        b"[" * 100_000,
        b'{"payload": {"documentId": "caf\\ud83d"}}',
        b'{"attempts": %b, "queuedAt": %b}' % (HUGE, HUGE),
    ],
)
async def test_what_is_no_case_is_put_aside_as_it_is(desk: Desk, value: bytes) -> None:
    await desk.redis.rpush(desk.key, value)
    await desk.add("good")
    async with desk.running():
        await desk.until(waiting=0, dead=1, tickets=1)
    [dead] = await desk.cases.list(State.DEAD, limit=10)
    assert (value, "") == (dead.value, dead.document)
    assert "cannot be read" in dead.reason
    assert await desk.cases.drop(dead)
    assert {"waiting": 0, "dead": 0} == await desk.cases.counts()


async def test_cases_in_the_platforms_own_form_are_handed_over(desk: Desk) -> None:
    """As the platform's API puts them there."""
    await desk.redis.rpush(desk.key, json.dumps({"payload": {"documentId": "one", "reviewId": "r"}, "queuedAt": 1, "attempts": 4}))
    await desk.redis.rpush(desk.key, b'{"payload": {"documentId": "two"}, "queuedAt": Infinity, "attempts": 1e999}')
    async with desk.running():
        await desk.until(waiting=0, dead=0, tickets=2)
    assert {"r": "task-1", "two": "task-1"} == desk.tickets


@pytest.mark.parametrize(
    "value",
    [
        b'{"payload": {"documentId": "odd", "ocrText": "caf\\ud83d"}, "queuedAt": 1, "attempts": 0}',
        b'{"payload": {"documentId": "odd"}, "queuedAt": 1, "attempts": %b}' % HUGE,
        b'{"payload": {"documentId": "odd"}, "queuedAt": %b, "attempts": -%b}' % (HUGE, HUGE),
    ],
)
async def test_odd_cases_are_handed_over_or_given_up_as_others_are(desk: Desk, value: bytes) -> None:
    desk.interval = 0.005
    await desk.redis.rpush(desk.key, value)
    async with desk.running():
        await desk.until(waiting=0, dead=0, tickets=1)
    sent = json.loads(desk.reviews.asked[0].body)
    assert json.loads(value)["payload"] == sent, "as it was"

    desk.tickets.clear()
    desk.reviews.answering = answering(500)
    await desk.redis.rpush(desk.key, value)
    async with desk.running():
        await desk.until(waiting=0, dead=1)
    [dead] = await desk.cases.list(State.DEAD, limit=10)
    assert ("odd", 5, sent) == (dead.document, dead.attempts, dead.content["payload"])


async def test_a_case_that_fails_as_nobody_foresaw_ends_no_loop_and_is_put_aside(desk: Desk) -> None:
    desk.unforeseen = {"odd"}
    await desk.add("odd", "good")
    with capture_logs() as told:
        async with desk.running():
            await desk.until(waiting=0, dead=1, tickets=1)
    [dead] = await desk.cases.list(State.DEAD, limit=10)
    assert ("odd", "it could not be handed over (ZeroDivisionError)") == (dead.document, dead.reason)
    assert {"documentId": "odd", "parsedData": {"name": "ANI"}} == dead.content["payload"]
    [broken] = [each for each in told if each["event"] == "escalation_broken"]
    assert ("error", "odd", "ZeroDivisionError") == (broken["log_level"], broken["document"], broken["error"])
    assert "ANI" not in str(told)


async def test_a_case_that_is_too_deep_to_be_written_is_put_aside_as_it_is(desk: Desk) -> None:
    await desk.add("deep")
    case = await desk.cases.take("tester")
    assert case is not None
    deep: list[object] = []
    for _ in range(20_000):
        deep = [deep]
    await desk.cases.bury("tester", replace(case, content={**case.content, "deep": deep}), reason="")
    [dead] = await desk.cases.list(State.DEAD, limit=10)
    assert (case.value, "deep") == (dead.value, dead.document)


async def test_a_ticket_that_the_database_did_not_take_is_kept_later_and_the_case_is_not_handed_over_again(desk: Desk) -> None:
    desk.full = True
    await desk.add("one", "two")
    hand_over = desk.hand_over()
    assert await hand_over.hand_over()
    assert await hand_over.hand_over()
    assert ({"one": 0, "two": 0}, {}) == (await desk.attempts(), desk.tickets)
    desk.full = False
    async with desk.running():
        await desk.until(waiting=0)
    assert ({"waiting": 0, "dead": 0}, {"one": "task-1", "two": "task-1"}) == (await desk.cases.counts(), desk.tickets)
    assert ["one", "two"] == [json.loads(asked.body)["documentId"] for asked in desk.reviews.asked], "each once"


async def test_tickets_that_the_database_takes_never_hold_up_no_other_case(desk: Desk) -> None:
    desk.interval = 3600
    desk.refused = {"one": PermanentError("no column"), "two": ValueError("longer than the column")}
    await desk.add("one", "two", "three")
    async with desk.running():
        await desk.until(tickets=1)
    assert ({"one": 0, "two": 0}, {"three": "task-1"}) == (await desk.attempts(), desk.tickets)


async def test_a_case_that_could_not_be_taken_off_the_list_is_not_handed_over_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise TransientError("Redis is away")

    await desk.add("one")
    with monkeypatch.context() as patched:
        patched.setattr(desk.cases, "finish", away)
        with pytest.raises(TransientError):
            await desk.hand_over().hand_over()
    await desk.redis.delete(f"{desk.key}:turn")  # it runs out
    assert await desk.hand_over().hand_over()
    assert ({"waiting": 0, "dead": 0}, 1) == (await desk.cases.counts(), len(desk.reviews.asked))


@pytest.mark.parametrize("status", [429, 408, 502, 503, 504])
async def test_a_service_that_says_when_to_come_again_is_not_asked_before(desk: Desk, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = moved_clock(monkeypatch)
    desk.reviews.answering = lambda _: (status, b"{}", {"Retry-After": "300"})
    service = ReviewService(desk.reviews.url, wait_seconds=0.001)
    for _ in range(3):
        with pytest.raises(OverloadError) as told:
            await service.submit({"documentId": "one"})
        assert 200 < told.value.retry_after <= 300
    assert 1 == len(desk.reviews.asked), "once, and then left alone"
    desk.reviews.answering = lambda _: TICKET
    clock.sleep(told.value.retry_after)
    assert "task-1" == await service.submit({"documentId": "one"})


async def test_when_to_come_again_may_be_told_as_a_date(desk: Desk) -> None:
    desk.reviews.answering = lambda _: (503, b"{}", {"Retry-After": formatdate(time.time() + 300, usegmt=True)})
    with pytest.raises(OverloadError) as told:
        await ReviewService(desk.reviews.url, wait_seconds=0.001).submit({"documentId": "one"})
    assert 200 < told.value.retry_after <= 300


@pytest.mark.parametrize("told", ["", "soon", "-5", "Sun, 99 Nov 2026", "Sun, 29 Nov 1970 00:00:00 GMT"])
async def test_a_service_that_says_nothing_of_when_is_tried_again_at_once(desk: Desk, told: str) -> None:
    desk.reviews.answering = lambda _: (503, b"{}", {"Retry-After": told})
    with pytest.raises(OverloadError):
        await ReviewService(desk.reviews.url, wait_seconds=0.001).submit({"documentId": "one"})
    assert 3 == len(desk.reviews.asked)


async def test_a_service_that_failed_five_times_in_a_row_is_left_alone_for_half_a_minute(desk: Desk) -> None:
    desk.reviews.answering = answering(503)
    service = ReviewService(desk.reviews.url, wait_seconds=0.001)
    with pytest.raises(OverloadError):
        await service.submit({"documentId": "one"})
    assert (3, False) == (len(desk.reviews.asked), service.breaker.is_open)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(OverloadError) as told:
            await service.submit({"documentId": "one"})
    assert (5, True) == (len(desk.reviews.asked), service.breaker.is_open)
    assert "failed 5 times in a row" in str(told.value)
    assert 30 - (time.monotonic() - began) <= told.value.retry_after <= 30


async def test_no_case_is_handed_over_twice_by_two_programs(desk: Desk) -> None:
    await desk.add(*(str(number) for number in range(20)))
    async with desk.running(), desk.running():
        await desk.until(waiting=0, tickets=20)
    assert 20 == len(desk.reviews.asked)


async def test_a_case_is_not_lost_where_the_list_of_the_dead_is_something_else(desk: Desk) -> None:
    desk.reviews.answering = answering(400)
    await desk.add("one")
    await desk.redis.set(f"{desk.key}:dead", "text")
    with pytest.raises(ConfigurationError):
        await desk.hand_over().hand_over()
    assert {"one": 0} == await desk.attempts()

    await desk.redis.delete(f"{desk.key}:dead")
    await desk.redis.rpush(f"{desk.key}:dead", "{}")
    [dead] = await desk.cases.list(State.DEAD, limit=1)
    await desk.redis.rename(desk.key, f"{desk.key}:aside")
    await desk.redis.set(desk.key, "text")
    with pytest.raises(ConfigurationError):
        await desk.cases.replay(dead)
    assert [dead] == list(await desk.cases.list(State.DEAD, limit=1))
