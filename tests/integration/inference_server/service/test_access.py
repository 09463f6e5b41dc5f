"""Who is let in, seen by clients of a real server over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from inference import grpc_service_pb2 as wire
from prometheus_client import CollectorRegistry

from inference_server.service.caller import caller_of
from inference_server.service.interceptors import CallInterceptor
from inference_server.service.lifecycle import BytesInFlight, Lifecycle
from inference_server.service.metrics.calls import CallMetrics
from inference_server.service.security.options import Security, SecurityOptions, secure
from inference_server.service.server import GrpcServer, Service
from tests.support.models.requests import failed_call
from tests.support.servers.certificates import Authority

Request, Response = wire.ModelInferRequest, wire.ModelInferResponse
TOKEN = "first-token-of-the-bridge"
SLIDES = "lamina.v1.SlideService"


class Clients:
    """Opens channels to a server, each with a connection of its own."""

    def __init__(self, address: str, security: Security, registry: CollectorRegistry, authority: Authority) -> None:
        self.security = security
        self.address = address
        self._registry = registry
        self._authority = authority

    @asynccontextmanager
    async def channel(self, name: str = "", *, roots: bytes | None = None, tls: bool = True) -> AsyncIterator[grpc.aio.Channel]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if not tls:
            async with grpc.aio.insecure_channel(self.address, options=options) as channel:
                yield channel
            return
        pair = self._authority.issue(name) if name else None
        credentials = grpc.ssl_channel_credentials(roots or self._authority.certificate, pair and pair.key, pair and pair.certificate)
        async with grpc.aio.secure_channel(self.address, credentials, options=options) as channel:
            yield channel

    def count(self, method: str, code: str) -> float:
        return self._registry.get_sample_value("lamina_calls_total", {"service": SLIDES, "method": method, "code": code}) or 0.0


@asynccontextmanager
async def running(authority: Authority, folder: Path, *, access: str = "", tokens: str = "") -> AsyncIterator[Clients]:
    """A server whose method One answers the caller's name; `access`: what clients with a certificate may do."""
    certificate, key = authority.issue("server").write(folder, "server")
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "tokens").write_text(tokens)
    security = secure(
        SecurityOptions(
            listen="0.0.0.0:0",
            tls_certificate=certificate,
            tls_key=key,
            tls_client_ca=folder / "ca.crt" if access else None,
            tls_client_permissions=tuple(access.split(",")),
            tokens=folder / "tokens" if tokens else None,
        )
    )

    async def one(request: Request, context: Any) -> Response:
        return Response(id=caller_of(context).client)

    async def many(requests: AsyncIterator[Request], context: Any) -> AsyncIterator[Response]:
        async for _ in requests:
            yield Response(id=caller_of(context).client)

    handlers = {
        "One": grpc.unary_unary_rpc_method_handler(one, Request.FromString, Response.SerializeToString),
        "Many": grpc.stream_stream_rpc_method_handler(many, Request.FromString, Response.SerializeToString),
    }
    lifecycle, registry = Lifecycle(), CollectorRegistry()
    server = GrpcServer(
        address="127.0.0.1:0",
        services=[
            Service(name=name, add_to=lambda server, name=name: server.add_generic_rpc_handlers((_handler(name, handlers),)))
            for name in (SLIDES, "test.Service")
        ],
        lifecycle=lifecycle,
        intercept=CallInterceptor(
            lifecycle=lifecycle, bytes_in_flight=BytesInFlight(most=2**20), metrics=CallMetrics(registry, "1"), access=security.access
        ).wrap,
        tls=security.tls,
    )
    await server.start()
    try:
        yield Clients(server.address, security, registry, authority)
    finally:
        await server.stop(grace_seconds=0, drain_seconds=0, hurry=asyncio.Event())


def _handler(name: str, handlers: dict[str, Any]) -> Any:
    return grpc.method_handlers_generic_handler(name, handlers)


async def _one(channel: grpc.aio.Channel, *, service: str = SLIDES, **metadata: str) -> str:
    call = channel.unary_unary(f"/{service}/One", response_deserializer=Response.FromString)
    return str((await call(b"", metadata=tuple(metadata.items()), timeout=60)).id)


async def _many(channel: grpc.aio.Channel, **metadata: str) -> list[str]:
    call = channel.stream_stream(f"/{SLIDES}/Many", response_deserializer=Response.FromString)
    return [response.id async for response in call(iter([b"", b""]), metadata=tuple(metadata.items()), timeout=60)]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def test_a_caller_with_a_token_is_known_by_its_name_in_calls_of_each_kind(authority: Authority, tmp_path: Path) -> None:
    async with running(authority, tmp_path, tokens=f"bridge {TOKEN} slides\n") as clients, clients.channel() as channel:
        metadata = {"authorization": f"Bearer {TOKEN}", "lamina-client": "somebody-else"}
        assert await _one(channel, **metadata) == "bridge"
        assert await _many(channel, **metadata) == ["bridge", "bridge"]


async def test_who_may_not_is_refused_in_calls_of_each_kind_and_counted(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = f"bridge {TOKEN} slides\nlabs another-token-of-labs labs\n"
    async with running(authority, tmp_path, tokens=tokens) as clients, clients.channel() as channel:
        for call in (_one, _many):
            error = await failed_call(call(channel))
            assert (error.code(), "Bearer TOKEN" in str(error.details())) == (grpc.StatusCode.UNAUTHENTICATED, True)
            error = await failed_call(call(channel, authorization="Bearer another-token-of-labs"))
            assert (error.code(), dict(error.trailing_metadata())["lamina-permission"]) == (grpc.StatusCode.PERMISSION_DENIED, "slides")
        assert [clients.count("One", code) for code in ("UNAUTHENTICATED", "PERMISSION_DENIED")] == [1, 1]
        error = await failed_call(_one(channel, service="test.Service", authorization=f"Bearer {TOKEN}"))
        assert (error.code(), "the permission admin" in str(error.details())) == (grpc.StatusCode.PERMISSION_DENIED, True)
        health = health_pb2_grpc.HealthStub(channel)
        answers = [await health.Check(health_pb2.HealthCheckRequest(service=service)) for service in ("", "live")]
        assert [health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING] == [each.status for each in answers]
    logged = "".join(capsys.readouterr())
    assert [token for token in (TOKEN, "another-token-of-labs") if token in logged] == []


async def test_a_refused_caller_is_answered_before_its_request_is_read(authority: Authority, tmp_path: Path) -> None:
    async with running(authority, tmp_path, tokens=f"bridge {TOKEN} slides\n") as clients, clients.channel() as channel:
        call = channel.stream_unary(f"/{SLIDES}/One")(timeout=60)
        # Nothing is written, and the refusal is there.
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_tokens_are_exchanged_while_the_server_runs(authority: Authority, tmp_path: Path) -> None:
    async with running(authority, tmp_path, tokens=f"bridge {TOKEN} slides\n") as clients, clients.channel() as channel:
        watching = asyncio.create_task(clients.security.access.watch())
        (tmp_path / "tokens").write_text("bridge replacement-of-the-token slides\n")
        async with asyncio.timeout(60):
            while not await _accepts(channel, "replacement-of-the-token"):
                await asyncio.sleep(0.05)
        assert not await _accepts(channel, TOKEN)
        watching.cancel()


async def _accepts(channel: grpc.aio.Channel, token: str) -> bool:
    try:
        return await _one(channel, authorization=f"Bearer {token}") == "bridge"
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise
        return False


async def test_a_client_certificate_names_its_caller_and_gives_the_permissions_set(authority: Authority, tmp_path: Path) -> None:
    async with running(authority, tmp_path, access="slides") as clients, clients.channel("ward-7") as channel:
        assert await _one(channel, **{"lamina-client": "somebody-else"}) == "ward-7"
        assert await _many(channel) == ["ward-7", "ward-7"]
        error = await failed_call(_one(channel, service="test.Service"))
        assert (error.code(), "a client certificate does not have" in str(error.details())) == (grpc.StatusCode.PERMISSION_DENIED, True)


async def test_clients_without_a_certificate_or_with_a_strangers_get_no_connection(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority("stranger")
    async with running(authority, tmp_path, access="slides") as clients:
        async with clients.channel() as channel:
            assert (await failed_call(_one(channel))).code() is grpc.StatusCode.UNAVAILABLE
        of_a_stranger = Clients(clients.address, clients.security, CollectorRegistry(), stranger)
        async with of_a_stranger.channel("ward-7", roots=authority.certificate) as channel:
            assert (await failed_call(_one(channel))).code() is grpc.StatusCode.UNAVAILABLE
        async with clients.channel(tls=False) as channel:
            assert (await failed_call(_one(channel))).code() is grpc.StatusCode.UNAVAILABLE


async def test_with_tokens_a_client_certificate_alone_is_not_enough(authority: Authority, tmp_path: Path) -> None:
    tokens = f"bridge {TOKEN} slides\n"
    async with running(authority, tmp_path, access="slides", tokens=tokens) as clients, clients.channel("ward-7") as channel:
        assert (await failed_call(_one(channel))).code() is grpc.StatusCode.UNAUTHENTICATED
        assert await _one(channel, authorization=f"Bearer {TOKEN}") == "bridge"


async def test_certificates_are_renewed_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    other, broken = Authority("other"), b"no certificate"
    async with running(authority, tmp_path, tokens=f"bridge {TOKEN} slides\n") as clients:
        header = {"authorization": f"Bearer {TOKEN}"}
        async with clients.channel() as old:
            assert await _one(old, **header) == "bridge"
            (tmp_path / "server.crt").write_bytes(broken)
            async with clients.channel() as channel:
                assert await _one(channel, **header) == "bridge"
            other.issue("server").write(tmp_path, "server")
            async with clients.channel(roots=other.certificate) as channel:
                assert await _one(channel, **header) == "bridge"
            async with clients.channel() as channel:
                assert (await failed_call(_one(channel, **header))).code() is grpc.StatusCode.UNAVAILABLE
            assert await _one(old, **header) == "bridge"
