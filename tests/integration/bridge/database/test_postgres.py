"""PostgreSQL as the bridge uses it: how it is set up, and what becomes of statements when the connection misbehaves."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from bridge.database.cloud_sql import SERVER_SETTINGS, AsyncpgConnections
from bridge.database.engine import open_database
from bridge.database.libpq import PsycopgDriver
from bridge.database.local_queue import LocalQueue
from bridge.database.location import PostgresLocation
from bridge.database.migrate import migrate
from bridge.database.postgres import PostgresDatabase
from bridge.database.schema import metadata
from bridge.errors import BridgeError, ConfigurationError, LeaseLostError, TooSlowError, TransientError
from bridge.job import Delivery, Event, Job, Outcome, Progress
from bridge.ledger.either import LedgerDeadLetters, LedgerJobs, LedgerOutbox, LedgerPruner
from bridge.ledger.port import Claim, Counted
from bridge.ledger.postgres import PostgresLedger
from tests.support.moved_clock import moved_clock
from tests.support.patience import until
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.postgres import PostgresServer


@asynccontextmanager
async def _opened(url: str, *, schema: str = "lamina", cut_seconds: float = 20.0) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(PsycopgDriver(PostgresLocation(conninfo=url)), schema=schema, cut_seconds=cut_seconds)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(new_postgres_database: Callable[[], str]) -> AsyncIterator[PostgresDatabase]:
    async with _opened(new_postgres_database()) as opened:
        yield opened


@asynccontextmanager
async def _behind_proxy(
    server: PostgresServer, url: str, *, cut_seconds: float = 20.0
) -> AsyncIterator[tuple[PostgresDatabase, FaultProxy]]:
    async with FaultProxy(server.port) as proxy:
        through = server.url(url.rpartition("/")[2], port=proxy.port)
        async with _opened(through, cut_seconds=cut_seconds) as opened:
            yield opened, proxy


async def _value(database: PostgresDatabase, statement: str) -> object:
    [row] = (await database.look(text(statement))).rows
    return row["value"]


def _column(server: PostgresServer, url: str, statement: str) -> list[object]:
    return [row[0] for row in server.run(statement, database=url.rpartition("/")[2])]


async def test_a_new_database_is_migrated_once_whoever_comes_first(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    databases = [open_database(url) for _ in range(6)]
    try:
        assert any(await asyncio.gather(*map(migrate, databases)))
        assert not await migrate(databases[0])
    finally:
        for each in databases:
            await each.close()


async def test_the_migrations_make_the_tables_of_the_schema(postgres: PostgresServer, new_postgres_database: Callable[[], str]) -> None:
    url = new_postgres_database().replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url, connect_args={"options": "-csearch_path=lamina"})
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()

    assert [] == differences


async def test_tables_of_others_are_left_alone_and_the_schema_can_be_chosen(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    postgres.run("CREATE TABLE jobs (mine text)", database=url.rpartition("/")[2])
    async with _opened(url, schema="My_jobs") as database:
        await migrate(database)
        await LedgerJobs(database).announce(Job(key="job", system="trial", request={}))

    assert ["My_jobs", "public"] == sorted(_column(postgres, url, "SELECT schemaname FROM pg_tables WHERE tablename = 'jobs'"))
    assert ["job"] == _column(postgres, url, 'SELECT key FROM "My_jobs".jobs')


async def test_an_account_without_rights_needs_a_schema_of_its_own(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    postgres.run(f"CREATE ROLE {name} LOGIN")
    async with _opened(url.replace("postgres@", f"{name}@")) as database:
        with pytest.raises(ConfigurationError, match=r"permission denied for database .* needs a schema lamina"):
            await migrate(database)
        postgres.run(f"CREATE SCHEMA lamina AUTHORIZATION {name}", database=name)

        assert await migrate(database)


async def test_a_database_of_a_newer_version_is_left_alone(postgres: PostgresServer, database: PostgresDatabase) -> None:
    await database.change(text("UPDATE lamina.alembic_version SET version_num = '9999'"))

    with pytest.raises(ConfigurationError, match="at schema 9999, which is newer"):
        await migrate(database)


async def test_a_database_that_is_not_there_is_a_mistake_and_a_server_that_is_not_there_may_come(postgres: PostgresServer) -> None:
    async with _opened(postgres.url("nowhere")) as database:
        with pytest.raises(ConfigurationError, match=r'BRIDGE_DATABASE: postgresql://127.0.0.1:\d+/nowhere .* database "nowhere" does not'):
            await migrate(database)
    async with _opened("postgresql://127.0.0.1:1/nowhere") as database:
        with pytest.raises(TransientError, match=r"postgresql://127.0.0.1:1/nowhere is out of reach"):
            await migrate(database)
        with pytest.raises(TransientError, match="Connection refused"):
            await _value(database, "SELECT 1 AS value")


async def test_a_database_in_another_encoding_is_refused(postgres: PostgresServer) -> None:
    postgres.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    async with _opened(postgres.url("latin")) as database:
        with pytest.raises(ConfigurationError, match="is encoded in LATIN1; use one in UTF8"):
            await migrate(database)


async def test_the_server_ends_what_takes_too_long_and_prepares_nothing(database: PostgresDatabase) -> None:
    limits = [await _value(database, f"SELECT current_setting('{name}') AS value") for name in ("statement_timeout", "lock_timeout")]
    for _ in range(8):
        await _value(database, "SELECT 1 AS value")

    assert ["10s", "5s"] == limits
    assert 0 == await _value(database, "SELECT count(*) AS value FROM pg_prepared_statements")


async def test_a_statement_that_takes_too_long_is_told_from_other_trouble(database: PostgresDatabase) -> None:
    shortened = text("SELECT set_config('statement_timeout', '100', true)")
    with pytest.raises(TooSlowError):
        await database.change(shortened, then=[(text("SELECT pg_sleep(5)"), {})])


async def test_each_statement_of_a_transaction_has_its_own_time(postgres: PostgresServer, new_postgres_database: Callable[[], str]) -> None:
    async with _opened(new_postgres_database(), cut_seconds=1.5) as database:
        naps = [(text("SELECT pg_sleep(0.7)"), {})] * 4
        assert (await database.change(text("SELECT 1 AS one"), then=naps)).count == 1


async def test_connections_that_the_server_has_ended_are_replaced_unnoticed(postgres: PostgresServer, database: PostgresDatabase) -> None:
    await asyncio.gather(*(_value(database, "SELECT pg_sleep(0.05), 1 AS value") for _ in range(4)))
    postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lamina-bridge'")
    await asyncio.sleep(0.1)

    assert [1] * 4 == await asyncio.gather(*(_value(database, "SELECT 1 AS value") for _ in range(4)))


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_what_was_rolled_back_for_anothers_sake_is_tried_once_more(database: PostgresDatabase, state: str) -> None:
    await database.change(text("CREATE SEQUENCE tries"))  # counts on, even when it is rolled back
    fails = "DO $$ BEGIN IF nextval('tries') {} THEN RAISE EXCEPTION 'conflict' USING ERRCODE = '{}'; END IF; END $$"

    await database.change(text(fails.format("= 1", state)))
    assert 2 == await _value(database, "SELECT last_value AS value FROM tries")
    with pytest.raises(TransientError, match="did not answer as it should: conflict"):
        await database.change(text(fails.format("> 0", state)))
    assert 4 == await _value(database, "SELECT last_value AS value FROM tries")


async def test_values_that_do_not_fit_are_no_transient_error(database: PostgresDatabase) -> None:
    with pytest.raises(IntegrityError):
        await database.change(text("INSERT INTO lamina.jobs (key, system, request, state, created_at) VALUES ('j', '', '', 'odd', 0)"))


async def test_a_connection_that_is_cut_is_a_transient_error_and_the_next_one_works(
    postgres: PostgresServer, new_postgres_database: Callable[[], str]
) -> None:
    async with _behind_proxy(postgres, new_postgres_database()) as (database, proxy):
        asked = asyncio.create_task(_value(database, "SELECT pg_sleep(20), 1 AS value"))
        await asyncio.sleep(0.5)
        proxy.refuse()
        with pytest.raises(TransientError):
            await asked
        proxy.mend()

        assert 1 == await _value(database, "SELECT 1 AS value")


class _CutBeforeUse(PsycopgDriver):
    """Once it is unlucky, each connection is lost after it was opened and before it is used."""

    unlucky = False

    def alive(self, connection: object) -> bool:
        if self.unlucky:
            self.cut(connection)
        return super().alive(connection)


async def test_connections_that_are_lost_before_their_use_are_a_transient_error(new_postgres_database: Callable[[], str]) -> None:
    driver = _CutBeforeUse(PostgresLocation(conninfo=new_postgres_database()))
    database = PostgresDatabase(driver)
    try:
        assert 1 == await _value(database, "SELECT 1 AS value")
        driver.unlucky = True
        with pytest.raises(TransientError, match="did not answer as it should: the connection was lost before its use"):
            await _value(database, "SELECT 1 AS value")
        driver.unlucky = False
        assert 1 == await _value(database, "SELECT 1 AS value")
    finally:
        await database.close()


async def test_a_server_that_falls_silent_is_given_up_in_time(
    postgres: PostgresServer, new_postgres_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = moved_clock(monkeypatch)
    async with _behind_proxy(postgres, new_postgres_database(), cut_seconds=60) as (database, proxy):
        await _value(database, "SELECT 1 AS value")
        proxy.swallow()
        asked = asyncio.create_task(_value(database, "SELECT 1 AS value"))
        await until(lambda: proxy.withheld)
        connections = proxy.connections
        clock.sleep(61)
        await until(lambda: proxy.connections > connections)  # the first try was cut; the second one waits for its connection
        proxy.mend()

        assert 1 == await asyncio.wait_for(asked, 60)


async def test_a_slow_line_is_waited_for(postgres: PostgresServer, new_postgres_database: Callable[[], str]) -> None:
    async with _behind_proxy(postgres, new_postgres_database()) as (database, proxy):
        proxy.delay(0.05)

        assert 1 == await _value(database, "SELECT 1 AS value")


async def test_an_end_whose_confirmation_was_lost_is_an_end_all_the_same(
    postgres: PostgresServer, new_postgres_database: Callable[[], str]
) -> None:
    async with _behind_proxy(postgres, new_postgres_database()) as (database, proxy):
        ledger = PostgresLedger(database)
        claim = await _claim(ledger)
        proxy.delay(0.4)
        ending = asyncio.create_task(ledger.finish(claim, _success()))
        await asyncio.sleep(0.6)  # it has arrived; its answer has not
        proxy.mend()
        proxy.cut()
        await ending

        with pytest.raises(LeaseLostError):
            await ledger.finish(claim, _success())
        assert 1 == (await LedgerOutbox(database).backlog()).depth


async def test_cancelling_whoever_waits_leaves_the_pool_whole(database: PostgresDatabase) -> None:
    for _ in range(20):
        waiting = asyncio.create_task(_value(database, "SELECT pg_sleep(10), 1 AS value"))
        await asyncio.sleep(0.03)
        waiting.cancel()
        await asyncio.wait({waiting})

    assert [1] * 16 == await asyncio.gather(*(_value(database, "SELECT 1 AS value") for _ in range(16)))


class _PgBouncer(FaultProxy):
    """Refuses start-up options, as PgBouncer does."""

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        first = await source.read(65536)
        if b"options\x00" in first:
            told = b"SFATAL\x00C08P01\x00Munsupported startup parameter: options\x00\x00"
            back = next(writer for writer in self._writers if writer is not sink and writer.get_extra_info("sockname")[1] == self.port)
            back.write(b"E" + (len(told) + 4).to_bytes(4, "big") + told)
            await back.drain()
            back.close()
            self._writers.discard(back)
            sink.transport.abort()
            return
        sink.write(first)
        await super()._pump(source, sink)


async def test_behind_pgbouncer_the_limits_are_left_out(postgres: PostgresServer, new_postgres_database: Callable[[], str]) -> None:
    async with _PgBouncer(postgres.port) as bouncer:
        name = new_postgres_database().rpartition("/")[2]
        url = f"{postgres.url(name, port=bouncer.port)}?sslmode=disable&gssencmode=disable"
        async with _opened(url) as database:
            assert "0" == await _value(database, "SELECT current_setting('statement_timeout') AS value")
            assert await _value(database, "SELECT 1 AS value") == 1
        assert bouncer.connections >= 2


class _AsyncpgDriver(AsyncpgConnections):
    """Connects as Cloud SQL's connector does, without Google in between."""

    name = "asyncpg"

    def __init__(self, url: str) -> None:
        self._url = url

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self._url, server_settings=SERVER_SETTINGS)

    async def close(self) -> None:
        pass


class _CutAtOnce(_AsyncpgDriver):
    """Each connection is lost before SQLAlchemy has set it up."""

    async def connect(self) -> asyncpg.Connection:
        connection = await super().connect()
        self.cut(connection)
        return connection


async def test_connections_of_cloud_sql_that_are_lost_while_they_are_set_up_are_a_transient_error(postgres: PostgresServer) -> None:
    database = PostgresDatabase(_CutAtOnce(postgres.url("postgres")))
    with pytest.raises(TransientError, match="did not answer as it should: the connection was lost before its use"):
        await _value(database, "SELECT 1 AS value")
    with pytest.raises(TransientError, match="out of reach: the connection was lost before its use"):
        await migrate(database)


class _Mistaken(_AsyncpgDriver):
    """Is called wrongly."""

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self._url, no_such_setting=True)


async def test_a_mistake_in_a_driver_is_told_as_what_it_is(postgres: PostgresServer) -> None:
    with pytest.raises(TypeError, match="no_such_setting"):
        await _value(PostgresDatabase(_Mistaken(postgres.url("postgres"))), "SELECT 1 AS value")


async def test_the_driver_of_cloud_sql_does_all_that_the_ledger_needs(postgres: PostgresServer) -> None:
    database = PostgresDatabase(_AsyncpgDriver(postgres.new_database()))
    try:
        assert await migrate(database)
        ledger, outbox, letters = PostgresLedger(database), LedgerOutbox(database), LedgerDeadLetters(database)
        claim = await _claim(ledger)
        assert not isinstance(await ledger.claim(_job(), worker="rival", lease_seconds=9), Claim)
        await ledger.renew(claim, lease_seconds=60, progress=Progress(share=0.5, stage="half"))
        await ledger.checkpoint(claim, {"done": 1})
        await ledger.release(claim, delay_seconds=0.01, error="no", counted=Counted.ATTEMPT)
        await asyncio.sleep(0.05)
        claim = await _claim(ledger)
        assert (2, 1, {"done": 1}) == (claim.fence, claim.attempts, claim.checkpoint)
        await ledger.finish(claim, _failure(), buried=_delivery(), reason="broken")
        [message] = await outbox.take(limit=10, lease_seconds=60)
        await outbox.postpone(message.message_id, delay_seconds=0, error="no")
        await outbox.mark_sent(message.message_id)
        assert 0 == (await outbox.backlog()).depth
        [letter] = await letters.list()
        await letters.reopen(letter.id)
        await letters.mark_replayed(letter.id)
        await letters.bury(_delivery(), reason="not JSON")
        await ledger.finish(await _claim(ledger), _success())
        assert [("job", "succeeded")] == [(record.key, record.state.value) for record in await LedgerJobs(database).list()]
        await asyncio.sleep(0.02)
        # The job and the letter that was replayed: what told of the first failure was forgotten then.
        assert 2 == await LedgerPruner(database).prune(keep_seconds=0.01)
        await _use_queue(LocalQueue(database, "jobs"))
    finally:
        await database.close()


async def _use_queue(queue: LocalQueue) -> None:
    assert [True, False] == [await queue.send("1", b"\x00body"), await queue.send("1", b"")]
    [received] = await queue.receive(limit=5, lease_seconds=60)
    assert await queue.renew(received.receipt, lease_seconds=60)
    assert await queue.release(received.receipt, delay_seconds=0)
    [received] = await queue.receive(limit=5, lease_seconds=60)
    assert [b"\x00body"] == [message.body for message in await queue.peek()]
    assert await queue.delete(received.receipt)
    assert 0 == await queue.depth()


def _job() -> Job:
    return Job(key="job", system="trial", request={})


async def _claim(ledger: PostgresLedger) -> Claim:
    claim = await ledger.claim(_job(), worker="tester", lease_seconds=60)
    assert isinstance(claim, Claim)
    return claim


def _success() -> Outcome:
    return Outcome(succeeded=True, result={}, events=(Event(type="completed", destination="", body=b"{}"),))


def _failure() -> Outcome:
    return Outcome(succeeded=False, result={"reason": "broken"}, events=(Event(type="failed", destination="", body=b"{}"),))


def _delivery() -> Delivery:
    return Delivery(source="local", queue="jobs", message_id="1", receipt="r", body=b"\x00original")


@pytest.mark.parametrize(
    ("refusing", "value", "told"),
    [
        ("CHECK (value <> 'BUDI SANTOSO')", "BUDI SANTOSO", "violates check constraint"),
        ("CHECK (value::int > 0)", "BUDI SANTOSO", "invalid input syntax for type integer: …"),
        ("CHECK (value::int > 0)", '"BUDI"\nSANTOSO', "invalid input syntax for type integer: …"),
        ("CHECK (length(value::varchar) < 5)", "BUDI SANTOSO", "violates check constraint"),
        ("", "BUDI SANTOSO", "RaiseException [P0001]"),
    ],
)
async def test_what_was_to_be_written_is_not_told_when_the_server_refuses_it(
    database: PostgresDatabase, refusing: str, value: str, told: str
) -> None:
    """It may be personal; the server quotes it, and whole rows."""
    await database.change(text(f"CREATE TABLE refusing (number integer, value text {refusing})"))
    if not refusing:
        body = "BEGIN RAISE EXCEPTION 'no %', NEW.value; END"
        await database.change(text(f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$"))
        await database.change(text("CREATE TRIGGER refuse BEFORE INSERT ON refusing FOR EACH ROW EXECUTE FUNCTION refuse()"))
    write = text("INSERT INTO refusing VALUES (1, :value)")
    for attempt in (database.change(write, {"value": value}), database.change(text("SELECT 1"), then=[(write, {"value": value})])):
        with pytest.raises((BridgeError, DBAPIError)) as refused:
            await attempt
        logged = "".join(traceback.format_exception(refused.value))
        assert told in str(refused.value)
        assert "BUDI" not in (str(refused.value) if isinstance(refused.value, BridgeError) else logged)
