"""What a process answers is believed no more than what a stranger sends."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pdf.process import Ended, PdfProcess, Reason

# Says that it is ready, reads what it is asked for, and answers each request with the next line of a file: a head, and the size of a body.
_PROGRAM = """#!{python}
import json, socket, struct, sys
channel = socket.socket(fileno=int(sys.argv[-2]))
stream = channel.makefile("rb")
def send(head, size, body=0):
    told = json.dumps(head).encode()
    channel.sendall(struct.pack("<IQ", len(told), size) + told + bytes(body))
send(dict(ready=True), 0)
for line in open({answers!r}):
    head, size, body = json.loads(line)
    told, length = struct.unpack("<IQ", stream.read(12))
    stream.read(told + length)
    send(head, size, body)
stream.read()
"""
_PAGE = {"mode": "ocr", "dpi": 72, "lowest_dpi": 36, "most_pixels": 100}


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PdfProcess]:
    """A process that a file has taken over, with its answers: heads, the sizes that they tell, and the bytes that come."""

    def start(*answers: tuple[Any, int, int], most_bytes: int = 2**27) -> PdfProcess:
        (tmp_path / "answers").write_text("\n".join(map(json.dumps, answers)))
        program = tmp_path / "program"
        program.write_text(_PROGRAM.format(python=sys.executable, answers=str(tmp_path / "answers")))
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return PdfProcess(most_bytes=most_bytes)

    return start


@pytest.mark.parametrize(
    "answer",
    [
        ({"picture": [10, 11]}, 330, 330),
        ({"picture": [10, 10]}, 299, 299),
        ({"picture": [-10, -10]}, 300, 300),
        ({"picture": [2**40, 2**40]}, 3 * 2**80 % 2**63, 0),
        ({"picture": "x"}, 0, 0),
        ({"layer": {"lines": [["a", 1.0, [["a", 1.0, ""]]]], "size": [9, 9], "sound": True, "rotation": 0}}, 32, 32),
        ({"layer": {"lines": 5, "size": [9, 9], "sound": True, "rotation": 0}}, 0, 0),
        ({"layer": {}}, 2**40, 0),
        ({}, 0, 0),
    ],
)
def test_a_page_that_is_none_ends_the_process(answering: Callable[..., PdfProcess], answer: tuple[Any, int, int]) -> None:
    process = answering(({"done": True, "pages": 1}, 0, 0), answer)
    assert process.open(object(), b"", "") == 1
    with pytest.raises(Ended) as ended:
        process.page(0, **_PAGE)
    assert ended.value.reason is Reason.ASTRAY
    assert process.has_ended


@pytest.mark.parametrize("pages", [-1, 2**20, "1", None])
def test_a_count_of_pages_that_is_none_ends_the_process(answering: Callable[..., PdfProcess], pages: object) -> None:
    with pytest.raises(Ended) as ended:
        answering(({"done": True, "pages": pages}, 0, 0)).open(object(), b"", "")
    assert ended.value.reason is Reason.ASTRAY


def test_neither_messages_nor_limits_of_a_process_are_passed_on_as_they_are(answering: Callable[..., PdfProcess]) -> None:
    process = answering(({"refused": "x" * 10**6, "limit": "made_up"}, 0, 0))
    with pytest.raises(InvalidDocument) as refused:
        process.open(object(), b"", "")
    assert (len(str(refused.value)), refused.value.limit) == (1000, "")
    process.kill(Reason.CLOSED)


def test_a_file_that_never_ends_ends_the_process(answering: Callable[..., PdfProcess], tmp_path: Path) -> None:
    with (tmp_path / "pages").open("w+b") as pages, (tmp_path / "file").open("w+b") as file:
        process = answering(({"done": True, "pages": 1}, 0, 0), ({"piece": True}, 2**40, 0))
        process.open(object(), b"", "")
        with pytest.raises(Ended) as ended:
            process.lay_over(pages, 0, file.write)
        assert ended.value.reason is Reason.ASTRAY
        assert file.tell() == 0


def test_a_file_that_grows_beyond_its_bound_is_told_as_too_large(answering: Callable[..., PdfProcess], tmp_path: Path) -> None:
    with (tmp_path / "pages").open("w+b") as pages, (tmp_path / "file").open("w+b") as file:
        process = answering(({"done": True, "pages": 1}, 0, 0), ({"piece": True}, 1000, 1000), most_bytes=999)
        process.open(object(), b"", "")
        with pytest.raises(Ended) as ended:
            process.lay_over(pages, 0, file.write)
    assert ended.value.reason is Reason.MEMORY


def test_a_process_whose_file_has_no_room_is_given_up_and_not_told_as_astray(answering: Callable[..., PdfProcess], tmp_path: Path) -> None:
    def full(piece: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with (tmp_path / "pages").open("w+b") as pages:
        process = answering(({"done": True, "pages": 1}, 0, 0), ({"piece": True}, 1000, 1000))
        process.open(object(), b"", "")
        with pytest.raises(OSError, match="No space"):
            process.lay_over(pages, 0, full)
    assert process.has_ended
    assert process.reaped() is Reason.GIVEN_UP


def test_why_a_process_cannot_start_is_told_where_the_servers_errors_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    process = PdfProcess(most_bytes=2**30)

    with pytest.raises(Ended) as ended:
        process.open(object(), b"%PDF-1.4", "")

    assert ended.value.reason is Reason.NOT_STARTED
    process.reaped()
    assert capfd.readouterr().err == "no such library\n"
