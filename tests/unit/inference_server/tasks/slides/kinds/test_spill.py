"""Records on local disk."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import pytest

from inference_server.errors import Unavailable
from inference_server.tasks.slides.kinds.spill import Spill


def test_records_come_back_by_their_numbers() -> None:
    spill = Spill(4)
    for number, record in ((2, b"two"), (0, b""), (1, b"one" * 1000)):
        spill.put(number, record)
    assert [b"", b"one" * 1000, b"two", None] == [spill.get(number) for number in range(4)]


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spill = Spill(1)
    spill.put(0, b"x")
    assert [] == list(tmp_path.iterdir())


def test_a_disk_that_takes_no_more_is_told() -> None:
    spill = Spill(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(Unavailable, match="TMPDIR"):
            spill.put(0, b"x" * 8192)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
