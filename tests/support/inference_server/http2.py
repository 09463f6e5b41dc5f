"""Peers that speak HTTP/2 byte by byte, and the frames that they send."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import hpack
from hyperframe.frame import Frame

from tests.support.inference_server.http2_transport import SECONDS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of a frame, right or not."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """A frame of settings, by names such as initial_window_size."""
    names = ("", "header_table_size", "enable_push", "max_concurrent_streams", "initial_window_size", "max_frame_size")
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", names.index(name), value) for name, value in values.items()))


def message(content: bytes, flag: int = 0) -> bytes:
    """A message of gRPC."""
    return struct.pack(">BI", flag, len(content)) + content


def head(path: str = "/test.Transport/One", **changes: str | None) -> list[tuple[str, str]]:
    """Headers of a call; `changes` by name, with _ for -, and None for a header that is left out."""
    headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "content-type": "application/grpc"}
    headers["te"] = "trailers"
    for name, value in changes.items():
        headers[name.replace("_", "-").replace("pseudo-", ":")] = value  # type: ignore[assignment]
    return [(name, value) for name, value in headers.items() if value is not None]


def block(headers: list[tuple[str, str]]) -> bytes:
    """Headers in HPACK, as a peer writes them that keeps no table."""
    literal = bytearray()
    for name, value in headers:
        literal += b"\x00"
        for part in (name.encode("latin-1"), value.encode("latin-1")):
            literal += hpack.hpack.encode_integer(len(part), 7) + part
    return bytes(literal)


def call(stream: int, content: bytes = b"hello", path: str = "/test.Transport/One", **changes: str | None) -> bytes:
    """The frames of a whole call."""
    return frame(HEADERS, END_HEADERS, stream, block(head(path, **changes))) + frame(DATA, END_STREAM, stream, message(content))


class RawPeer:
    """A client of sockets, which sends any bytes and reads frames."""

    def __init__(self, port: int, *, greet: bool = True, tls: ssl.SSLContext | None = None, read_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if read_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
        self.socket.settimeout(SECONDS)
        self.socket.connect(("127.0.0.1", port))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._rest = b""
        self._decoder = hpack.Decoder()
        if greet:
            self.send(PREFACE + settings())

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def frames(self) -> Iterator[Frame]:
        """What comes, until the server ends the connection."""
        while True:
            while len(self._rest) < 9 or len(self._rest) < 9 + int.from_bytes(self._rest[:3]):
                try:
                    more = self.socket.recv(2**16)
                except ConnectionResetError:
                    more = b""
                if not more:
                    return
                self._rest += more
            size = 9 + int.from_bytes(self._rest[:3])
            found, _ = Frame.parse_frame_header(memoryview(self._rest[:9]))
            found.parse_body(memoryview(self._rest[9:size]))
            self._rest = self._rest[size:]
            yield found

    def next(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame of a type."""
        for found in self.frames():
            if found.type == kind and stream in (None, found.stream_id):
                return found
        raise AssertionError(f"the connection ended before a frame of type {kind}")

    def answer(self, stream: int) -> Answer:
        """All that comes for a stream."""
        got = Answer()
        for found in self.frames():
            if found.type == GOAWAY and got.last_stream is None:
                got.last_stream = found.last_stream_id
            if found.stream_id != stream:
                continue
            if found.type == HEADERS:
                headers = found.data
                while "END_HEADERS" not in found.flags:
                    found = next(self.frames())
                    headers += found.data
                got.headers |= {str(name): str(value) for name, value in self._decoder.decode(headers)}
            elif found.type == DATA:
                got.content += found.data
                got.frame_sizes.append(len(found.data))
            elif found.type == RST_STREAM:
                got.reset = found.error_code
            if found.type == RST_STREAM or "END_STREAM" in found.flags:
                return got
        raise AssertionError("the connection ended before the stream did")

    def end(self) -> int | None:
        """The code of the last GOAWAY before the connection ends; None without one."""
        code = None
        for found in self.frames():
            if found.type == GOAWAY:
                code = found.error_code
        return code

    def is_served(self, stream: int) -> bool:
        """Whether a call on the same connection is answered."""
        self.send(call(stream, b"still there?"))
        return self.answer(stream).messages == [b"still there?"]


class Answer:
    """What came for one call."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.content = b""
        self.frame_sizes: list[int] = []
        self.reset: int | None = None
        self.last_stream: int | None = None

    @property
    def status(self) -> int | None:
        """The status of gRPC."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def messages(self) -> list[bytes]:
        """The messages, whole."""
        rest, found = self.content, []
        while rest:
            size = int.from_bytes(rest[1:5])
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found


def is_served(port: int, **options: Any) -> bool:
    """Whether a client of an independent library gets its answer on a new connection. Raises `OSError` when that ends before."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    connection.send_headers(stream, head())
    connection.send_data(stream, message(b"well-formed"), end_stream=True)
    content = b""
    with RawPeer(port, greet=False, **options) as peer:
        peer.send(connection.data_to_send())
        while received := peer.socket.recv(2**16):
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.DataReceived):
                    content += event.data
                if isinstance(event, h2.events.StreamEnded):
                    return content == message(b"well-formed")
            peer.send(connection.data_to_send())
    raise ConnectionResetError("the connection ended before the answer did")


def is_served_at_last(port: int, *, patience: float, **options: Any) -> bool:
    """`is_served` by a server of so few seconds' patience: tried again where the peer took longer, as it may on a slow machine."""
    for _ in range(10):
        began = time.monotonic()
        try:
            return is_served(port, **options)
        except OSError:
            # The loop's clock may be a little behind.
            if time.monotonic() - began < 0.9 * patience:
                raise
    return False
