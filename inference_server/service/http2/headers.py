"""Headers of calls: read with HPACK, and written so that no state is shared with the peer.

Clients send the same block of bytes for call after call; what it said is kept as long as it means the same.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

import hpack
from hpack.table import HeaderTable

from inference_server.service.http2.frames import ConnectionFailed, ErrorCode

Metadata = tuple[tuple[str, str | bytes], ...]

# Bytes of one call's headers, as they are told to the peer.
LARGEST_HEADER_LIST = 16 * 1024

CONTENT_TYPE = "application/grpc"

# Blocks that are kept by connection, and the bytes of the largest one kept.
_MOST_KEPT = 64
_LARGEST_KEPT = 2048

_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")

# Told by the transport, or made by it: no metadata of the caller's.
_RESERVED = frozenset({"te", "content-type", "grpc-encoding", "grpc-accept-encoding", "grpc-timeout", "grpc-message-type", "host"})

_BINARY = "-bin"
# Ends a header value early, or starts another one.
_CONTROL = re.compile(r"[^\x20-\x7e]")


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


class _WatchedTable(HeaderTable):
    """Counts its changes: as long as there is none, the same block means the same."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    def _shrink(self) -> None:
        self.changes += 1
        super()._shrink()


class HeadReader:
    """Reads the headers of one connection's calls, in the order of their arrival."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=LARGEST_HEADER_LIST)
        self._table = _WatchedTable()
        self._decoder.header_table = self._table
        self._kept: dict[bytes, CallHead] = {}

    def read(self, block: bytes) -> CallHead:
        """What a block says. Raises `ConnectionFailed` when it cannot be read, for then no later one can."""
        head = self._kept.get(block)
        if head is not None:
            return head
        before = self._table.changes
        try:
            headers = [(_text(name), _text(value)) for name, value in self._decoder.decode(block, raw=True)]
        except hpack.OversizedHeaderListError as error:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, f"headers of more than {LARGEST_HEADER_LIST} bytes") from error
        except (hpack.HPACKError, IndexError, ValueError) as error:
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, "the headers cannot be read") from error
        head = _head(headers)
        if self._table.changes != before:
            self._kept.clear()
        elif len(block) <= _LARGEST_KEPT:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[block] = head
        return head


def _text(content: bytes | str) -> str:
    return content if isinstance(content, str) else bytes(content).decode("latin-1")


def _head(headers: list[tuple[str, str]]) -> CallHead:
    named = dict(headers)
    metadata: list[tuple[str, str | bytes]] = []
    timeout: float | None = None
    refusal = _refusal(named)
    for name, value in headers:
        if name == "grpc-timeout":
            timeout = _timeout(value)
            if timeout is None:
                refusal = refusal or (400, f"grpc-timeout {value[:20]!r} is no time; expected up to eight digits and one of H M S m u n.")
        elif name.endswith(_BINARY):
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
    )


def _refusal(headers: dict[str, str]) -> tuple[int, str] | None:
    if headers.get(":method") != "POST":
        return 405, "calls are made with POST; this port speaks gRPC."
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip() != CONTENT_TYPE and not content_type.startswith(f"{CONTENT_TYPE}+"):
        return 415, f"the content-type is {content_type[:100]!r}; expected {CONTENT_TYPE}: this port speaks gRPC."
    return None


def _timeout(value: str) -> float | None:
    found = _TIMEOUT.fullmatch(value)
    return int(found[1]) * _SECONDS[found[2]] if found else None


def _binary(value: str) -> list[bytes] | None:
    try:
        return [base64.b64decode(part + "=" * (-len(part) % 4), validate=True) for part in value.split(",")]
    except (binascii.Error, ValueError):
        return None


def block_of(headers: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Headers as literals that the peer does not keep."""
    return b"".join(_literal(name.lower(), value) for name, value in headers)


def _literal(name: str, value: str | bytes) -> bytes:
    if name.endswith(_BINARY):
        content = base64.b64encode(value if isinstance(value, bytes) else value.encode()).rstrip(b"=")
    else:
        content = _CONTROL.sub("?", value.decode("latin-1") if isinstance(value, bytes) else value).encode()
    return b"\x00" + _string(name.encode()) + _string(content)


def _string(content: bytes) -> bytes:
    """A string after its length, whose prefix has seven bits."""
    size = len(content)
    if size < 0x7F:
        return bytes((size,)) + content
    encoded = bytearray((0x7F,))
    size -= 0x7F
    while size >= 0x80:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded) + content


# The dynamic table that we never write to is made empty before a connection's first block, so that no bound on it can be passed.
NO_TABLE = b"\x20"

_STATUS_200 = b"\x88"
RESPONSE_HEAD = _STATUS_200 + block_of([("content-type", CONTENT_TYPE), ("grpc-accept-encoding", "identity,deflate,gzip")])
TRAILERS_OK = block_of([("grpc-status", "0")])


def trailers(code: int, details: str, metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    """The headers that end a call."""
    if not (code or details or metadata):
        return TRAILERS_OK
    headers: list[tuple[str, str | bytes]] = [("grpc-status", str(code))]
    if details:
        headers.append(("grpc-message", quote(details, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~", errors="replace")))
    return block_of([*headers, *metadata])


def plain_refusal(status: int) -> bytes:
    """The headers that answer what is no call."""
    return block_of([(":status", str(status)), ("content-type", "text/plain")])
