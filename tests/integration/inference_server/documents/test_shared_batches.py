"""Lines of several callers' documents through the scheduler, with the built-in models."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from inference_server.engine.onnxruntime.engine import OnnxRuntimeEngine, OnnxRuntimeLoader
from inference_server.engine.runtimes import Runtimes
from inference_server.engine.selection.selector import EngineSelector
from inference_server.scheduler.port import Caller
from inference_server.storage.storage import Storage
from inference_server.tasks.documents.reader import DocumentReader, DocumentRequest
from inference_server.tasks.documents.recognition.recogniser import LINE_HEIGHT
from inference_server.tasks.documents.values import PageResult
from tests.support.documents.pdf import Text, pdf
from tests.support.documents.printed_pages import SIZE
from tests.support.inference_server.serving import serving
from tests.support.patience import until

# As wide as each other, but for what the detector finds: of one width bucket.
LINES = ("Leukosit 7.2", "Leukosit 7.5", "Leukosit 8.4", "Leukosit 9.3")


class HeldLines:
    """Runs of the recogniser, which last until `goes` is set; the detector's do not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Rows of each, in the order in which they began.
        self.rows: list[int] = []
        self.goes = threading.Event()
        run = OnnxRuntimeEngine.run

        def waiting(engine: OnnxRuntimeEngine, inputs: Any, *arguments: Any) -> Any:
            if inputs["x"].shape[2] == LINE_HEIGHT:
                self.rows.append(len(inputs["x"]))
                assert self.goes.wait(100)
            return run(engine, inputs, *arguments)

        monkeypatch.setattr(OnnxRuntimeEngine, "run", waiting)


async def test_lines_of_all_callers_that_wait_share_a_batch(text_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = OnnxRuntimeLoader(threads=1)
    selector = EngineSelector(Runtimes(device="cpu", reference=cpu, candidates=(cpu,), machine={"cpu": "test"}))
    async with serving(text_models, selector) as inference:
        [recogniser] = [each for each in inference.served() if each.facts.name == "ppocrv6_small_rec"]
        reader = DocumentReader(inference, Storage(read_roots=(), write_roots=()), text_models)

        async def read(line: str, client: str) -> str:
            page = pdf(((Text(text=line, x=20, y=40),),), size=SIZE)
            events = [event async for event in reader.read(DocumentRequest(content=page), Caller(client=client))]
            return events[0].text if isinstance(events[0], PageResult) else ""

        lines = HeldLines(monkeypatch)
        # One for each instance of the model, which is busy then.
        held = [asyncio.create_task(read(line, "first")) for line in LINES[:2]]
        await until(lambda: len(lines.rows) == 2)
        queued = [asyncio.create_task(read(line, client)) for line, client in zip(LINES[2:], ("second", "third"), strict=True)]
        await until(lambda: recogniser.pending == 2)
        lines.goes.set()
        assert list(LINES) == await asyncio.gather(*held, *queued)
    assert [1, 1, 2] == lines.rows
