"""An object store on loopback that keeps up with tile readers: files of a folder over HTTP and S3, by ranges, each byte counted.

It runs in a process of its own, so that it takes no time from who is measured. S3 is spoken path-style (`/bucket/key`), unsigned
requests are answered as signed ones are, and buckets are folders. `GET /-/sent` tells what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d+)\r\n", re.IGNORECASE)
_CONDITION = re.compile(rb"\r\nif-match: ([^\r]+)\r\n", re.IGNORECASE)
# What it tells of a file's state beside its size and time: the entity tag, one that promises nothing of bytes, none, or nothing at all
# but where it is asked for the state alone; or as Azure does, whose lists have tags without quotes.
TAGS = {"strong": 'ETag: "{0}"\r\n', "weak": 'ETag: W/"{0}"\r\n', "none": "", "head": 'ETag: "{0}"\r\n', "azure": 'ETag: "{0}"\r\n'}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What the server has sent since it began."""

    requests: int
    # Of bodies.
    body_bytes: int


@dataclass(frozen=True, kw_only=True)
class RangeServer:
    """The running server."""

    # http://127.0.0.1:port
    url: str

    @property
    def s3_environment(self) -> Mapping[str, str]:
        """What makes S3 clients come here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    @property
    def other_clouds_environment(self) -> Mapping[str, str]:
        """What makes clients of Azure's and Google's stores come here, which read as S3's do; they are not asked for lists here."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": "test",
            "AZURE_ENDPOINT": self.url,
            "AZURE_SKIP_SIGNATURE": "true",
            "GOOGLE_BASE_URL": self.url,
            "GOOGLE_SKIP_SIGNATURE": "true",
        }

    def sent(self) -> Sent:
        """What was sent so far."""
        with urllib.request.urlopen(f"{self.url}/-/sent", timeout=60) as reply:
            return Sent(**json.load(reply))

    def forget(self) -> None:
        """Look at the folder afresh: files that were opened are kept open until then."""
        urllib.request.urlopen(f"{self.url}/-/forget", timeout=60).close()


@contextlib.contextmanager
def range_server(folder: Path, *, tags: str = "strong") -> Iterator[RangeServer]:
    """Serve the files below a folder until the block ends. `tags`: one of `TAGS`."""
    command = [sys.executable, "-m", "tests.support.slides.range_server", str(folder), tags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield RangeServer(url=f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.terminate()
        process.wait(60)


class _Connection(asyncio.Protocol):
    """Answers requests without bodies, one after the other."""

    sent_requests = sent_bytes = 0

    def __init__(self, folder: Path, files: dict[str, int], tags: str) -> None:
        self._folder = folder
        self._tags = tags
        self._files = files
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, self._received = self._received[: end + 2], self._received[end + 4 :]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        method, target, _ = head[: head.index(b"\r\n")].decode("ascii").split(" ")
        parts = urlsplit(target)
        path = unquote(parts.path)
        if path == "/-/sent":
            told = {"requests": _Connection.sent_requests, "body_bytes": _Connection.sent_bytes}
            self._write("200 OK", json.dumps(told).encode(), count=False)
        elif path == "/-/forget":
            while self._files:
                os.close(self._files.popitem()[1])
            self._write("200 OK", b"", count=False)
        elif "list-type" in (query := parse_qs(parts.query)):
            self._write("200 OK", self._listed(path.strip("/"), query.get("prefix", [""])[0]))
        else:
            self._file(method, path, head)

    def _file(self, method: str, path: str, head: bytes) -> None:
        try:
            descriptor = self._descriptor(path)
        except OSError:
            self._write("404 Not Found", b"")
            return
        status = os.fstat(descriptor)
        size, wanted, condition = status.st_size, _RANGE.search(head), _CONDITION.search(head)
        tag = TAGS[self._tags].format(_tag(status))
        shared = f"{tag}Last-Modified: {formatdate(status.st_mtime, usegmt=True)}\r\nAccept-Ranges: bytes\r\n"
        if self._tags == "head":
            shared, condition = shared if method == "HEAD" else "", None
        # A weak tag meets no condition.
        if condition and (self._tags == "weak" or condition[1].decode("ascii") not in tag):
            self._write("412 Precondition Failed", b"")
        elif method == "HEAD":
            self._write("200 OK", b"", shared, length=size)
        elif wanted:
            start, last = int(wanted[1]), min(int(wanted[2]), size - 1)
            body = os.pread(descriptor, last - start + 1, start)
            self._write("206 Partial Content", body, f"{shared}Content-Range: bytes {start}-{last}/{size}\r\n")
        else:
            self._write("200 OK", os.pread(descriptor, size, 0), shared)

    def _descriptor(self, path: str) -> int:
        if path not in self._files:
            self._files[path] = os.open(self._folder / path.strip("/"), os.O_RDONLY)
        return self._files[path]

    def _listed(self, bucket: str, prefix: str) -> bytes:
        root = self._folder / bucket
        found = [(str(file.relative_to(root)), file.stat()) for file in sorted(root.rglob("*")) if file.is_file()]
        quote = "" if self._tags == "azure" else '"'
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{status.st_size}</Size><ETag>{quote}{_tag(status)}{quote}</ETag>"
            f"<LastModified>{datetime.fromtimestamp(status.st_mtime, UTC):%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key, status in found
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated><Prefix>{escape(prefix)}</Prefix>{entries}</ListBucketResult>".encode()

    def _write(self, status: str, body: bytes, more: str = "", *, length: int | None = None, count: bool = True) -> None:
        assert self._transport
        self._transport.write(
            f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body
        )
        if count:
            _Connection.sent_requests += 1
            _Connection.sent_bytes += len(body)


def _tag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


async def _serve(folder: Path, tags: str) -> None:
    files: dict[str, int] = {}
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(folder, files, tags), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(Path(sys.argv[1]), sys.argv[2]))
