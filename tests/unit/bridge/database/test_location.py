"""Which database a setting names."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from bridge.database.libpq import PsycopgDriver
from bridge.database.location import CloudSqlLocation, PostgresLocation, SqliteLocation, parse_location
from bridge.errors import ConfigurationError


def _parameters(text: str) -> dict[str, object]:
    found = parse_location(text)
    assert isinstance(found, PostgresLocation)
    return conninfo_to_dict(found.conninfo, **found.parameters)


@pytest.mark.parametrize(
    "text", ["sqlite:////data/bridge.db", "sqlite+aiosqlite:////data/bridge.db", "/data/bridge.db", " /data/bridge.db "]
)
def test_a_path_and_its_url_name_the_same_file(text: str) -> None:
    assert SqliteLocation(path=Path("/data/bridge.db")) == parse_location(text)


@pytest.mark.parametrize("text", ["bridge.db", "sqlite:///bridge.db"])
def test_a_relative_path_is_of_this_folder(text: str) -> None:
    assert SqliteLocation(path=Path.cwd() / "bridge.db") == parse_location(text)


@pytest.mark.parametrize("text", ["/data/a=b.db", "/data/a;b=c.db", "C=1/bridge.db"])
def test_a_path_may_hold_signs_of_other_forms(text: str) -> None:
    assert SqliteLocation(path=Path(text).absolute()) == parse_location(text)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "PostgreSQL+asyncpg"])
def test_an_address_is_read_under_every_name_of_its_scheme(scheme: str) -> None:
    expected = {"user": "ann", "password": "p@ss", "host": "db", "port": "5433", "dbname": "jobs", "sslmode": "require"}

    assert expected == _parameters(f"{scheme}://ann:p%40ss@db:5433/jobs?sslmode=require")


@pytest.mark.parametrize(
    "words", ["sslmode=no-verify", "uselibpqcompat=true&sslmode=require", "pgbouncer=true&sslmode=require&pgbouncer=1"]
)
def test_an_address_of_a_client_of_node_is_read(words: str) -> None:
    expected = {"user": "ann", "password": "p?ss", "host": "db", "dbname": "jobs", "sslmode": "require"}

    assert expected == _parameters(f"postgres://ann:p%3Fss@db/jobs?{words}")
    assert {"host": "db", "dbname": "jobs"} == _parameters("postgres://db/jobs?pgbouncer=true")


def test_an_address_may_leave_everything_to_libpqs_own_variables() -> None:
    assert {} == _parameters("postgresql://")


def test_a_unix_socket_such_as_that_of_the_auth_proxy_is_an_address_too() -> None:
    expected = {"user": "ann", "dbname": "jobs", "host": "/cloudsql/project:region:instance"}

    assert expected == _parameters("postgresql:///jobs?host=/cloudsql/project:region:instance&user=ann")


def test_keys_and_values_of_libpq_are_read() -> None:
    expected = {"host": "db", "dbname": "jobs", "user": "ann", "password": "a;b c"}

    assert expected == _parameters("host=db dbname=jobs user=ann password='a;b c'")
    assert {"host": "db", "password": "a;b"} == _parameters("host=db password=a;b")


def test_a_connection_string_of_npgsql_is_read() -> None:
    text = "Host=db;Port=5433;Username=ann;Password=p;Database=jobs;SSL Mode=VerifyFull;Root Certificate=/ca.pem;Pooling=true;Timeout=15"
    expected = {
        "host": "db",
        "port": "5433",
        "user": "ann",
        "password": "p",
        "dbname": "jobs",
        "sslmode": "verify-full",
        "sslrootcert": "/ca.pem",
        "connect_timeout": "15",
    }

    assert expected == _parameters(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Server=db;User Id=ann;Pwd=x;Database=jobs;", {"host": "db", "user": "ann", "password": "x", "dbname": "jobs"}),
        ("host=db;database=jobs;username=ann", {"host": "db", "dbname": "jobs", "user": "ann"}),
        ("Host=db;Password='a;b''c=d'", {"host": "db", "password": "a;b'c=d"}),
        ('Host=db;Password="a;b""c"', {"host": "db", "password": 'a;b"c'}),
        ("Host=a:5433,b;Port=5432", {"host": "a,b", "port": "5433,5432"}),
        ("Host=db;SSL Mode=Require;Trust Server Certificate=true", {"host": "db", "sslmode": "require"}),
        ("Host=/var/run/postgresql;Database=jobs", {"host": "/var/run/postgresql", "dbname": "jobs"}),
        ("Host=db", {"host": "db"}),
    ],
)
def test_npgsqls_ways_to_say_the_same_are_understood(text: str, expected: dict[str, str]) -> None:
    assert expected == _parameters(text)


def test_an_unknown_keyword_of_npgsql_is_told_without_its_value() -> None:
    with pytest.raises(ConfigurationError, match="unknown keyword 'Pasword'") as raised:
        parse_location("Host=db;Pasword=hunter2")
    assert "hunter2" not in str(raised.value)


def test_a_cloud_sql_instance_is_read() -> None:
    signed_in = CloudSqlLocation(instance="project:region:instance", database="jobs", user="ann@project.iam", ip_type="private")
    by_password = CloudSqlLocation(instance="example.org:project:region:instance", database="jobs", user="ann", password="p:w@")

    assert signed_in == parse_location("cloudsql://ann%40project.iam@project:region:instance/jobs?ip=private")
    assert by_password == parse_location("cloudsql://ann:p%3Aw%40@example.org:project:region:instance/jobs")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty; set it to a file, postgresql://"),
        ("mysql://ann:hunter2@host/db", "a mysql:// address was given; use a file, postgresql://"),
        ("sqlite://", "names a file; use a path or sqlite:///"),
        ("sqlite:///:memory:", "names a file; use a path or sqlite:///"),
        ("cloudsql://ann:hunter2@instance/jobs", "needs a user, an instance and a database"),
        ("cloudsql://ann:hunter2@p:r:i/jobs?ip=hunter2", "public, private or psc"),
    ],
)
def test_what_names_no_database_is_refused_with_the_fix(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"BRIDGE_DATABASE.* {told}") as raised:
        parse_location(text)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("text", ["postgresql://ann:hunter2%zz@db/jobs", "postgresql://ann:hunter2@db/jobs?nonsense=1", "host=db hunter2"])
def test_an_address_that_libpq_cannot_read_is_refused_without_its_password(text: str) -> None:
    found = parse_location(text)
    assert isinstance(found, PostgresLocation)

    with pytest.raises(ConfigurationError, match="cannot be read as a PostgreSQL address; check its keywords") as raised:
        PsycopgDriver(found)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:hunter2@db:5433/jobs",
        "host=db port=5433 dbname=jobs password=hunter2",
        "Host=db;Port=5433;Database=jobs;Pwd=hunter2",
    ],
)
def test_a_server_is_told_by_its_place_alone(text: str) -> None:
    found = parse_location(text)
    assert isinstance(found, PostgresLocation)

    assert "postgresql://db:5433/jobs" == PsycopgDriver(found).name
    assert "hunter2" not in repr(found)
