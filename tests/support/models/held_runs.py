"""Runs of ONNX Runtime, in the test's own process, that last for as long as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from inference_server.engine.onnxruntime.engine import OnnxRuntimeEngine
from tests.support.patience import until


class HeldRuns:
    """Those that have begun; they end when `goes` is set."""

    def __init__(self) -> None:
        self.count = 0
        self.goes = threading.Event()

    async def begun(self, count: int = 1) -> None:
        await until(lambda: self.count >= count)


@contextmanager
def held_runs(*, first: int = 1000) -> Iterator[HeldRuns]:
    """The first runs that begin meanwhile end after it only."""
    held, run = HeldRuns(), OnnxRuntimeEngine.run

    def waiting(engine: OnnxRuntimeEngine, *arguments: Any) -> Any:
        held.count += 1
        assert held.count > first or held.goes.wait(100)
        return run(engine, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxRuntimeEngine, "run", waiting)
        try:
            yield held
        finally:
            held.goes.set()
