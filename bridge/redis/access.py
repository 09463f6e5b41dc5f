"""The connection to Redis or Valkey. Alone in importing its client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import structlog
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel
from redis.commands.core import AsyncScript
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from bridge.gathering import Gatherer

_log = structlog.get_logger()
_LUA = Path(__file__).parent / "lua"
# How long one command may take, and how often an idle connection is tried before it is used.
_COMMAND_SECONDS = 5.0
_TRY_SECONDS = 30
_SENTINEL_PORT = 26379
# How long the server is to wait for an item of a list, well within a command's time, and how long we wait where it lets nobody.
_WAIT_SECONDS = 2.5
_NO_WAKE_SECONDS = 0.25
_EXPECTED = (
    "redis://[user:password@]host:port/0, rediss:// for TLS, unix:///path/of/socket, "
    "or redis+sentinel://[user:password@]host:port,host:port/service/0 (rediss+sentinel:// for TLS)"
)
_NO_ENTRY = (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError, NoPermissionError)
# Of what a script may not do; an account that may do nothing is told otherwise.
_NOT_ALLOWED = "ACL failure in script"
# What a client of Node.js is told by an address of how to connect and to wait; we do that in our own way.
_OF_NODE = frozenset(
    {"family", "allowUsernameInURI", "connectTimeout", "commandTimeout", "maxRetriesPerRequest", "enableReadyCheck", "lazyConnect"}
)
_OF_CELERY = re.compile("(?<=^ssl_cert_reqs=)CERT_(NONE|OPTIONAL|REQUIRED)$")
# What follows in an answer to a command that is not known or not there: what we sent.
_ARGUMENTS = ", with args beginning with"
# Answers that go away by themselves: the server is failing over, full or busy. Some have a class, some a first word.
_PASSING = (ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
_PASSING_WORDS = ("BUSY", "NOREPLICAS", "MISCONF", "UNBLOCKED", "LOADING")


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A value that is stored and published."""

    key: str
    # Where it is noted that it was published, and what is.
    noted: str
    mark: str
    channel: str
    body: bytes
    # Until it is removed.
    milliseconds: int


class RedisAccess:
    """A pool of connections, and the scripts that run through it."""

    def __init__(self, url: str, *, tls_ca: Path | None = None) -> None:
        """`tls_ca`: the roots of the server's certificate; None for the public ones. Raises `ConfigurationError`."""
        self._sentinel: Sentinel | None = None
        self._scripts: dict[str, AsyncScript] = {}
        # False once the server has refused to let us wait.
        self._wakes = True
        # The last for an item of each list.
        self._waits: dict[str, asyncio.Future[bool]] = {}
        self._publish = Script(_LUA / "publish.lua")
        self._stored: Gatherer[_Stored, None] = Gatherer(self._store_all)
        options: dict[str, Any] = {
            "socket_timeout": _COMMAND_SECONDS,
            "socket_connect_timeout": _COMMAND_SECONDS,
            "health_check_interval": _TRY_SECONDS,
        }
        if tls_ca is not None:
            options["ssl_ca_certs"] = str(tls_ca)
        parts = urlsplit(url)
        try:
            if parts.scheme in {"redis+sentinel", "rediss+sentinel"}:
                self._client = self._through_sentinels(parts, options)
            else:
                if parts.scheme != "unix" and not parts.path.strip("/").isdigit() and parts.path.strip("/"):
                    raise ValueError(f"{parts.path.strip('/')!r} is no number of a database")
                self._client = Redis.from_url(_in_our_words(url), **options)
                # A word of the address that is not known is told now, and not by each command.
                self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, RedisError) as error:
            raise ConfigurationError(f"BRIDGE_REDIS_URL (or REDIS_URL): {error}; expected {_EXPECTED}") from error

    async def close(self) -> None:
        """Close every connection."""
        for wait in self._waits.values():
            wait.cancel()
        await asyncio.gather(*self._waits.values(), return_exceptions=True)
        await self._client.aclose()
        if self._sentinel is not None:
            for sentinel in self._sentinel.sentinels:
                await sentinel.aclose()

    async def probe(self) -> None:
        """Raise `TransientError` or `ConfigurationError` when Redis is out of reach."""
        async with _translated("ping"):
            await self._client.ping()

    async def run(self, script: Script, keys: Sequence[str], *arguments: bytes | str | int) -> Any:
        """Run a script, atomically. Raises `TransientError`, `ConfigurationError`, `PermanentError`."""
        async with _translated(script.name):
            if script.text not in self._scripts:
                self._scripts[script.text] = self._client.register_script(script.text)
            return await self._scripts[script.text](keys=list(keys), args=list(arguments))

    async def length(self, key: str) -> int:
        """How many items a list has. Raises as `run` does."""
        async with _translated("llen"):
            return int(await self._client.llen(key))

    async def items(self, key: str, *, limit: int) -> Sequence[bytes]:
        """The first items of a list. Raises as `run` does."""
        async with _translated("lrange"):
            found: list[bytes] = await self._client.lrange(key, 0, limit - 1)  # type: ignore[assignment]  # nothing is decoded
            return found

    @property
    def wakes(self) -> bool:
        """Whether the server tells of an item when it comes, as far as is known."""
        return self._wakes

    async def wait_for_item(self, keys: Sequence[str], *, seconds: float, ended: asyncio.Future[None]) -> str:
        """Return the list that has an item as soon as one of them has; empty when the time is over, or `ended`. Raises as `run` does."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while self._wakes and not ended.done() and (left := deadline - clock()) > 0:
            waits = {self._wait(key): key for key in keys}
            ends: list[asyncio.Future[Any]] = [ended, *waits]
            done, _ = await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if found := next((key for wait, key in waits.items() if wait in done and wait.result()), ""):
                return found
        if not self._wakes:
            await asyncio.wait([ended], timeout=max(0.0, min(deadline - clock(), _NO_WAKE_SECONDS)))
        return ""

    def _wait(self, key: str) -> asyncio.Future[bool]:
        """A wait for an item of one list. It goes on for who asks next: ended early, it would cost its connection."""
        wait = self._waits.get(key)
        if wait is None or wait.done():
            wait = self._waits[key] = asyncio.ensure_future(self._has_item(key))
            # Nobody may be left whom it could tell of an error; who asks next meets it as well.
            wait.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return wait

    async def _has_item(self, key: str) -> bool:
        try:
            # From the head to the head: the list is left as it is, whether anybody hears of it or not.
            return await self._client.blmove(key, key, _WAIT_SECONDS, "LEFT", "LEFT") is not None  # type: ignore[arg-type]  # fractions are taken
        except (RedisError, OSError) as error:
            ours = _our(error, "blmove")
            if isinstance(error, NoPermissionError) or isinstance(ours, PermanentError):  # an account that may not, or an older server
                if self._wakes:
                    _log.warning("redis_wakes_nobody", error=str(error).partition(_ARGUMENTS)[0])
                self._wakes = False
                return False
            raise ours from error

    async def store_and_publish(self, key: str, channel: str, body: bytes, *, keep_seconds: float, message_id: str, mark: str) -> None:
        """Store a value for a while and publish it, in one step, and once for each `mark` of a message. Raises as `run` does."""
        noted, milliseconds = f"{key}:sent:{message_id}", round(keep_seconds * 1000)
        await self._stored.ask(_Stored(key=key, noted=noted, mark=mark, channel=channel, body=body, milliseconds=milliseconds))

    async def _store_all(self, values: Sequence[_Stored]) -> Sequence[None]:
        arguments: list[bytes | str | int] = []
        for value in values:
            arguments += [value.channel, value.body, value.milliseconds, value.mark]
        await self.run(self._publish, [key for value in values for key in (value.key, value.noted)], *arguments)
        return [None] * len(values)

    def _through_sentinels(self, parts: SplitResult, options: dict[str, Any]) -> Redis:
        addresses = parts.netloc.rpartition("@")[2].split(",")
        service, _, database = parts.path.strip("/").partition("/")
        if not service or not all(addresses):
            raise ValueError("it names no service, or no sentinel")
        login: dict[str, Any] = {"username": unquote(parts.username or "") or None, "password": unquote(parts.password or "") or None}
        if parts.scheme.startswith("rediss"):
            options = {**options, "ssl": True}
        known = [_host_and_port(address) for address in addresses]
        self._sentinel = Sentinel(known, sentinel_kwargs=options, **options)  # type: ignore[no-untyped-call]
        client: Redis = self._sentinel.master_for(service, db=int(database or 0), **login, **options)
        return client


class Script:
    """A script in Lua. The server runs it as one step."""

    def __init__(self, path: Path, *, before: Path | None = None) -> None:
        """`before`: a script that runs first, as a part of this one."""
        self.name = path.stem
        self.text = "".join(part.read_text(encoding="utf-8") for part in (before, path) if part)


def _in_our_words(url: str) -> str:
    """Without what only a client of Node.js is told, and with Celery's words for what is asked of a certificate in those of our client."""
    place, mark, query = url.partition("?")
    words = [_OF_CELERY.sub(lambda found: found[1].lower(), word) for word in query.split("&") if word.partition("=")[0] not in _OF_NODE]
    return f"{place}{mark}{'&'.join(words)}"


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    return (host, int(port)) if colon else (address, _SENTINEL_PORT)


@asynccontextmanager
async def _translated(called: str) -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise _our(error, called) from error


def _our(error: Exception, called: str) -> BridgeError:
    text = f"Redis, {called}: {str(error).partition(_ARGUMENTS)[0]}"
    if isinstance(error, ResponseError) and _NOT_ALLOWED in str(error):
        return ConfigurationError(
            f"{text}; allow our user all keys and channels of the queue, and the commands of lists, sets, hashes and scripts"
        )
    if isinstance(error, _NO_ENTRY):
        return ConfigurationError(f"{text}; put the right user and password into BRIDGE_REDIS_URL (or REDIS_URL, REDIS_PASSWORD)")
    if isinstance(error, ResponseError) and "WRONGTYPE" in str(error):
        return ConfigurationError(f"{text}; a key of the queue is used for something else: set BRIDGE_REDIS_QUEUES to another name")
    if isinstance(error, _PASSING) or not isinstance(error, ResponseError) or str(error).startswith(_PASSING_WORDS):
        return TransientError(text)
    return PermanentError(text)
