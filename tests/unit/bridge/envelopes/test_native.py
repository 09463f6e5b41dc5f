from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.envelopes import native
from bridge.errors import PoisonError
from bridge.job import Job


def envelope(**changed: Any) -> bytes:
    return json.dumps({"system": "wsi", "key": "job-1", "request": {"slide_uri": "/a.svs"}, **changed}).encode()


def test_what_is_written_is_read_back() -> None:
    job = Job(key="job-1", system="wsi", request={"slide_uri": "/a.svs"}, reply_queue="answers", priority=2)
    read = native.read(native.write(job))
    assert (read.key, read.system, read.request, read.reply_queue, read.priority) == (
        job.key,
        job.system,
        job.request,
        job.reply_queue,
        job.priority,
    )


def test_keys_that_are_not_known_are_ignored() -> None:
    assert native.read(envelope(submitted_at="now", trace={"id": 1})).key == "job-1"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not json", "the message is not JSON .* expected .*request"),
        (b"", "the message is not JSON"),
        (b"\xff\xfe\x00", "the message is not JSON"),
        (b"[" * 100_000, "the message is not JSON"),
        (b"[1]", "the message is a JSON list; expected an object"),
        (b"null", "the message is a JSON null"),
        (envelope(key=None), "key: input should be a valid string"),
        (envelope(key="   "), "key: is empty"),
        (envelope(key="k" * 201), "key: string should have at most 200 characters"),
        (envelope(request="slide"), "request: input should be a valid dictionary"),
        (envelope(priority=-1), "priority: input should be greater than or equal to 0"),
        (b'{"key": "1", "request": {}}', "system: field required"),
        (b"{}", "system: field required; key: field required; request: field required"),
    ],
)
def test_a_message_that_is_wrong_names_the_field_and_what_was_expected(body: bytes, reason: str) -> None:
    with pytest.raises(PoisonError, match=reason):
        native.read(body)


@pytest.mark.parametrize(("key", "reason"), [(" ", "key: is empty"), ("k" * 201, "key: string should have at most 200 characters")])
def test_a_job_whose_key_cannot_be_sent_is_refused_with_the_reason(key: str, reason: str) -> None:
    with pytest.raises(PoisonError, match=reason):
        native.write(Job(key=key, system="wsi", request={}))


def test_what_a_message_says_stays_out_of_the_error() -> None:
    with pytest.raises(PoisonError) as caught:
        native.read(envelope(request="NIK 3171234567890123"))
    assert "3171234567890123" not in str(caught.value)
