"""What a web server says of a file in the head of an answer (RFC 9110), and how it is asked for a part of one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from inference_server.storage.web.requests import Reply

if TYPE_CHECKING:
    from obstore import ObjectMeta

_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(?:(\d{1,18})|\*)")
# obstore's word for no time.
_NO_TIME = datetime.fromtimestamp(0, UTC)


def asking_for(span: tuple[int, int] | None, condition: str = "") -> dict[str, str]:
    """Headers that ask for a file, or a part of it from a start to an end. `condition`: the entity tag that it must have, if any."""
    headers = {} if span is None else {"Range": f"bytes={span[0]}-{span[1] - 1}"}
    return headers | ({"If-Match": condition} if condition else {})


def length(reply: Reply) -> int:
    """Bytes of a body; 0 where that is not told."""
    return int(reply.headers.get("content-length", "0"))


def whole_size(reply: Reply) -> int:
    """Bytes of the file; 0 where an answer does not tell them."""
    if reply.status == 200:
        return length(reply)
    found = _RANGE.fullmatch(reply.headers.get("content-range", ""))
    return int(found[3] or 0) if found else 0


def span(reply: Reply) -> tuple[int, int] | None:
    """From where to where the part reaches that an answer brings; None where it does not tell that."""
    found = _RANGE.fullmatch(reply.headers.get("content-range", ""))
    return (int(found[1]), int(found[2]) + 1) if found and found[1] else None


def is_encoded(reply: Reply) -> bool:
    """Whether a body is other than the file's bytes: compressed."""
    return reply.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")


def says_empty(reply: Reply) -> bool:
    """Whether an answer tells that the file has no bytes."""
    return reply.status == 416 or (reply.status == 200 and reply.headers.get("content-length") == "0")


def meta(uri: str, size: int, *replies: Reply) -> ObjectMeta:
    """What obstore would tell of a file: of each thing the first word."""
    told = {name: value for reply in reversed(replies) for name, value in reply.headers.items()}
    try:
        changed = parsedate_to_datetime(told.get("last-modified", ""))
    except (OverflowError, ValueError):
        changed = _NO_TIME
    # Where no zone is told it is UTC.
    return {
        "path": uri,
        "last_modified": changed.replace(tzinfo=changed.tzinfo or UTC),
        "size": size,
        "e_tag": told.get("etag"),
        "version": None,
    }
