"""A PostgreSQL server as the bridge uses it: single statements, each its own transaction, none without a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from sqlalchemy import TextClause, event, pool
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, IntegrityError, InvalidRequestError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bridge.database.port import Pool, Rows, Statement
from bridge.database.statements import load_statements
from bridge.errors import PermanentError, TooSlowError, TransientError, first_line

# The server ends what takes longer, in seconds; a little later the connection is cut here, for servers that no longer answer.
STATEMENT_SECONDS = 10.0
LOCK_SECONDS = 5.0
_CUT_SECONDS = STATEMENT_SECONDS + 2
# serialization_failure, deadlock_detected: rolled back for certain.
_ROLLED_BACK = frozenset({"40001", "40P01"})
# admin_shutdown, crash_shutdown, cannot_connect_now: the connection is gone; so is it with all of class 08.
_GONE = frozenset({"57P01", "57P02", "57P03"})
# data_exception, which quotes the value; what a trigger raises, which says anything.
_OF_VALUES, _RAISED = "22", "P0"
# query_canceled, lock_not_available: what took longer than `STATEMENT_SECONDS`, or waited longer than `LOCK_SECONDS`.
_ENDED, _LOCKED = "57014", "55P03"


class Driver(Protocol):
    """How a server is reached."""

    @property
    def name(self) -> str:
        """Where it leads, for people; without secrets."""

    @property
    def url(self) -> str:
        """SQLAlchemy's name of the driver, as an address: postgresql+psycopg://."""

    async def connect(self) -> Any:
        """Open a connection of the driver's."""

    def alive(self, connection: Any) -> bool:
        """Whether an idle connection looks usable. Asks nobody."""

    def cut(self, connection: Any) -> None:
        """End a connection at once, whatever it waits for."""

    def is_unreachable(self, error: BaseException | None) -> bool:
        """Whether connecting failed for a reason that passes: the server is starting, full, or cannot be reached; or it has hung up."""

    async def close(self) -> None:
        """Let go of what connecting needed."""


class PostgresDatabase:
    """One schema of a PostgreSQL database. It is safe behind PgBouncer: nothing depends on a session."""

    dialect: Literal["sqlite", "postgres"] = "postgres"

    def __init__(
        self, driver: Driver, *, schema: str = "lamina", connections: Pool | None = None, cut_seconds: float = _CUT_SECONDS
    ) -> None:
        """`cut_seconds`: after which a statement without an answer is given up."""
        self.driver = driver
        self.schema = schema
        self._cut_seconds = cut_seconds
        kept = connections or Pool()
        self._engine = _new_engine(
            driver,
            poolclass=pool.AsyncAdaptedQueuePool,
            pool_size=kept.size,
            max_overflow=kept.overflow,
            pool_timeout=kept.seconds,
            pool_recycle=kept.recycle_seconds,
            pool_use_lifo=True,
        )
        event.listen(self._engine.sync_engine, "checkout", self._check)

    @property
    def name(self) -> str:
        """For people; without secrets."""
        return self.driver.name

    def statements(self, folder: Path, name: str, **words: str) -> Mapping[str, TextClause]:
        """The statements of `folder`/postgres/`name`.sql, for our schema."""
        return load_statements(folder / "postgres" / f"{name}.sql", schema=self.schema, **words)

    async def look(self, statement: TextClause, values: Mapping[str, Any] | None = None) -> Rows:
        """Run one statement that changes nothing. Raises `TransientError`."""
        return await self.change(statement, values)

    async def change(self, statement: TextClause, values: Mapping[str, Any] | None = None, *, then: Sequence[Statement] = ()) -> Rows:
        """Run one statement, and `then` if it found a row, in one transaction.

        All is tried once more after a deadlock or a lost connection, so that it may have been done twice. Raises `TransientError`;
        `PermanentError` when what follows is refused, and nothing was done.
        """
        try:
            return await self._run(statement, values, then)
        except DBAPIError as error:
            if not is_worth_another_try(error):
                raise _translated(error) from error
        except (PoolTimeoutError, OSError, TimeoutError) as error:
            raise _translated(error) from error
        try:
            return replace(await self._run(statement, values, then), retried=True)
        except (DBAPIError, PoolTimeoutError, OSError, TimeoutError) as error:
            raise _translated(error) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        await self.driver.close()

    async def _run(self, statement: TextClause, values: Mapping[str, Any] | None, then: Sequence[Statement]) -> Rows:
        async with AsyncExitStack() as held:
            connection = await _connected(self._engine, self.driver)
            held.push_async_exit(connection)
            if then:
                await connection.execution_options(isolation_level="READ COMMITTED")
            # Without an answer, libpq's own time-outs do not help: the other side's kernel may well confirm what we send.
            raw = await connection.get_raw_connection()
            patience = partial(_watched, self._cut_seconds, partial(self.driver.cut, raw.driver_connection))
            with patience():
                found = await _execute(connection, (statement, values or {}))
            for follower in then if found.count else ():
                with patience():
                    found = replace(found, last=(await _follow(connection, follower)).rows)
            if then:
                with patience():
                    await connection.commit()
            return found

    def _check(self, connection: Any, _record: Any, _proxy: Any) -> None:
        # Costs no round trip, unlike the pool's own ping: the kernel knows whether the other side has hung up.
        if not self.driver.alive(connection.driver_connection):
            raise DisconnectionError


async def _connected(engine: AsyncEngine, driver: Driver) -> AsyncConnection:
    """An open connection. Raises `DBAPIError`, `PoolTimeoutError`, `OSError`."""
    try:
        return await engine.connect()
    except (DBAPIError, PoolTimeoutError, OSError, TimeoutError):
        raise
    except Exception as error:
        # What is cut while it is set up ends in the pool's or the driver's own error, which SQLAlchemy does not translate.
        if not isinstance(error, InvalidRequestError) and not driver.is_unreachable(error):
            raise
        raise ConnectionError(f"the connection was lost before its use: {reason(error)}") from error


@contextmanager
def _watched(seconds: float, cut: Callable[[], None]) -> Iterator[None]:
    """Cut the connection if what is done takes longer."""
    watch = asyncio.get_running_loop().call_later(seconds, cut)
    try:
        yield
    finally:
        watch.cancel()


async def _execute(connection: AsyncConnection, statement: Statement) -> Rows:
    clause, values = statement
    result = await connection.execute(clause, dict(values))
    rows = result.mappings().all() if result.returns_rows else ()
    return Rows(rows=rows, count=len(rows) if result.returns_rows else result.rowcount)


async def _follow(connection: AsyncConnection, statement: Statement) -> Rows:
    try:
        return await _execute(connection, statement)
    except (DataError, IntegrityError, ProgrammingError) as error:
        raise PermanentError(f"the tables refuse what is to be written: {reason(error)}") from error


@asynccontextmanager
async def transaction(driver: Driver) -> AsyncIterator[AsyncConnection]:
    """One transaction on a connection of its own. Raises `DBAPIError`, `OSError`."""
    engine = _new_engine(driver, autocommit=False, poolclass=pool.NullPool)
    try:
        async with aclosing(await _connected(engine, driver)) as connection, connection.begin():
            yield connection
    finally:
        await engine.dispose()


def is_worth_another_try(error: DBAPIError) -> bool:
    """Whether a statement is likely to go better at once."""
    state = _state(error)
    return error.connection_invalidated or state in _ROLLED_BACK or state in _GONE or state.startswith("08")


def reason(error: BaseException) -> str:
    """What a driver's error says, in a line, without the values of a write, which may be personal. Drivers keep passwords out of it."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return first_line(error)
    told, state = first_line(error.orig), _state(error)
    if state.startswith(_RAISED):
        return f"{type(error.orig).__name__} [{state}]"
    before, quote, _ = told.partition('"')
    return f"{before}…" if quote and state.startswith(_OF_VALUES) else told


def _state(error: DBAPIError) -> str:
    """The SQLSTATE; empty when the server gave none."""
    cause: Any = error.orig
    return getattr(cause, "sqlstate", None) or getattr(getattr(cause, "__cause__", None), "sqlstate", None) or ""


def _translated(error: BaseException) -> BaseException:
    """Our error for a driver's; what lies with the values is passed on as it is."""
    if isinstance(error, DataError | IntegrityError):
        # Whoever logs it logs no values either: the driver's own text quotes rows whole.
        error.args = (reason(error),)
        if error.orig is not None:
            error.orig.args = error.args
        return error
    told = f"the database did not answer as it should: {reason(error)}"
    state = _state(error) if isinstance(error, DBAPIError) else ""
    return TooSlowError(told, waited=state == _LOCKED) if state in {_ENDED, _LOCKED} else TransientError(told)


def _new_engine(driver: Driver, *, autocommit: bool = True, **options: Any) -> AsyncEngine:
    if autocommit:
        options |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    return create_async_engine(driver.url, async_creator=driver.connect, hide_parameters=True, **options)
