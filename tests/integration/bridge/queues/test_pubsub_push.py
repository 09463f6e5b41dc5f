"""Pub/Sub's pushes, over HTTP, with tokens signed by a key of the test's own."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from bridge.google.tokens import TokenVerifier
from bridge.http.push import PushRoute
from bridge.http.server import HttpServer
from bridge.settings import load
from bridge.sources.pubsub_push import PushInbox
from bridge.store import Store, open_store
from tests.support.bridge.sources.pubsub_push import envelope
from tests.support.servers.google_tokens import ACCOUNT, AUDIENCE, Signer

Push = Callable[..., Any]


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(load(database=str(tmp_path / "bridge.db"))) as store:
        yield store


@pytest.fixture
async def push(store: Store, signer: Signer) -> AsyncIterator[Push]:
    verifier = TokenVerifier(audience=AUDIENCE, account=ACCOUNT, fetch=signer.certificates)
    inbox = PushInbox(store.queue, verifier, limit=2)
    async with HttpServer(Starlette(routes=[PushRoute(inbox).route()]), "127.0.0.1:0") as server:

        async def push(content: bytes, token: str | None = None) -> tuple[int, dict[str, str], str]:
            given = signer.token() if token is None else token
            headers = {"Authorization": f"Bearer {given}"} if given else {}
            request = urllib.request.Request(f"http://{server.address}/push", data=content, headers=headers)
            return await asyncio.to_thread(_answer, request)

        yield push


def _answer(request: urllib.request.Request) -> tuple[int, dict[str, str], str]:
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, dict(reply.headers), reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def _envelope(message_id: str = "1", body: bytes = b"\x00\xff", **message: Any) -> bytes:
    return envelope(message_id, body, **message)


async def test_a_push_is_kept_before_it_is_confirmed_and_once(push: Push, store: Store) -> None:
    answers = [(await push(_envelope(attributes={"kind": "test"}, orderingKey="a")))[0] for _ in range(3)]

    [kept] = await store.queue.peek()
    assert [204] * 3 == answers
    assert ("projects/trial/subscriptions/jobs-push/1", b"\x00\xff") == (kept.message_id, kept.body)
    assert {"kind": "test", "OrderingKey": "a"} == kept.attributes


async def test_a_push_may_say_null_where_it_says_nothing(push: Push, store: Store) -> None:
    assert 204 == (await push(_envelope(attributes=None, orderingKey=None)))[0]

    [kept] = await store.queue.peek()
    assert {} == kept.attributes


@pytest.mark.parametrize(
    ("claims", "status", "told"),
    [
        ({"aud": "https://somewhere.else"}, 401, "BRIDGE_PUBSUB_PUSH_AUDIENCE"),
        ({"exp": int(time.time()) - 60, "iat": int(time.time()) - 600}, 401, "expired"),
        ({"iss": "https://accounts.example"}, 401, "not by Google"),
        ({"email": "stranger@example.com"}, 403, "BRIDGE_PUBSUB_PUSH_ACCOUNT"),
        ({"email_verified": False}, 403, "BRIDGE_PUBSUB_PUSH_ACCOUNT"),
    ],
)
async def test_a_token_that_is_not_right_is_refused(
    push: Push, store: Store, signer: Signer, claims: dict[str, Any], status: int, told: str
) -> None:
    answer, _, text = await push(_envelope(), signer.token(**claims))

    assert (status, 0) == (answer, await store.queue.depth())
    assert told in text


async def test_a_token_of_another_key_is_refused(push: Push, store: Store) -> None:
    assert (401, 0) == ((await push(_envelope(), Signer().token()))[0], await store.queue.depth())


@pytest.mark.parametrize("token", ["", "no token", "a.b.c"])
async def test_what_is_no_token_is_refused(push: Push, store: Store, token: str) -> None:
    status, headers, _ = await push(_envelope(), token)

    assert (401, "Bearer", 0) == (status, headers["WWW-Authenticate"] if "WWW-Authenticate" in headers else headers["www-authenticate"], 0)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no JSON", "Invalid JSON"),
        (b'{"subscription": "s"}', "message: Field required"),
        (b'{"message": {"data": ""}, "subscription": "s"}', "messageId"),
        (b'{"message": {"data": "!", "messageId": "1"}, "subscription": "s"}', "base64"),
    ],
)
async def test_an_envelope_that_is_not_right_is_refused(push: Push, store: Store, content: bytes, told: str) -> None:
    status, _, text = await push(content)

    assert (400, 0) == (status, await store.queue.depth())
    assert told in text


async def test_pushes_are_slowed_down_when_many_wait(push: Push, store: Store) -> None:
    answers = [await push(_envelope(str(number))) for number in range(3)]

    assert ([204, 204, 429], 2) == ([status for status, _, _ in answers], await store.queue.depth())
    assert "10" == {name.lower(): value for name, value in answers[2][1].items()}["retry-after"]


async def test_certificates_out_of_reach_are_a_passing_fault(store: Store, signer: Signer) -> None:
    def fetch() -> dict[str, str]:
        raise OSError("no network")

    inbox = PushInbox(store.queue, TokenVerifier(audience=AUDIENCE, account=ACCOUNT, fetch=fetch))
    async with HttpServer(Starlette(routes=[PushRoute(inbox).route()]), "127.0.0.1:0") as server:
        request = urllib.request.Request(
            f"http://{server.address}/push", data=_envelope(), headers={"Authorization": f"Bearer {signer.token()}"}
        )
        assert 503 == (await asyncio.to_thread(_answer, request))[0]
