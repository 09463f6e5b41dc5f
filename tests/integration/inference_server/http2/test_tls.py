"""TLS of the transport: what is agreed on, and what changed files change."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_server.service.security.tls import TlsFiles, server_tls
from tests.support.inference_server.http2 import PREFACE, RawPeer, is_served, is_served_at_last, settings
from tests.support.inference_server.http2_transport import LOOPS, Transport, transport, until_true
from tests.support.servers.certificates import Authority


class Files:
    """A server's certificate and its clients' authority, and clients who trust and show others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        certificate, key = self.authority.issue("server").write(folder, "server")
        (folder / "ca.crt").write_bytes(self.authority.certificate)
        self.tls = server_tls(TlsFiles(certificate=certificate, key=key, client_ca=folder / "ca.crt"))

    def client(self, authority: Authority, *, alpn: tuple[str, ...] = ("h2",), version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A client that `authority` signed."""
        context = ssl.create_default_context(cadata=self.authority.certificate.decode())
        certificate, key = authority.issue("ward-7").write(self.folder, "client")
        context.load_cert_chain(certificate, key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(params=LOOPS)
def secured(request: pytest.FixtureRequest, files: Files) -> Iterator[Transport]:
    with transport(request.param, tls=files.tls) as running:
        yield running


def _is_let_in(running: Transport, client: ssl.SSLContext) -> bool:
    try:
        return is_served(running.port, tls=client)
    except (ssl.SSLError, OSError):
        return False


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_are_served_over_tls(secured: Transport, files: Files, version: ssl.TLSVersion) -> None:
    assert _is_let_in(secured, files.client(files.authority, version=version))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_new_client_authority_lets_its_clients_in_and_the_old_ones_no_longer(
    secured: Transport, files: Files, version: ssl.TLSVersion
) -> None:
    other = Authority("other")
    old, new = files.client(files.authority, version=version), files.client(other, version=version)
    assert (_is_let_in(secured, old), _is_let_in(secured, new)) == (True, False)
    (files.folder / "ca.new").write_bytes(other.certificate)
    (files.folder / "ca.new").rename(files.folder / "ca.crt")
    assert (_is_let_in(secured, old), _is_let_in(secured, new)) == (False, True)


def _session(running: Transport, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[ssl.SSLSession | None, bool]:
    """A session of a connection, and whether it is the one that was given."""
    plain = socket.create_connection(("127.0.0.1", running.port))
    with plain, client.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
        tls.sendall(PREFACE + settings())
        if not tls.recv(100):
            raise ConnectionResetError("the server ended the connection: eof")
        return tls.session, bool(tls.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed_so_that_an_old_authority_lets_nobody_in(secured: Transport, files: Files, version: ssl.TLSVersion) -> None:
    client = files.client(files.authority, version=version)
    session, _ = _session(secured, client)
    assert _session(secured, client, session)[1] is False
    (files.folder / "ca.crt").write_bytes(Authority("other").certificate)
    with pytest.raises(OSError, match=r"(?i)alert|reset|eof|broken"):
        _session(secured, client, session)


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
def test_a_client_that_does_not_ask_for_h2_gets_no_connection(secured: Transport, files: Files, alpn: tuple[str, ...]) -> None:
    with RawPeer(secured.port, tls=files.client(files.authority, alpn=alpn)) as peer:
        assert peer.end() in (12, None)
    until_true(lambda: secured.reasons)
    assert secured.reasons == ["inadequate_security"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("content", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", PREFACE + settings()])
def test_a_client_that_does_not_agree_on_tls_is_let_go_and_counted(files: Files, loop: str, content: bytes) -> None:
    with transport(loop, tls=files.tls, receive_seconds=2.0) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as plain:
            plain.settimeout(60)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                plain.sendall(content)
                while plain.recv(100):
                    pass
        until_true(lambda: running.failed_reasons)
        assert (running.failed_reasons, running.reasons) == (["handshake"], [])
        assert is_served_at_last(running.port, patience=2.0, tls=files.client(files.authority))


def test_clients_in_a_handshake_count_as_connections(files: Files) -> None:
    with transport(tls=files.tls, limits={"most_connections": 2}) as running, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", running.port))) for _ in range(3)]
        until_true(lambda: running.failed_reasons)
        assert running.failed_reasons == ["limit"]
        for plain in waiting:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            plain.close()
        until_true(lambda: len(running.failed_reasons) == 3)
        assert _is_let_in(running, files.client(files.authority))
