"""A web server on loopback with files, which does well or badly as a test says, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.servers.local_http import Asked, in_a_thread

TIME = "Wed, 01 Jan 2025 00:00:00 GMT"


@dataclass(kw_only=True)
class Answer:
    """What is sent; a test changes it before that."""

    status: int
    headers: dict[str, str]
    body: bytes
    # Whether the connection ends behind it.
    ends_connection: bool = False
    # Seconds before it.
    wait: float = 0
    # Seconds before each of its bytes, of the head's too; and of the body's alone.
    drip: float = 0
    drip_of_body: float = 0


@dataclass(kw_only=True)
class WebServer:
    """The running server."""

    url: str = ""
    # By path, as it is asked for.
    files: dict[str, bytes] = field(default_factory=dict)
    # Changes answers; the server is good without it.
    meddle: Callable[[Asked, Answer], object] = lambda asked, answer: None
    sends_parts: bool = True
    asked: list[Asked] = field(default_factory=list)
    # Ports of those who came.
    connections: set[int] = field(default_factory=set)

    def answer(self, asked: Asked) -> Answer:
        """As RFC 9110 has it."""
        content = self.files.get(asked.path)
        if asked.method == "PUT":
            self.files[asked.path] = asked.body
            return Answer(status=201, headers={"ETag": f'"{hash(asked.body):x}"'}, body=b"")
        if asked.method not in ("GET", "HEAD"):
            return Answer(status=405, headers={}, body=b"")
        if content is None:
            return Answer(status=404, headers={}, body=b"no such file")
        tag = f'"{hash(content):x}"'
        headers = {"ETag": tag, "Last-Modified": TIME, "Accept-Ranges": "bytes"}
        if asked.headers.get("if-match", tag) != tag:
            return Answer(status=412, headers={}, body=b"")
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers.get("range", ""))
        if not span or asked.method == "HEAD" or not self.sends_parts:
            return Answer(status=200, headers=headers, body=content)
        start, last = int(span[1]), min(int(span[2]), len(content) - 1)
        if start > last:
            return Answer(status=416, headers={"Content-Range": f"bytes */{len(content)}"}, body=b"")
        return Answer(
            status=206, headers=headers | {"Content-Range": f"bytes {start}-{last}/{len(content)}"}, body=content[start : last + 1]
        )


@contextlib.contextmanager
def web_server(
    files: dict[str, bytes] | None = None, *, host: str = "127.0.0.1", tls: tuple[Path, Path] | None = None
) -> Iterator[WebServer]:
    """Run one until the block ends. `tls`: the files of its certificate and key."""
    served = WebServer(files=files or {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(method=self.command, path=self.path, headers=headers, body=body)
            served.asked.append(asked)
            served.connections.add(self.client_address[1])
            answer = served.answer(asked)
            served.meddle(asked, answer)
            time.sleep(answer.wait)
            with contextlib.suppress(OSError):
                self._send(answer)

        def _send(self, answer: Answer) -> None:
            lengths = {} if {"Content-Length", "Transfer-Encoding"} & set(answer.headers) else {"Content-Length": str(len(answer.body))}
            lines = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {value}" for name, value in (answer.headers | lengths).items() if value)]
            head = "\r\n".join([*lines, "", ""]).encode()
            self._write(head, answer.drip)
            self._write(b"" if self.command == "HEAD" else answer.body, answer.drip or answer.drip_of_body)
            # Without a length the end of the connection is the end of the body.
            told = answer.headers.get("Content-Length")
            is_cut = told is not None and told != str(len(answer.body)) and self.command != "HEAD"
            self.close_connection = is_cut or answer.ends_connection

        def _write(self, raw: bytes, drip: float) -> None:
            for piece in [raw[at : at + 1] for at in range(len(raw))] if drip else [raw]:
                self.wfile.write(piece)
                time.sleep(drip)

        do_GET = do_HEAD = do_PUT = do_MKCOL = _answer  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    server = Server((host, 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    served.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}"
    with in_a_thread(server):
        yield served
