"""Pub/Sub's pushes, over HTTP, with tokens signed by a key of the test's own."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt
from starlette.applications import Starlette

from bridge.google.tokens import TokenVerifier
from bridge.http.push import PushRoute
from bridge.http.server import HttpServer
from bridge.settings import load
from bridge.sources.pubsub_push import PushInbox
from bridge.store import Store, open_store

AUDIENCE, ACCOUNT = "https://bridge.example/push", "pusher@trial.iam.gserviceaccount.com"
Push = Callable[..., Any]


class Signer:
    """Signs tokens as Google does."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federated-signon")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        day = datetime.timedelta(days=1)
        certificate = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        self._signer = crypt.RSASigner.from_string(pem, key_id="key-1")

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "aud": AUDIENCE,
            "email": ACCOUNT,
            "email_verified": True,
            "iss": "https://accounts.google.com",
            "iat": now,
            "exp": now + 600,
        }
        return jwt.encode(self._signer, {**claims, **changes}).decode()


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(load(database=str(tmp_path / "bridge.db"))) as store:
        yield store


@pytest.fixture
async def push(store: Store, signer: Signer) -> AsyncIterator[Push]:
    verifier = TokenVerifier(audience=AUDIENCE, account=ACCOUNT, fetch=lambda: {"key-1": signer.certificate})
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
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, dict(reply.headers), reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def _envelope(message_id: str = "1", body: bytes = b"\x00\xff", **message: Any) -> bytes:
    data = {
        "data": base64.b64encode(body).decode(),
        "messageId": message_id,
        "message_id": message_id,
        "publishTime": "2026-01-01T00:00:00Z",
    }
    return json.dumps({"message": {**data, **message}, "subscription": "projects/trial/subscriptions/jobs-push"}).encode()


async def test_a_push_is_kept_before_it_is_confirmed_and_once(push: Push, store: Store) -> None:
    answers = [(await push(_envelope(attributes={"kind": "test"}, orderingKey="a")))[0] for _ in range(3)]

    [kept] = await store.queue.peek()
    assert [204] * 3 == answers
    assert ("projects/trial/subscriptions/jobs-push/1", b"\x00\xff") == (kept.message_id, kept.body)
    assert {"kind": "test", "OrderingKey": "a"} == kept.attributes


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
