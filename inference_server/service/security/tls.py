"""TLS and mutual TLS from files, which may be renewed while the server runs."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference_server.errors import ConfigurationError
from inference_server.service.security.watched import Watched

# Of the files, in their order.
_SETTINGS = (
    "INFERENCE_TLS_CERTIFICATE (--tls-certificate)",
    "INFERENCE_TLS_KEY (--tls-key)",
    "INFERENCE_TLS_CLIENT_CA (--tls-client-ca)",
)


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


# Makes what one connection speaks TLS with.
Tls = Callable[[], ssl.SSLContext]


def server_tls(files: TlsFiles) -> Tls:
    """What a server needs to speak TLS. Each new connection gets what the files hold then, as long as it is right.

    Raises `ConfigurationError` when the files are wrong now.
    """
    watched = Watched(files.paths, lambda: _context(files), name="TLS certificates")

    def renew(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Called by OpenSSL when a client says hello, with or without a server's name."""
        connection.context = watched.refresh()

    def listening() -> ssl.SSLContext:
        """What a connection begins with. In TLS 1.2 a resumed session is let in by what the files held when it began."""
        context = _bare(files)  # of its own, where no session lies that another one could resume
        context.sni_callback = renew
        return context

    watched.refresh()
    return listening


def _bare(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Of TLS 1.2 what HTTP/2 allows: RFC 9113, section 9.2 and appendix A.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _context(files: TlsFiles) -> ssl.SSLContext:
    for path, setting in zip(files.paths, _SETTINGS, strict=False):
        _read(path, setting)
    context = _bare(files)
    _load(context, files)
    return context


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path}, named by {setting}, cannot be read ({error.strerror}); expected a PEM file that the server may read."
        ) from error


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
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
