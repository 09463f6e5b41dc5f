"""That OpenCV's own threads take no cores from a server's work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from tests.support.inference_server.running_application import running_application


@pytest.fixture
def opencv_with_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("opencv_with_threads")
async def test_a_server_of_slides_alone_keeps_opencv_to_its_callers_thread(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()

    async with running_application(tmp_path / "models", tmp_path, services="slides"):
        assert cv2.getNumThreads() == 1
