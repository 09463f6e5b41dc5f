"""How files of an analysis come to where they are wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_server.errors import InferenceError
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.outputs.artifacts import deliver
from inference_server.tasks.slides.values import Chunk

NAMES = ("analysis.json", "heatmap.png", "overlay.png")


async def _nowhere(chunk: Chunk) -> None:
    raise AssertionError(chunk.name)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(name)
    return folder


async def test_a_report_lies_there_only_when_all_other_files_do(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    storage = Storage(read_roots=(str(tmp_path),), write_roots=(str(tmp_path),))
    (out / "overlay.png").mkdir(parents=True)
    with pytest.raises(InferenceError):
        await deliver(made, NAMES, storage=storage, output_uri=str(out), stream=_nowhere)
    assert {"heatmap.png", "overlay.png"} == {path.name for path in out.iterdir()}

    (out / "overlay.png").rmdir()
    delivered = await deliver(made, NAMES, storage=storage, output_uri=str(out), stream=_nowhere)
    assert list(NAMES) == [each.name for each in delivered]
    assert list(NAMES) == [(out / name).read_text() for name in NAMES]


async def test_streamed_files_come_in_the_order_in_which_they_are_told(made: Path, tmp_path: Path) -> None:
    streamed = []

    async def keep(chunk: Chunk) -> None:
        streamed.append(chunk.name)

    storage = Storage(read_roots=(str(tmp_path),), write_roots=(str(tmp_path),))
    await deliver(made, NAMES, storage=storage, output_uri="", stream=keep)
    assert list(NAMES) == streamed
