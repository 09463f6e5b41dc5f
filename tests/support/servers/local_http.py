"""A small HTTP server on loopback that answers as a test says, and keeps what it was asked: for agents and metadata services."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request."""

    method: str
    path: str
    # Names in lower case.
    headers: Mapping[str, str]
    body: bytes


# Status and body, and perhaps headers.
Answering = Callable[[Asked], tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]]


@dataclass(kw_only=True)
class LocalHttp:
    """The running server."""

    # http://127.0.0.1:port
    url: str = ""
    answering: Answering
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def local_http(answering: Answering) -> Iterator[LocalHttp]:
    """Run one until the block ends; `answering` may be replaced meanwhile."""
    served = LocalHttp(answering=answering)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(method=self.command, path=self.path, headers=headers, body=body)
            served.asked.append(asked)
            status, content, *more = served.answering(asked)
            answered = {"Content-Type": "application/json", **(more[0] if more else {}), "Content-Length": str(len(content))}
            self.send_response(status)
            for name, value in answered.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_GET = do_PUT = do_POST = _answer  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    with in_a_thread(server):
        yield served


@contextmanager
def in_a_thread(server: ThreadingHTTPServer) -> Iterator[None]:
    """Have it serve until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def passed_on(endpoint: str, asked: Asked) -> tuple[int, bytes, Mapping[str, str]]:
    """What the server behind this one answers, whatever it is."""
    headers = {name: value for name, value in asked.headers.items() if name not in {"host", "content-length", "connection"}}
    request = urllib.request.Request(f"{endpoint}{asked.path}", asked.body or None, headers, method=asked.method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read(), _kept(reply.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), _kept(error.headers)


def _kept(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name.lower() in {"content-type", "etag", "last-modified", "x-amzn-errortype"}}
