"""Headers of calls, read with HPACK.

Clients send the same block of bytes for call after call; what it said is kept as long as it means the same.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from dataclasses import dataclass

import hpack
from hpack.table import HeaderTable

from inference_server.service.http2.frames import ConnectionFailed, ErrorCode

Metadata = tuple[tuple[str, str | bytes], ...]

# Bytes of one call's headers, as they are told to the peer: a call with more is refused. With many more, they are not even read.
LARGEST_HEADER_LIST = 16 * 1024
_LARGEST_READ = 4 * LARGEST_HEADER_LIST
# What HPACK counts for each beside its bytes.
_OVERHEAD = 32

CONTENT_TYPE = "application/grpc"

# Bytes of blocks that are kept by connection, and of the largest one kept.
_MOST_KEPT = 16 * 1024
_LARGEST_KEPT = 2048

_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")

# Told by the transport, or made by it: no metadata of the caller's.
_RESERVED = frozenset({"te", "content-type", "grpc-encoding", "grpc-accept-encoding", "grpc-timeout", "grpc-message-type", "host"})

BINARY = "-bin"

# What no header may be called or hold, and what HTTP/2 has none of. Source: RFC 9113, sections 8.2 and 8.3.
_NAME = re.compile(r":?[^\x00-\x20A-Z:\x7f-\xff]+")
_BROKEN_VALUE = re.compile(r"[\x00\r\n]")
_OF_CONNECTIONS = frozenset({"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"})
_PSEUDO = frozenset({":method", ":scheme", ":path", ":authority"})
_NEEDED = (":method", ":scheme", ":path")

# What no encoder has a reason for, and what takes long to read. Source: RFC 7541, section 4.2.
_RESIZED_OFTEN = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")

# The library tells each header at level debug; no log holds metadata, whatever its level.
logging.getLogger("hpack").setLevel(logging.WARNING)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallHead:
    """What the headers of a call say."""

    # /package.Service/Method
    path: str
    metadata: Metadata
    # Seconds from now; None for no deadline.
    timeout: float | None
    # Of the messages that are marked as compressed.
    encoding: str
    # Encodings that the caller reads.
    accepted: frozenset[str]
    # HTTP status and words of a request that is no call; None of one that is.
    refusal: tuple[int, str] | None = None
    # Why it is not even a request; its stream is reset.
    malformed: str = ""


class _WatchedTable(HeaderTable):
    """Counts its changes: as long as there is none, the same block means the same."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    def resize(self, size: int) -> None:
        """Take another size, whatever falls out."""
        self.changes += 1
        self.maxsize = size


class _Decoder(hpack.Decoder):
    """Tells its table of each change of its size, for a block with one must be read each time."""

    header_table: _WatchedTable

    @property
    def header_table_size(self) -> int:
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        self.header_table.resize(value)


class HeadReader:
    """Reads the headers of one connection's calls, in the order of their arrival."""

    def __init__(self) -> None:
        self._decoder = _Decoder(max_header_list_size=_LARGEST_READ)
        self._table = _WatchedTable()
        self._decoder.header_table = self._table
        self._kept: dict[bytes, CallHead] = {}
        self._kept_bytes = 0

    def read(self, block: bytes) -> CallHead:
        """What a block says. Raises `ConnectionFailed` when it cannot be read, for then no later one can."""
        head = self._kept.get(block)
        if head is not None:
            return head
        if _RESIZED_OFTEN.match(block):
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, "the table's size changes more than twice before the headers")
        before = self._table.changes
        try:
            headers = [(_text(name), _text(value)) for name, value in self._decoder.decode(block, raw=True)]
        except hpack.OversizedHeaderListError as error:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, f"headers of more than {_LARGEST_READ} bytes") from error
        except (hpack.HPACKError, IndexError, ValueError) as error:
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, "the headers cannot be read") from error
        head = _head(headers)
        if self._table.changes != before:
            self._forget()
        elif len(block) <= _LARGEST_KEPT:
            self._keep(block, head)
        return head

    def _keep(self, block: bytes, head: CallHead) -> None:
        size = len(block) + sum(len(name) + len(value) for name, value in head.metadata)
        if self._kept_bytes + size > _MOST_KEPT:
            self._forget()
        self._kept[block] = head
        self._kept_bytes += size

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0


def _text(content: bytes | str) -> str:
    return content if isinstance(content, str) else bytes(content).decode("latin-1")


def _head(headers: list[tuple[str, str]]) -> CallHead:
    named = dict(headers)
    metadata: list[tuple[str, str | bytes]] = []
    timeout: float | None = None
    refusal = _refusal(named) or _refusal_of_size(headers)
    for name, value in headers:
        if name == "grpc-timeout":
            timeout = _timeout(value)
            if timeout is None:
                refusal = refusal or (400, f"grpc-timeout {value[:20]!r} is no time; expected up to eight digits and one of H M S m u n.")
        elif name.endswith(BINARY):
            parts = _binary(value)
            if parts is None:
                refusal = refusal or (400, f"the metadata {name} is no base64.")
                continue
            metadata.extend((name, part) for part in parts)
        elif not name.startswith(":") and name not in _RESERVED:
            metadata.append((name, value))
    return CallHead(
        path=named.get(":path", ""),
        metadata=tuple(metadata),
        timeout=timeout,
        encoding=named.get("grpc-encoding", "identity"),
        accepted=frozenset(named.get("grpc-accept-encoding", "").replace(" ", "").split(",")),
        refusal=refusal,
        malformed=_malformed(headers),
    )


def _malformed(headers: list[tuple[str, str]]) -> str:
    """Why they are the headers of no request; empty when they are."""
    pseudo = [name for name, _ in headers if name.startswith(":")]
    if any(name.startswith(":") for name, _ in headers[len(pseudo) :]):
        return "a pseudo-header comes after others"
    if not set(pseudo) <= _PSEUDO or len(set(pseudo)) != len(pseudo) or not set(_NEEDED) <= set(pseudo):
        return "a pseudo-header is missing, unknown or doubled"
    for name, value in headers:
        if not _NAME.fullmatch(name) or _BROKEN_VALUE.search(value):
            return "a header's name or value holds what it may not"
        if name in _OF_CONNECTIONS or (name == "te" and value != "trailers"):
            return "a header belongs to HTTP/1.1"
    return ""


def _refusal(headers: dict[str, str]) -> tuple[int, str] | None:
    if headers.get(":method") != "POST":
        return 405, "calls are made with POST; this port speaks gRPC."
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip() != CONTENT_TYPE and not content_type.startswith(f"{CONTENT_TYPE}+"):
        return 415, f"the content-type is {content_type[:100]!r}; expected {CONTENT_TYPE}: this port speaks gRPC."
    return None


def _refusal_of_size(headers: list[tuple[str, str]]) -> tuple[int, str] | None:
    size = sum(len(name) + len(value) + _OVERHEAD for name, value in headers)
    if size <= LARGEST_HEADER_LIST:
        return None
    return 431, f"the headers and metadata have {size} bytes, each with {_OVERHEAD} more; at most {LARGEST_HEADER_LIST} are taken."


def _timeout(value: str) -> float | None:
    found = _TIMEOUT.fullmatch(value)
    return int(found[1]) * _SECONDS[found[2]] if found else None


def _binary(value: str) -> list[bytes] | None:
    try:
        return [base64.b64decode(part + "=" * (-len(part) % 4), validate=True) for part in value.split(",")]
    except (binascii.Error, ValueError):
        return None
