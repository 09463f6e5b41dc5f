"""An inference server that answers as its script says, and a client of it that tries once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from tests.support.bridge.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[InferenceClient]:
    async with InferenceClient(server.address, retries=RetryPolicy(attempts=1)) as made:
        yield made
