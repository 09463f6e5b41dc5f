"""Bearer tokens from a file.

It has a line for each:

    # name   token                                permissions
    bridge   Zm9vYmFyIHNlY3JldCBvZiB0aGUgYnJpZGdl slides,documents,labs
    ops      sha256:9f86d081…                     infer,admin

or as JSON, `[{"name": "bridge", "token": "…", "permissions": ["slides"]}]`. Two lines may share a name, so that a token can be
replaced without a moment in which neither works. Neither tokens nor their hashes are logged or told in errors.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inference_server.errors import ConfigurationError
from inference_server.service.security.permissions import Permission

# What may stand after "Bearer ", by RFC 6750 section 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_SHORTEST_TOKEN = 16
_MOST_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Grant:
    """One token, and what it allows."""

    # Who shows it; the server's logs and queues know the caller by it.
    name: str
    # SHA-256 of the token.
    digest: bytes = field(repr=False)
    permissions: frozenset[Permission]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokens that are taken."""

    grants: tuple[Grant, ...]

    def find(self, token: str) -> Grant | None:
        """The grant of a token. It takes as long for a wrong token as for a right one."""
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        found = None
        for grant in self.grants:
            if hmac.compare_digest(grant.digest, digest):
                found = grant
        return found


def read_tokens(path: Path) -> Tokens:
    """Read a file of tokens. Raises `ConfigurationError`, which names the place and never a token."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigurationError(f"{path} is larger than {_MOST_BYTES} bytes; expected one short line for each token.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}, named by INFERENCE_TOKENS_FILE (--tokens-file), cannot be read ({type(error).__name__}); "
            "expected a text file that the server may read."
        ) from error
    rows = _json_rows(path, text) if text.lstrip().startswith("[") else _line_rows(path, text)
    grants = tuple(_grant(place, *row) for place, row in rows)
    if not grants:
        raise ConfigurationError(f"{path} holds no token; expected at least one line: name token permissions.")
    if len({grant.digest for grant in grants}) < len(grants):
        raise ConfigurationError(f"{path} holds one token twice; give each caller a token of its own.")
    return Tokens(grants=grants)


_Row = tuple[str, str, tuple[str, ...]]


def _line_rows(path: Path, text: str) -> Iterator[tuple[str, _Row]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place, words = f"{path} line {number}", line.split()
        if len(words) != 3:
            raise ConfigurationError(
                f"{place} has {len(words)} words; expected three: name token permissions, the permissions separated by commas."
            )
        yield place, (words[0], words[1], tuple(filter(None, words[2].split(","))))


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, _Row]]:
    expected = 'expected a list of {"name": "…", "token": "…", "permissions": ["…"]}.'
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        # The error's text would quote the file.
        raise ConfigurationError(f"{path} is no JSON; {expected}") from error
    for number, entry in enumerate(entries, start=1):
        place = f"{path} entry {number}"
        if not isinstance(entry, dict) or set(entry) != {"name", "token", "permissions"}:
            raise ConfigurationError(f"{place} is wrong; {expected}")
        permissions = entry["permissions"]
        if not isinstance(permissions, list) or not all(isinstance(value, str) for value in (entry["name"], entry["token"], *permissions)):
            raise ConfigurationError(f"{place} is wrong; {expected}")
        yield place, (entry["name"], entry["token"], tuple(permissions))


def _grant(place: str, name: str, token: str, permissions: Iterable[str]) -> Grant:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{place} has a bad name; expected at most 64 of letters, digits and . _ @ -, such as bridge.")
    return Grant(name=name, digest=_digest(place, token), permissions=permissions_of(place, permissions))


def _digest(place: str, token: str) -> bytes:
    if hashed := _HASH.fullmatch(token):
        return bytes.fromhex(hashed[1])
    if len(token) < _SHORTEST_TOKEN or not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            f"{place} has a token that cannot be used; expected at least {_SHORTEST_TOKEN} of letters, digits and - . _ ~ + / =, "
            "or sha256: and the hash of such a one."
        )
    return hashlib.sha256(token.encode()).digest()


def permissions_of(place: str, names: Iterable[str]) -> frozenset[Permission]:
    """Permissions by their names. Raises `ConfigurationError`."""
    known = {permission.value: permission for permission in Permission}
    given = tuple(names)
    if unknown := [name for name in given if name not in known]:
        raise ConfigurationError(f"{place} has the permission {unknown[0]!r}; expected some of {', '.join(known)}.")
    if not given:
        raise ConfigurationError(f"{place} has no permission; expected some of {', '.join(known)}, separated by commas.")
    return frozenset(known[name] for name in given)
