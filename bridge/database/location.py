"""Which database a setting names. Every form that systems already use is read; no password is ever part of an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from bridge.database.npgsql import libpq_parameters, looks_like_npgsql
from bridge.errors import ConfigurationError

_FORMS = (
    "a file, postgresql://user:password@host/database, libpq's `host=… dbname=…`, Npgsql's `Host=…;Database=…`, "
    "or cloudsql://user@project:region:instance/database"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_KEY_AND_VALUE = re.compile(r"[a-z_]+\s*=")
# SQLAlchemy and libpq write the same address under several schemes.
_POSTGRES_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg"})
_SQLITE_SCHEMES = frozenset({"sqlite", "sqlite+aiosqlite", "sqlite+pysqlite"})
# What says nothing to libpq: how a client of Node.js is to read the others, and that PgBouncer stands between, which may in any case.
_OF_NODE = frozenset({"uselibpqcompat", "pgbouncer"})
_INSTANCE = re.compile(r"[^:@/\s]+(?::[^:@/\s]+){2,3}")  # a project of a domain has a colon in its own name


@dataclass(frozen=True, kw_only=True)
class SqliteLocation:
    """A file of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, kw_only=True)
class PostgresLocation:
    """A PostgreSQL server, reached by libpq's rules: what is not named here comes from PGHOST, PGPASSWORD and the like."""

    # An address or `key=value` pairs; may hold a password.
    conninfo: str = field(repr=False)
    # host, port, dbname and the like, where they stand apart already.
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class CloudSqlLocation:
    """A Cloud SQL instance, reached through Google's connector."""

    # project:region:instance
    instance: str
    database: str
    user: str
    # Empty to sign in by IAM.
    password: str = field(default="", repr=False)
    # public, private, psc
    ip_type: str = "public"

    def __str__(self) -> str:
        return f"cloudsql://{self.user}@{self.instance}/{self.database}"


Location = SqliteLocation | PostgresLocation | CloudSqlLocation


def parse_location(text: str) -> Location:
    """The database that a setting names. Raises `ConfigurationError`."""
    text = text.strip()
    if not text:
        raise ConfigurationError(f"BRIDGE_DATABASE is empty; set it to {_FORMS}")
    if scheme := _SCHEME.match(text):
        return _of_url(scheme.group(1).lower(), text)
    if looks_like_npgsql(text):
        return PostgresLocation(conninfo="", parameters=libpq_parameters(text))
    if _KEY_AND_VALUE.match(text):
        return PostgresLocation(conninfo=text)
    return SqliteLocation(path=Path(text).expanduser().absolute())


def _of_url(scheme: str, text: str) -> Location:
    if scheme in _POSTGRES_SCHEMES:
        return PostgresLocation(conninfo=f"postgresql://{_as_libpq(text.split('://', 1)[1])}")
    if scheme in _SQLITE_SCHEMES:
        return _of_sqlite_url(scheme, text)
    if scheme == "cloudsql":
        return _of_cloud_sql_url(text)
    raise ConfigurationError(f"BRIDGE_DATABASE: a {scheme}:// address was given; use {_FORMS}")


def _as_libpq(address: str) -> str:
    """An address as libpq reads it: clients of Node.js write some words of their own."""
    place, mark, query = address.rpartition("?")
    if not mark:
        return address
    told = ["sslmode=require" if word == "sslmode=no-verify" else word for word in query.split("&")]
    return f"{place}?{'&'.join(word for word in told if word.partition('=')[0] not in _OF_NODE)}"


def _of_sqlite_url(scheme: str, text: str) -> SqliteLocation:
    # As SQLAlchemy has it: three slashes lead to a relative path, four to an absolute one.
    host, _, path = text[len(scheme) + 3 :].partition("?")[0].partition("/")
    if host or not path or path == ":memory:":
        raise ConfigurationError(
            "BRIDGE_DATABASE: a sqlite:// address names a file; use a path or sqlite:///path/to/bridge.db (four slashes: absolute)"
        )
    return SqliteLocation(path=Path(unquote(path)).expanduser().absolute())


def _of_cloud_sql_url(text: str) -> CloudSqlLocation:
    parts = urlsplit(text)
    account, _, instance = parts.netloc.rpartition("@")
    user, _, password = account.partition(":")
    query = dict(parse_qsl(parts.query))
    database = unquote(parts.path.strip("/"))
    if not _INSTANCE.fullmatch(unquote(instance)) or not user or not database:
        raise ConfigurationError(
            "BRIDGE_DATABASE: a cloudsql:// address needs a user, an instance and a database: cloudsql://user@project:region:instance/database"
        )
    ip_type = query.get("ip", "public").lower()
    if ip_type not in {"public", "private", "psc"}:
        raise ConfigurationError("BRIDGE_DATABASE: `ip` of a cloudsql:// address is public, private or psc")
    return CloudSqlLocation(instance=unquote(instance), database=database, user=unquote(user), password=unquote(password), ip_type=ip_type)
