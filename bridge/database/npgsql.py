"""Reads the connection strings of .NET programs (Npgsql): `Host=…;Port=…;Username=…;Password=…;Database=…;SSL Mode=…`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bridge.errors import ConfigurationError

# A value may be quoted, its quotes doubled within; a quoted semicolon ends nothing.
_PAIR = re.compile(r"""\s*(?P<key>[^=;]*?)\s*=\s*(?P<value>"(?:[^"]|"")*"|'(?:[^']|'')*'|[^;]*?)\s*(?:;|$)""")

# Npgsql's names without blanks, in lower case, with libpq's.
_NAMES: Mapping[str, str] = {
    "host": "host",
    "server": "host",
    "port": "port",
    "database": "dbname",
    "db": "dbname",
    "username": "user",
    "userid": "user",
    "uid": "user",
    "user": "user",
    "password": "password",
    "pwd": "password",
    "psw": "password",
    "passfile": "passfile",
    "timeout": "connect_timeout",
    "applicationname": "application_name",
    "sslmode": "sslmode",
    "rootcertificate": "sslrootcert",
    "sslcertificate": "sslcert",
    "sslkey": "sslkey",
    "sslpassword": "sslpassword",
    "channelbinding": "channel_binding",
    "targetsessionattributes": "target_session_attrs",
    "options": "options",
}
_VALUES: Mapping[str, Mapping[str, str]] = {
    "sslmode": {"verifyca": "verify-ca", "verifyfull": "verify-full"},
    "target_session_attrs": {
        "preferprimary": "any",
        "preferstandby": "prefer-standby",
        "readwrite": "read-write",
        "readonly": "read-only",
    },
}
_LOWERED = frozenset({"sslmode", "target_session_attrs", "channel_binding"})
# What concerns Npgsql's own workings.
_IGNORED = re.compile(
    r"pooling|(min|max)imumpoolsize|(min|max)poolsize|commandtimeout|internalcommandtimeout|cancellationtimeout|keepalive|tcpkeepalive.*"
    r"|connection(idle)?(lifetime|pruninginterval)|includeerrordetail|persistsecurityinfo|logparameters|maxautoprepare|autoprepareminusages"
    r"|noresetonclose|multiplexing|writecoalescing.*|enlist|(read|write)buffersize|socket(receive|send)buffersize|timezone|(client)?encoding"
    r"|trustservercertificate|checkcertificaterevocation|loadtablecomposites|servercompatibilitymode|arraynullabilitymode|searchpath"
    r"|hostrecheckseconds|loadbalancehosts|requireauth|kerberosservicename|includerealm"
)


def looks_like_npgsql(text: str) -> bool:
    """Whether a text is such a string rather than libpq's `host=… dbname=…` or a path."""
    pairs = _pairs(text)
    if pairs is None or any(not key for key, _ in pairs):
        return False
    names = [_squeezed(key) for key, _ in pairs]
    known = all(name in _NAMES or _IGNORED.fullmatch(name) for name in names)
    # `host=a` alone is both, and means the same in both.
    return (known and (len(pairs) > 1 or pairs[0][0] != pairs[0][0].lower())) or (len(pairs) > 1 and names[0] in _NAMES)


def libpq_parameters(text: str) -> Mapping[str, str]:
    """What a string says, under libpq's names. Raises `ConfigurationError`."""
    found: dict[str, str] = {}
    for key, value in _pairs(text) or ():
        squeezed = _squeezed(key)
        name = _NAMES.get(squeezed)
        if name is None:
            if not _IGNORED.fullmatch(squeezed):
                raise ConfigurationError(
                    f"BRIDGE_DATABASE: the connection string has an unknown keyword {key!r}; correct it or leave it out"
                )
            continue
        if name in _LOWERED:
            lowered = _squeezed(value)
            value = _VALUES.get(name, {}).get(lowered, lowered)
        found[name] = value
    return _split_hosts(found)


def _split_hosts(found: dict[str, str]) -> Mapping[str, str]:
    """Npgsql writes `Host=a:5433,b`, libpq `host=a,b port=5433,`."""
    hosts = [part.strip() for part in found.get("host", "").split(",")]
    if not any(re.fullmatch(r"[^/:]+:\d+", host) for host in hosts):
        return found
    split = [host.partition(":") for host in hosts]
    default = found.get("port", "")
    return {**found, "host": ",".join(host for host, _, _ in split), "port": ",".join(port or default for _, _, port in split)}


def _pairs(text: str) -> list[tuple[str, str]] | None:
    """Keys and values in order; None when the text is nothing of the sort."""
    pairs, position = [], 0
    while text[position:].strip(" \t\r\n;"):
        match = _PAIR.match(text, position)
        if match is None:
            return None
        pairs.append((match["key"], _unquoted(match["value"])))
        position = match.end()
    return pairs or None


def _unquoted(value: str) -> str:
    quote = value[:1]
    if len(value) > 1 and quote in {"'", '"'} and value.endswith(quote):
        return value[1:-1].replace(quote * 2, quote)
    return value


def _squeezed(text: str) -> str:
    return re.sub(r"[\s_-]", "", text).lower()
