"""Who may call what: bearer tokens, or client certificates, against the permission of each method."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from inference_server.errors import PermissionMissing, Unauthenticated
from inference_server.service.security.permissions import Need, Permission, need_of
from inference_server.service.security.tokens import Tokens, read_tokens
from inference_server.service.security.watched import Watched

_HEADER = "authorization"
_SCHEME = "bearer"
_LOOK_SECONDS = 1.0

_HOW = "send the metadata authorization: Bearer TOKEN"

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who calls, as far as it was proved before the call is read."""

    # Name of the token; None when nothing but maybe a certificate tells.
    name: str | None = None


_UNKNOWN = Identity()


class Access:
    """Lets calls in. Without tokens and without client certificates everybody may call everything."""

    def __init__(self, *, tokens: Path | None = None, certificates: frozenset[Permission] | None = None) -> None:
        """`tokens`: their file; with it every call needs one. `certificates`: what TLS clients with a certificate may do without tokens.

        Raises `ConfigurationError` when the file is wrong.
        """
        self._tokens = Watched((tokens,), lambda: read_tokens(tokens), name="tokens") if tokens else None
        self._certificates = certificates

    def identify(self, path: str, metadata: Metadata | None) -> Identity:
        """Whose call of a method this is. Raises `Unauthenticated`, `PermissionMissing`."""
        need = need_of(path)
        if need is Need.NOTHING:
            return _UNKNOWN
        if self._tokens is not None:
            return self._by_token(self._tokens.value, path, need, metadata or ())
        if self._certificates is not None:
            _check(need, self._certificates, "a client certificate", path)
        return _UNKNOWN

    def name_of(self, identity: Identity, context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
        """The proved name of a caller: its token's, else its certificate's; None when nothing proves one."""
        if identity.name is not None or self._certificates is None:
            return identity.name
        proved = context.auth_context()
        for key in ("x509_common_name", "x509_subject_alternative_name"):
            for value in proved.get(key, ()):
                return bytes(value).decode(errors="replace")
        return None

    async def watch(self) -> None:
        """Follow the file of tokens, until cancelled."""
        while self._tokens is not None:
            await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.to_thread(self._tokens.refresh)

    @staticmethod
    def _by_token(tokens: Tokens, path: str, need: Permission | Need, metadata: Metadata) -> Identity:
        grant = tokens.find(_token(metadata))
        if grant is None:
            raise Unauthenticated(f"the token is not known to this server; {_HOW} with one of its tokens.")
        _check(need, grant.permissions, f"the token of {grant.name}", path)
        return Identity(name=grant.name)


def _check(need: Permission | Need, permissions: frozenset[Permission], holder: str, path: str) -> None:
    if isinstance(need, Permission) and need not in permissions:
        raise PermissionMissing(
            f"{path} needs the permission {need.value}, which {holder} does not have; ask who runs the server for it.",
            permission=need.value,
        )


def _token(metadata: Metadata) -> str:
    headers = [value for key, value in metadata if key.lower() == _HEADER]
    if not headers:
        raise Unauthenticated(f"this server takes calls with a token only; {_HOW}.")
    scheme, _, token = (headers[0] if isinstance(headers[0], str) else "").partition(" ")
    if len(headers) > 1 or scheme.lower() != _SCHEME or not token.strip():
        raise Unauthenticated(f"the metadata {_HEADER} is of no kind that this server takes; {_HOW}, once.")
    return token.strip()
