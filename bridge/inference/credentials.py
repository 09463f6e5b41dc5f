"""What the client shows the inference server, and what it asks of it."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bridge.errors import ConfigurationError
from bridge.inference.replicas import host_of

_LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class ServerTrust:
    """TLS to the server, and the token for it."""

    # Whether TLS is spoken. The files below are in PEM.
    tls: bool = False
    # Roots of the server's certificate; None for the public ones.
    ca: Path | None = None
    # Certificate and key of the client, for servers that ask for one.
    certificate: Path | None = None
    key: Path | None = None
    # The token itself, or the file that holds nothing else and may change.
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    # Whether a token may go to another machine in the clear.
    insecure: bool = False


def channel_credentials(trust: ServerTrust, address: str) -> grpc.ChannelCredentials | None:
    """What a channel needs; None for no TLS. Raises `ConfigurationError`."""
    if trust.token and trust.token_file:
        raise ConfigurationError("BRIDGE_INFERENCE_TOKEN and BRIDGE_INFERENCE_TOKEN_FILE are both set; set one of them")
    if bool(trust.certificate) != bool(trust.key):
        raise ConfigurationError("BRIDGE_INFERENCE_TLS_CERTIFICATE and BRIDGE_INFERENCE_TLS_KEY go together; set both or none")
    if trust.tls:
        ca, key, certificate = (_read(path) if path else None for path in (trust.ca, trust.key, trust.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)
    if trust.ca or trust.certificate:
        raise ConfigurationError("certificates are set and TLS is not; set BRIDGE_INFERENCE_TLS=true, or unset BRIDGE_INFERENCE_TLS_…")
    if (trust.token or trust.token_file) and not trust.insecure and not _is_loopback(address):
        raise ConfigurationError(
            f"the token would go to {address} in the clear; set BRIDGE_INFERENCE_TLS=true, or BRIDGE_INFERENCE_INSECURE=true where "
            "that is meant"
        )
    return None


class Token:
    """The token of the moment; its file may change while the bridge runs."""

    def __init__(self, trust: ServerTrust) -> None:
        """Reads the file at once. Raises `ConfigurationError`."""
        self._path = trust.token_file
        self._looked = time.monotonic()
        self._signature = _signature(self._path) if self._path else None
        if self._path:
            self._token = _token_in(self._path)
        else:
            self._token = _checked(trust.token, "BRIDGE_INFERENCE_TOKEN") if trust.token else ""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call carries; looks at the file at most once a second."""
        if self._path and time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._refresh(self._path)
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    def _refresh(self, path: Path) -> None:
        signature = _signature(path)
        if signature is None or signature == self._signature:
            return
        try:
            self._token = _token_in(path)
        except ConfigurationError:
            # Half written, or taken away: the old one stays, and the server has the last word.
            return
        self._signature = signature


def _token_in(path: Path) -> str:
    return _checked(_read(path).decode("utf-8-sig", errors="replace"), str(path))


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token or not all("!" <= character <= "~" for character in token):
        raise ConfigurationError(f"{where} holds no token; expected one word of printable ASCII")
    return token


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); expected a file that the bridge may read") from error


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _is_loopback(addresses: str) -> bool:
    return all(_is_loopback_host(host_of(address)) for address in addresses.split(","))


def _is_loopback_host(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
