"""What stores failed with, in words that say how to mend it. Their own texts name places inside of them, and are kept for the logs."""

from __future__ import annotations

import os
import re

from inference_server.storage.web.requests import WebFailure

_STATUS = re.compile(r"status code: (\d{3})\b")
# As S3 names what was wrong (SlowDown, ExpiredToken); to HEAD it names nothing.
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
# Those by which it refuses all that is asked with the keys of the moment, until they are renewed or the clock is set.
_KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed"}
)
# Parts of obstore's texts, and what they mean. Where the machine is asked for credentials comes before what it answers.
_MEANINGS = (
    (r"//(?:169\.254\.|metadata\b)|token request", "no credentials were found; give them as the store's own tools take them"),
    (r"redirect without LOCATION", "it says that the bucket lies elsewhere: AWS_REGION or AWS_ENDPOINT_URL is not the bucket's"),
    (r"Account must be specified", "AZURE_STORAGE_ACCOUNT_NAME is not set"),
    (r"non-partial response", "it sends whole files where parts are asked for"),
    (r"Requested \d+\.\.\d+, got", "it sends other parts than are asked for"),
    (r"Content-Length Header missing", "it does not tell how much it sends"),
    (r"builder error", "its address is http, which INFERENCE_ALLOW_HTTP does not allow"),
    (r"TooManyRedirects|following redirect", "it sends on and on to other places"),
    (r"TimedOut|timed out", "it does not answer in time"),
    (r"\bInvalidCertificate\(", "its certificate is not trusted"),
    (r'"dns error"', "the name of its host leads nowhere"),
    (r"error sending request", "no connection to it"),
    (r"error decoding response body|request or response body", "its answer is cut short"),
)
_OFTEN_MEANS = {400: ": credentials that have expired, or an AWS_REGION that is not the bucket's"}


def reason(error: Exception) -> str:
    """In the operating system's words where it was the one that failed, else what is known of a store's text."""
    if isinstance(error, WebFailure):
        return str(error)
    if found := number(error):
        return os.strerror(found)
    text = str(error)
    for part, meaning in _MEANINGS:
        if re.search(part, text):
            return meaning
    status = _STATUS.search(text)
    if not status:
        return type(error).__name__
    code = _code(error)
    if code in _KEYS:
        return f"HTTP {status[1]} {code}: renew the server's credentials, or set its clock"
    return f"HTTP {status[1]} {code}" if code else f"HTTP {status[1]}{_OFTEN_MEANS.get(int(status[1]), '')}"


def are_keys_refused(error: Exception) -> bool:
    """Whether a store takes the server's keys no longer, or not yet: that says nothing of the one object that was asked for."""
    return _code(error) in _KEYS


def _code(error: Exception) -> str:
    """S3's word for what was wrong; empty where it has none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def number(error: Exception) -> int:
    """The operating system's number of an error; 0 where it was another's."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else getattr(error, "errno", None) or 0
