"""Whatever frames are sent, and however they are cut, the server answers others and holds nothing afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.inference_server.broken_frames import sessions, throw
from tests.support.inference_server.http2 import is_served
from tests.support.inference_server.http2_transport import LOOPS, Transport, transport

PATHS = [f"/test.Transport/{name}" for name in ("One", "Count", "Total", "Both", "Large", "Wait", "Fail", "Nothing")]


@pytest.fixture(scope="module", params=LOOPS)
def fuzzed(request: pytest.FixtureRequest) -> Iterator[Transport]:
    with transport(request.param) as running:
        yield running


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(chunks=sessions(PATHS))
def test_no_frames_break_the_transport(fuzzed: Transport, chunks: list[bytes]) -> None:
    throw(fuzzed.port, chunks)
    assert is_served(fuzzed.port)
    assert fuzzed.comes_to_rest() == {}
    assert (fuzzed.escaped, "internal_error" in fuzzed.reasons) == ([], False)
