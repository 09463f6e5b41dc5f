"""Tells whether a push comes from whom it should: Google's signed tokens (OpenID Connect)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

from bridge.errors import TransientError
from bridge.google.refusals import NotAllowedError, NotAuthenticatedError

_log = structlog.get_logger()
_ISSUERS = frozenset({"accounts.google.com", "https://accounts.google.com"})
_CERTIFICATES = "https://www.googleapis.com/oauth2/v1/certs"
_FETCH_SECONDS = 10
# Certificates are fetched anew after so long; and for a key that is not among them, but not more often than this.
_KEPT_SECONDS = 3600.0
_LEAST_SECONDS = 60.0
# After a failure nobody tries again for so long.
_PAUSE_SECONDS = 5.0
_SKEW_SECONDS = 10

# Returns certificates in PEM by the id of their key.
Fetch = Callable[[], Mapping[str, str]]


class TokenVerifier:
    """Checks signature, time, audience, issuer and account of a token."""

    def __init__(self, *, audience: str, account: str, fetch: Fetch | None = None) -> None:
        """`audience`: what the subscription's tokens are made for. `account`: the service account that makes them."""
        self._audience = audience
        self._account = account
        self._fetch = fetch or fetch_certificates
        self._certificates: Mapping[str, str] = {}
        self._fetched_at = float("-inf")
        self._failed_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> None:
        """Raise `NotAuthenticatedError`, `NotAllowedError`, or `TransientError` when Google's certificates are out of reach."""
        claims = await asyncio.to_thread(self._decoded, token, await self._known(_key_of(token)))
        if claims.get("iss") not in _ISSUERS:
            raise NotAuthenticatedError(f"the token was issued by {str(claims.get('iss'))[:100]!r}, not by Google")
        if claims.get("email") != self._account or not claims.get("email_verified"):
            raise NotAllowedError(
                f"the token belongs to {str(claims.get('email'))[:200]!r}; "
                f"pushes are taken from {self._account!r} (BRIDGE_PUBSUB_PUSH_ACCOUNT)"
            )

    def _decoded(self, token: str, certificates: Mapping[str, str]) -> Mapping[str, Any]:
        try:
            # Untyped; all that it raises is one of these two.
            return dict(jwt.decode(token, certs=certificates, audience=self._audience, clock_skew_in_seconds=_SKEW_SECONDS))  # type: ignore[no-untyped-call]
        except (GoogleAuthError, ValueError) as error:
            raise NotAuthenticatedError(
                f"the token is not right ({str(error)[:200]}); it has to be made for {self._audience!r} (BRIDGE_PUBSUB_PUSH_AUDIENCE)"
            ) from error

    async def _known(self, key: str) -> Mapping[str, str]:
        """The certificates, with that of a key if it exists."""
        async with self._fetching:
            age = time.monotonic() - self._fetched_at
            wanted = age > _KEPT_SECONDS or (key not in self._certificates and age > _LEAST_SECONDS)
            if wanted and time.monotonic() - self._failed_at > _PAUSE_SECONDS:
                await self._renew()
            if not self._certificates:
                raise TransientError("Google's certificates are out of reach")
            return self._certificates

    async def _renew(self) -> None:
        try:
            self._certificates = await asyncio.to_thread(self._fetch)
            self._fetched_at = time.monotonic()
        except Exception as error:  # whatever it is, the certificates at hand are used on
            self._failed_at = time.monotonic()
            _log.warning("certificates_out_of_reach", error=f"{type(error).__name__}: {error}")


def fetch_certificates() -> Mapping[str, str]:
    """Google's certificates, by the id of their key."""
    answer = Request()(_CERTIFICATES, method="GET", timeout=_FETCH_SECONDS)
    if answer.status != 200:
        raise TransientError(f"{_CERTIFICATES} answered {answer.status}")
    return dict(json.loads(answer.data))


def _key_of(token: str) -> str:
    try:
        return str(jwt.decode_header(token).get("kid", ""))  # type: ignore[no-untyped-call]
    except (GoogleAuthError, ValueError) as error:
        raise NotAuthenticatedError("the token is not a signed one of Google's (a JWT)") from error
