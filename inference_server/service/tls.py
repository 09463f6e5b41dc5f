"""TLS and mutual TLS from files, which may be renewed while the server runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from inference_server.errors import ConfigurationError
from inference_server.service.watched import Watched


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Where certificates and keys lie, in PEM."""

    # The server's certificate, and after it those between it and its root.
    certificate: Path
    # Its private key, not encrypted.
    key: Path
    # Roots of the clients' certificates. With it every client must show one.
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.certificate, self.key, *([self.client_ca] if self.client_ca else []))


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """What a gRPC server needs to speak TLS. Each new connection gets what the files hold then, as long as it is right.

    Raises `ConfigurationError` when the files are wrong now.
    """
    watched = Watched(files.paths, lambda: _configuration(files), name="TLS certificates")
    return grpc.dynamic_ssl_server_credentials(watched.value, _changes(watched), require_client_authentication=files.client_ca is not None)


def _changes(watched: Watched[grpc.ServerCertificateConfiguration]) -> Any:
    """What gRPC asks at each handshake, in a thread of its own: the new configuration, None when it is the old one."""
    given = watched.value

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        now = watched.refresh()
        if now is given:
            return None
        given = now
        return now

    return fetch


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    content = {path: _read(path) for path in files.paths}
    _check(files)
    return grpc.ssl_server_certificate_configuration(
        [(content[files.key], content[files.certificate])],
        root_certificates=content[files.client_ca] if files.client_ca else None,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); expected a PEM file that the server may read.") from error


def _check(files: TlsFiles) -> None:
    """Let OpenSSL say whether the files are right and belong together: gRPC takes anything, and fails at the handshakes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The password is there so that an encrypted key is an error, not a question on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{files.certificate} and {files.key} are no certificate and its key ({_reason(error)}); "
            "expected PEM files that belong together, the key not encrypted."
        ) from error
    if files.client_ca is None:
        return
    try:
        context.load_verify_locations(files.client_ca)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{files.client_ca} holds no certificates ({_reason(error)}); expected roots in PEM.") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or getattr(error, "strerror", "") or type(error).__name__).lower().replace("_", " ")
