from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.inference_server.http2 import RawPeer
from tests.support.inference_server.http2_transport import LOOPS, Transport, transport


@pytest.fixture(params=LOOPS)
def running(request: pytest.FixtureRequest) -> Iterator[Transport]:
    """A server on each event loop that it is run on; at rest, with nothing escaped, when the test is over."""
    with transport(request.param) as running:
        yield running


@pytest.fixture
def peer(running: Transport) -> Iterator[RawPeer]:
    """A client that has greeted it."""
    with RawPeer(running.port) as peer:
        yield peer
