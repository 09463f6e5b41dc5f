from __future__ import annotations

import pytest

from bridge.envelopes import native
from bridge.errors import PoisonError
from bridge.job import Delivery, Job
from bridge.systems.router import Router
from tests.support.bridge.trial_bridge import TrialHandler


def _delivery(body: bytes) -> Delivery:
    return Delivery(source="local", queue="jobs", message_id="1", receipt="r", body=body)


def test_a_message_goes_to_its_system() -> None:
    job = Router([TrialHandler()]).parse(_delivery(native.write(Job(key="k", system="trial", request={"seconds": 1}))))

    assert ("k", "trial", {"seconds": 1}) == (job.key, job.system, job.request)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"\xff", "not JSON"),
        (b"[]", "expected an object"),
        (b'{"key": "k", "request": {}}', "system"),
        (b'{"system": "xray", "key": "k", "request": {}}', "'xray', which is not served here; expected one of trial"),
    ],
)
def test_a_message_for_nobody_is_poison(body: bytes, told: str) -> None:
    with pytest.raises(PoisonError, match=told):
        Router([TrialHandler()]).parse(_delivery(body))
