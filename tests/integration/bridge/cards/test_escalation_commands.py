"""`bridge documents escalations …` on a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis as redis_client
from typer.testing import CliRunner, Result

from bridge.__main__ import app
from bridge.errors import PermanentError
from tests.support.servers.redis import RedisServer

WAITING, DEAD = "filot:buli2:retry_queue", "filot:buli2:retry_queue:dead"


@pytest.fixture
def lists(own_redis: RedisServer) -> Iterator[redis_client.Redis]:
    with redis_client.Redis.from_url(own_redis.url) as client:
        client.flushall()
        client.rpush(WAITING, case("waits"))
        client.rpush(DEAD, case("first", diedAt=1_700_000_100_000, reason="refused (400)"), case("second", notBefore=5), b"\xff")
        yield client


def case(document: str, **more: object) -> str:
    payload = {"documentId": document, "parsedData": {"name": "ANI"}}
    return json.dumps({"payload": payload, "queuedAt": 1_700_000_000_000, "attempts": 5} | more)


def called(own_redis: RedisServer, *words: str) -> Result:
    environment = {
        "CF_R2_BUCKET_NAME": "bucket",
        "CF_R2_ENDPOINT": "http://127.0.0.1:1",
        "REDIS_URL": own_redis.url,
        "BRIDGE_REDIS_URL": None,
    }
    return CliRunner().invoke(app, ["documents", "escalations", *words], env=environment)


def documents(client: redis_client.Redis, key: str) -> list[str]:
    found: list[bytes] = client.lrange(key, 0, -1)  # type: ignore[assignment]
    return ["?" if value == b"\xff" else json.loads(value)["payload"]["documentId"] for value in found]


def test_cases_are_listed_without_what_they_say_of_a_person(own_redis: RedisServer, lists: redis_client.Redis) -> None:
    told = called(own_redis, "list", "--json")
    found = json.loads(told.stdout)
    assert [("dead", "first"), ("dead", "second"), ("dead", ""), ("waiting", "waits")] == [(one["state"], one["document"]) for one in found]
    assert {
        "state": "dead",
        "document": "first",
        "attempts": 5,
        "queued_at": 1_700_000_000.0,
        "died_at": 1_700_000_100.0,
        "reason": "refused (400)",
    } == found[0]
    table = called(own_redis, "list").stdout
    assert "refused" in table
    assert "ANI" not in told.stdout + table
    assert ["waits"] == [one["document"] for one in json.loads(called(own_redis, "list", "--state", "waiting", "--json").stdout)]


def test_odd_cases_are_listed_and_dropped_as_others_are(own_redis: RedisServer, lists: redis_client.Redis) -> None:
    lists.delete(WAITING, DEAD)
    odd = ["caf\ud83d", "later", "never"]
    huge, late = int("9" * 400), 10**20
    lists.rpush(DEAD, case(odd[0]), case(odd[1], diedAt=late, reason="caf\ud83d"), case(odd[2], diedAt=huge, attempts=huge, queuedAt=huge))
    found = json.loads(called(own_redis, "list", "--json").stdout)
    assert [("", 5), ("later", 5), ("never", 0)] == [(one["document"], one["attempts"]) for one in found]
    assert ([None] * 3, "caf?") == ([one["died_at"] for one in found], found[1]["reason"])
    table = called(own_redis, "list")
    assert (0, None) == (table.exit_code, table.exception)
    assert "never" in table.stdout
    assert 3 == called(own_redis, "drop", "--all").stdout.count("is gone")
    assert [] == documents(lists, DEAD)


def test_dead_cases_wait_again_with_all_their_tries(own_redis: RedisServer, lists: redis_client.Redis) -> None:
    assert "first would wait again" in called(own_redis, "replay", "first", "--dry-run").stdout
    assert ["first", "second", "?"] == documents(lists, DEAD)

    assert "first waits again" in called(own_redis, "replay", "first").stdout
    assert (["second", "?"], ["waits", "first"]) == (documents(lists, DEAD), documents(lists, WAITING))
    assert case("first").replace('"attempts": 5', '"attempts": 0').encode() == lists.lindex(WAITING, 1)

    assert "second waits again" in called(own_redis, "replay", "--all").stdout
    assert ([], ["waits", "first", "second", "?"]) == (documents(lists, DEAD), documents(lists, WAITING))
    assert "no case is dead" in called(own_redis, "replay", "--all").output


def test_dead_cases_are_dropped(own_redis: RedisServer, lists: redis_client.Redis) -> None:
    assert "second is gone" in called(own_redis, "drop", "second").stdout
    assert (["first", "?"], ["waits"]) == (documents(lists, DEAD), documents(lists, WAITING))


@pytest.mark.parametrize("words", [["replay"], ["replay", "first", "--all"], ["drop"], ["replay", "nobody"], ["drop", "waits"]])
def test_what_is_meant_must_be_said(own_redis: RedisServer, lists: redis_client.Redis, words: list[str]) -> None:
    done = called(own_redis, *words)
    assert isinstance(done.exception, PermanentError)
    assert "bridge documents escalations list" in str(done.exception)
    assert (["first", "second", "?"], ["waits"]) == (documents(lists, DEAD), documents(lists, WAITING))
