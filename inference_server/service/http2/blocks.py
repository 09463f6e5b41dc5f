"""Headers of answers, written so that no state is shared with the peer: as literals that it does not keep."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

from inference_server.service.http2.headers import BINARY, CONTENT_TYPE

# Ends a header value early, or starts another one.
_CONTROL = re.compile(r"[^\x20-\x7e]")

# Most bytes of a status' words as they are sent: clients refuse a list of headers of more than 8 or 16 KiB, and with it the status.
_LONGEST_DETAILS = 6144
# The begin of an escape at the end.
_CUT_ESCAPE = re.compile(r"%[0-9A-F]?$")
_PLAIN = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}~"


def block_of(headers: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Headers as literals that the peer does not keep."""
    return b"".join(_literal(name.lower(), value) for name, value in headers)


def _literal(name: str, value: str | bytes) -> bytes:
    if name.endswith(BINARY):
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
        headers.append(("grpc-message", _words(details)))
    return block_of([*headers, *metadata])


def _words(details: str) -> str:
    """A status' words, percent-encoded; cut between two characters when they are too many."""
    quoted = quote(details[:_LONGEST_DETAILS], safe=_PLAIN, errors="replace")
    if len(quoted) <= _LONGEST_DETAILS:
        return quoted
    return quote(unquote(_CUT_ESCAPE.sub("", quoted[:_LONGEST_DETAILS]), errors="ignore"), safe=_PLAIN)


def plain_refusal(http_status: int, code: int, details: str) -> bytes:
    """The headers that answer what is no call: for HTTP's readers and for gRPC's."""
    kind = ("content-type", CONTENT_TYPE)
    return block_of([(":status", str(http_status)), kind, ("grpc-status", str(code)), ("grpc-message", _words(details))])
