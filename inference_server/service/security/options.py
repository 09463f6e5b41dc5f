"""From the settings of an operator to who is let in; refuses to listen where strangers could call."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from inference_server.errors import ConfigurationError
from inference_server.service.security.access import Access
from inference_server.service.security.tls import Tls, TlsFiles, server_tls
from inference_server.service.security.tokens import permissions_of


@dataclass(frozen=True, kw_only=True)
class SecurityOptions:
    """What was set."""

    # Where gRPC listens, as host:port.
    listen: str
    # PEM files; the first two go together.
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    # What a client with a certificate may do when there are no tokens.
    tls_client_permissions: tuple[str, ...] = ()
    # The file of tokens.
    tokens: Path | None = None
    # Whether strangers may call.
    insecure: bool = False


@dataclass(frozen=True, kw_only=True)
class Security:
    """What the server does about it."""

    # None for no TLS.
    tls: Tls | None
    access: Access


def secure(options: SecurityOptions) -> Security:
    """Read what is set. Raises `ConfigurationError` when it is wrong, or leaves the server open to other machines."""
    files = _tls_files(options)
    known_by_certificate = files is not None and files.client_ca is not None
    _check_exposure(options, encrypted=files is not None, authenticated=known_by_certificate or options.tokens is not None)
    certificates = None
    if known_by_certificate and options.tokens is None:
        certificates = permissions_of("INFERENCE_TLS_CLIENT_PERMISSIONS (--tls-client-permissions)", options.tls_client_permissions)
    return Security(tls=server_tls(files) if files else None, access=Access(tokens=options.tokens, certificates=certificates))


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a host:port. A name other than localhost counts as reachable."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls_files(options: SecurityOptions) -> TlsFiles | None:
    if options.tls_certificate and options.tls_key:
        return TlsFiles(certificate=options.tls_certificate, key=options.tls_key, client_ca=options.tls_client_ca)
    if options.tls_certificate or options.tls_key or options.tls_client_ca:
        raise ConfigurationError(
            "INFERENCE_TLS_CERTIFICATE and INFERENCE_TLS_KEY (--tls-certificate, --tls-key): both are needed for TLS, and for "
            "INFERENCE_TLS_CLIENT_CA; set both, or none of the three."
        )
    return None


def _check_exposure(options: SecurityOptions, *, encrypted: bool, authenticated: bool) -> None:
    if options.insecure or is_loopback(options.listen) or (encrypted and authenticated):
        return
    missing = [] if encrypted else ["INFERENCE_TLS_CERTIFICATE and INFERENCE_TLS_KEY (TLS)"]
    missing += [] if authenticated else ["INFERENCE_TOKENS_FILE (bearer tokens) or INFERENCE_TLS_CLIENT_CA (client certificates)"]
    raise ConfigurationError(
        f"INFERENCE_LISTEN (--listen): other machines reach {options.listen}, and the server would be open to them. "
        f"Set {', and '.join(missing)}; or listen on 127.0.0.1; or, in a network where everybody may do everything, set "
        "INFERENCE_INSECURE=true."
    )
