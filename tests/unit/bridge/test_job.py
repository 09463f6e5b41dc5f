"""What can be a job's key."""

from __future__ import annotations

import pytest

from bridge.errors import PoisonError
from bridge.job import Job


@pytest.mark.parametrize("key", ["", "a\x00b", "half of a pair: \ud800", "x" * 501])
def test_a_key_that_no_ledger_could_hold_is_poison(key: str) -> None:
    with pytest.raises(PoisonError, match="the job's key is not right; expected 1 to 500 characters"):
        Job(key=key, system="trial", request={})


@pytest.mark.parametrize("key", ["1", "x" * 500, "wsi:tenant/upload", "µ – 語"])
def test_any_other_text_is_a_key(key: str) -> None:
    assert key == Job(key=key, system="trial", request={}).key
