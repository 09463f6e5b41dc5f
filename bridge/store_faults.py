"""What the errors of an object store mean. Its library tells a status and an answer in its errors' texts alone."""

from __future__ import annotations

import errno
import re

from bridge.errors import BridgeError, ConfigurationError, OverloadError, TransientError

NO_BUCKET = "NoSuchBucket"
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
# Of all objects alike, until the settings are mended: the keys, their clock, the bucket. `AccessDenied` is not among them, as it may be of
# one object, or of none where listing is denied.
_OURS = frozenset(
    {
        NO_BUCKET,
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "RequestTimeTooSkewed",
    }
)
_NOT_SIGNED_IN = 401
_DOWN = frozenset({408, 429, 502, 503, 504, 507})
# How the library tells what this machine said of a folder; at the end of a line, where no name can stand.
_LOCAL = re.compile(r"^Generic LocalFileSystem error: .*\(os error (\d+)\)$", re.MULTILINE)
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a code would tell apart; the answer to a HEAD has no body, and so no code.
_CODED = frozenset({400, 403, 404})
_NO_ANSWER = "HTTP error"
_WRONG_REGION = "incorrectly configured region"


def code_of(error: Exception) -> str:
    """S3's word for what is wrong; empty where it says none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def has_lost_its_reason(error: Exception) -> bool:
    """Whether S3 would say more of what is wrong if it were asked by GET."""
    return _status_of(error) in _CODED and not code_of(error)


def kind_of(error: Exception) -> type[BridgeError]:
    """Our class for an error of a call that was tried often enough."""
    text, status = str(error), _status_of(error)
    if code_of(error) in _OURS or status == _NOT_SIGNED_IN or _WRONG_REGION in text:
        return ConfigurationError
    if status in _DOWN or _is_disk_full(text) or (not status and _NO_ANSWER in text):
        return OverloadError
    return TransientError


def _is_disk_full(text: str) -> bool:
    found = _LOCAL.match(text)
    return found is not None and int(found[1]) in _DISK_FULL


def _status_of(error: Exception) -> int:
    """The status of the last answer; 0 where none came."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else 0
