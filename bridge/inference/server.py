"""One inference server as the bridge sees it: its channel, whether it answers, and what it is asked for now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lamina.v1 import documents_pb2_grpc, labs_pb2_grpc, slides_pb2_grpc

from bridge.inference.replicas import Replica
from bridge.inference.statuses import SILENT_KEY, is_well, retry_after

_log = structlog.get_logger()
_CLOSE_GRACE = 1.0
# How long a server that is full, and does not say for how long, is passed over; in seconds.
_FULL_SECONDS = 0.25
# How much later than its deadline a health check may end before we take ourselves for what was late; in seconds.
_OUR_DELAY = 1.0

Metadata = tuple[tuple[str, str], ...]


class Standing(Enum):
    """How good a choice a server is, the best first."""

    # It says that it wants calls.
    SERVING = "serving"
    # It has not been asked yet.
    UNKNOWN = "unknown"
    # It has just refused a call, as it has too many.
    FULL = "full"
    # It does not answer, or wants no more calls.
    AWAY = "away"

    @property
    def rank(self) -> int:
        """0 for the best."""
        return _ORDER[self]


_ORDER = {standing: rank for rank, standing in enumerate(Standing)}


class Server:
    """One server. Made and closed in a running event loop."""

    def __init__(self, replica: Replica, credentials: grpc.ChannelCredentials | None, *, message_bytes: int) -> None:
        """`credentials`: None for no TLS. `message_bytes`: the largest message sent or taken."""
        self.address = replica.address
        # Calls that it has now.
        self.in_flight = 0
        # When it was last chosen: a number that grows.
        self.chosen = 0
        # Set when its standing should be looked at before that is due.
        self.doubted = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._standing = Standing.UNKNOWN
        self._full_until = 0.0
        # Since when its health checks end without an answer; None while they do not.
        self._silent_since: float | None = None
        # Calls that run, and those of them that were given up as it fell silent.
        self._calls: set[Any] = set()
        self._given_up: set[Any] = set()
        options = _channel_options(replica, message_bytes, tls=credentials is not None)
        self._channel = (
            grpc.aio.insecure_channel(replica.address, options=options)
            if credentials is None
            else grpc.aio.secure_channel(replica.address, credentials, options=options)
        )
        self.slides = slides_pb2_grpc.SlideServiceStub(self._channel)
        self.documents = documents_pb2_grpc.DocumentServiceStub(self._channel)
        self.labs = labs_pb2_grpc.LabServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    @property
    def standing(self) -> Standing:
        """How good a choice it is now."""
        if self._standing is Standing.SERVING and self._clock() < self._full_until:
            return Standing.FULL
        return self._standing

    @contextmanager
    def busy(self, call: Any) -> Iterator[None]:
        """A call runs; it counts as load. Raises `AioRpcError`, UNAVAILABLE, when the server falls silent meanwhile."""
        self._calls.add(call)
        self.in_flight += 1
        try:
            yield
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if call in self._given_up and not (task and task.cancelling()):
                raise _silent(f"{self.address} answers nothing any more, not even a health check") from error
            raise
        except grpc.aio.AioRpcError as error:
            self._refused(error)
            raise
        finally:
            self._calls.discard(call)
            self._given_up.discard(call)
            self.in_flight -= 1

    def _refused(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._full_until = self._clock() + (retry_after(error) or _FULL_SECONDS)
        elif error.code() is grpc.StatusCode.UNAVAILABLE and not is_well(error):
            self._stand(Standing.AWAY, why=error.details() or "")
            self.doubted.set()

    async def look(self, metadata: Metadata, *, answer_seconds: float, silent_seconds: float) -> None:
        """Ask whether it wants calls. Those that it has are given up once it has answered nothing for `silent_seconds`."""
        self.doubted.clear()
        began = self._clock()
        try:
            reply = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=answer_seconds, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            self._looked_in_vain(error, began=began, answer_seconds=answer_seconds, silent_seconds=silent_seconds)
            return
        self._silent_since = None
        serving = reply.status == health_pb2.HealthCheckResponse.SERVING
        self._stand(Standing.SERVING if serving else Standing.AWAY, why="" if serving else "it says that it is not ready")

    def _looked_in_vain(self, error: grpc.aio.AioRpcError, *, began: float, answer_seconds: float, silent_seconds: float) -> None:
        now = self._clock()
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            if now - began > answer_seconds + _OUR_DELAY:
                return
            self._silent_since = began if self._silent_since is None else self._silent_since
            self._stand(Standing.AWAY, why=f"no answer to a health check within {answer_seconds:g} s")
            if now - self._silent_since >= silent_seconds:
                self._give_up()
        elif error.code() is grpc.StatusCode.UNAVAILABLE:
            # Calls that it has may still end well: a server that drains takes no new connections.
            self._stand(Standing.AWAY, why=error.details() or "")
        else:
            # It answers, though not about its health: its calls will tell.
            self._silent_since = None
            self._stand(Standing.SERVING, why=f"it tells nothing of its health [{error.code().name}]")

    def _give_up(self) -> None:
        if self._calls:
            _log.warning("inference_calls_given_up", server=self.address, calls=len(self._calls))
        self._given_up |= self._calls
        for call in self._calls:
            call.cancel()

    def _stand(self, standing: Standing, *, why: str) -> None:
        if standing is not self._standing:
            log = _log.warning if standing is Standing.AWAY else _log.info
            log("inference_server", server=self.address, standing=standing.value, why=why)
        self._standing = standing

    async def close(self) -> None:
        """Cancel what runs and close the channel."""
        await self._channel.close(grace=_CLOSE_GRACE)


def _silent(details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata((SILENT_KEY, "1")), details)


def _channel_options(replica: Replica, message_bytes: int, *, tls: bool) -> list[tuple[str, int | str]]:
    return [
        # A proxy in between, and the certificate, know the server by its name.
        ("grpc.default_authority", f"{replica.name}:{replica.address.rpartition(':')[2]}"),
        *((("grpc.ssl_target_name_override", replica.name),) if tls else ()),
        ("grpc.max_send_message_length", message_bytes),
        ("grpc.max_receive_message_length", message_bytes),
        # A peer that vanished is found within a minute and a half, also where no health check tells.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        # A server that comes back is found again within seconds.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3_000),
        ("grpc.enable_retries", 0),
        # The settings say where the server is; a proxy of the environment has no say.
        ("grpc.enable_http_proxy", 0),
    ]
