"""Processes that read PDFs: what they may take, how they are lost, and who is told."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from inference_server.errors import InvalidDocument, Unavailable
from inference_server.tasks.documents.pages import File, open_pages
from inference_server.tasks.documents.pdf import processes as module
from inference_server.tasks.documents.pdf.pages import PdfPages
from inference_server.tasks.documents.pdf.process import Reason
from inference_server.tasks.documents.pdf.processes import PdfProcesses
from inference_server.tasks.documents.values import Limits, Page, TextLayer, TextMode
from tests.support.documents.endless_pdf import endless_pdf
from tests.support.documents.hostile_pdfs import BOMBS
from tests.support.documents.opened_pages import page_time
from tests.support.documents.printed_pages import lab_report_pdf
from tests.support.patience import until

# The least that may be set.
LITTLE = 2**27
# Of addresses: enough to start, and to read a page.
_GIVEN_KIBIBYTES = 400_000


@pytest.fixture
def ends() -> list[str]:
    """Why processes ended."""
    return []


@pytest.fixture
async def processes(ends: list[str]) -> AsyncIterator[PdfProcesses]:
    found = PdfProcesses(most=2, most_bytes=LITTLE, ended=ends.append)
    yield found
    found.close()


async def opened(processes: PdfProcesses, content: bytes) -> PdfPages:
    file = File(content=content, media_type="application/pdf", dpi=72, password="")
    async with page_time() as time:
        pages = await open_pages(file, limits=Limits(), processes=processes, time=time)
    assert isinstance(pages, PdfPages)
    return pages


async def read(pages: PdfPages, index: int = 0, mode: TextMode = TextMode.OCR) -> Page | TextLayer:
    async with page_time(seconds=60) as time:
        return await pages.read(index, mode, time)


async def drawing(processes: PdfProcesses, content: bytes) -> tuple[asyncio.Task[Any], int]:
    """A page that is being drawn, and the process that does it."""
    task = asyncio.create_task(read(await opened(processes, content)))
    await until(lambda: any(map(_works, processes.pids)))
    (pid,) = filter(_works, processes.pids)
    return task, pid


def _works(pid: int) -> bool:
    """Whether a process has computed for longer than it takes to start and to open a file."""
    with suppress(OSError):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system) > os.sysconf("SC_CLK_TCK")
    return False


async def stopped(*works: asyncio.Task[Any]) -> None:
    for work in works:
        work.cancel()
    await asyncio.wait(works)


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_ends_in_a_clear_error_and_another_document_is_read_meanwhile(
    name: str, processes: PdfProcesses, ends: list[str]
) -> None:
    bomb, report = await opened(processes, BOMBS[name]()), await opened(processes, lab_report_pdf())
    exploding = asyncio.create_task(read(bomb))
    assert not isinstance(await read(report), TextLayer)
    message = f"page 1 takes pdfium more than {LITTLE} bytes of memory.*dpi.*INFERENCE_MAX_PDF_MEMORY_BYTES"
    with pytest.raises(InvalidDocument, match=message) as refused:
        await exploding
    assert refused.value.limit == "pdf_memory_bytes"
    assert not isinstance(await read(report, 1), TextLayer)
    await until(lambda: set(ends) == {"memory"})


@pytest.fixture
def given_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives processes less memory than the server lets them have."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -v {_GIVEN_KIBIBYTES}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.mark.parametrize("what", ["page 1", "the PDF"])
async def test_memory_that_the_system_does_not_give_is_told_as_that(what: str, given_little: None, ends: list[str]) -> None:
    processes = PdfProcesses(most=1, ended=ends.append)
    content = BOMBS["a form that draws itself"]() if what == "page 1" else lab_report_pdf() + bytes(1024 * _GIVEN_KIBIBYTES)
    message = f"{what} takes pdfium more than .*INFERENCE_MAX_PDF_MEMORY_BYTES, or the system's own limit"
    with pytest.raises(InvalidDocument, match=message) as refused:
        await read(await opened(processes, content))
    assert refused.value.limit == "pdf_memory_bytes"
    await until(lambda: ends == ["memory"])
    processes.close()


# A process of its own: its memory, and that of its processes, are told by the most that they ever had.
_PROGRAM = """
import asyncio, json, resource, sys
from pathlib import Path
from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pdf.processes import PdfProcesses
from tests.unit.inference_server.tasks.documents.pdf.test_processes import opened, read

def most(who):
    return resource.getrusage(who).ru_maxrss // 1024

async def main():
    processes = PdfProcesses(most=1, most_bytes=2**27)
    before = most(resource.RUSAGE_SELF)
    for path in sys.argv[1:]:
        try:
            await read(await opened(processes, Path(path).read_bytes()))
        except InvalidDocument:
            pass
    processes.close()
    await asyncio.sleep(0.5)
    print(json.dumps([most(resource.RUSAGE_SELF) - before, most(resource.RUSAGE_CHILDREN)]))

asyncio.run(main())
"""


def test_neither_the_server_nor_a_process_takes_the_memory_that_a_bomb_asks_for(tmp_path: Path) -> None:
    for name in ("a form that draws itself", "deflate", "LZW"):
        (tmp_path / f"{name}.pdf").write_bytes(BOMBS[name]())
    command = [sys.executable, "-c", _PROGRAM, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=110, env=dict(os.environ, PYTHONPATH=str(Path.cwd()))
    )
    server, process = json.loads(done.stdout.splitlines()[-1])
    assert server < 50
    # It is looked at every 20 ms, in which a machine fills some.
    assert process < 600


async def test_a_page_that_nobody_waits_for_is_ended_and_its_place_given_to_others(processes: PdfProcesses, ends: list[str]) -> None:
    task, _ = await drawing(processes, endless_pdf())
    await stopped(task)
    await until(lambda: ends == ["given_up"])
    assert not isinstance(await read(await opened(processes, lab_report_pdf())), TextLayer)


async def test_two_documents_are_drawn_at_the_same_time(processes: PdfProcesses) -> None:
    works = [asyncio.create_task(read(await opened(processes, endless_pdf()))) for _ in range(2)]
    await until(lambda: len(processes.pids) == 2 and all(map(_works, processes.pids)))
    await stopped(*works)


async def test_documents_that_take_long_leave_their_places_to_others(processes: PdfProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASIDE_SECONDS", 0.5)
    works = [asyncio.create_task(read(await opened(processes, endless_pdf()))) for _ in range(2)]
    await until(lambda: len(processes.pids) == 2 and all(map(_works, processes.pids)))
    assert not isinstance(await read(await opened(processes, lab_report_pdf())), TextLayer)
    await stopped(*works)


async def test_files_that_hold_their_places_leave_them_when_others_have_ended_that_had_left_theirs(
    processes: PdfProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASIDE_SECONDS", 0.5)
    works: list[asyncio.Task[Any]] = []
    for count in (2, 4):
        works += [asyncio.create_task(read(await opened(processes, endless_pdf()))) for _ in range(2)]
        await until(lambda count=count: len(processes.pids) == count and all(map(_works, processes.pids)))  # type: ignore[misc]
    await stopped(*works[:2])
    assert not isinstance(await read(await opened(processes, lab_report_pdf())), TextLayer)
    await stopped(*works[2:])


async def test_one_document_leaves_the_others_a_process(processes: PdfProcesses) -> None:
    pages = await opened(processes, endless_pdf())
    works = [asyncio.create_task(read(pages)) for _ in range(4)]
    await until(lambda: any(map(_works, processes.pids)))
    assert not isinstance(await read(await opened(processes, lab_report_pdf())), TextLayer)
    await stopped(*works)


async def test_a_file_that_makes_pdfium_crash_is_told_at_once(processes: PdfProcesses, ends: list[str]) -> None:
    task, pid = await drawing(processes, endless_pdf())
    os.kill(pid, signal.SIGSEGV)
    with pytest.raises(InvalidDocument, match=r"page 1 makes pdfium fail: the file is damaged. Print the document"):
        await task
    await until(lambda: ends == ["crashed"])


async def test_what_may_be_the_fault_of_another_document_is_tried_once_more_in_a_new_process(ends: list[str]) -> None:
    processes = PdfProcesses(most=1, ended=ends.append)
    await read(await opened(processes, lab_report_pdf()))
    (first,) = processes.pids
    task = asyncio.create_task(read(await opened(processes, endless_pdf())))
    await until(lambda: _works(first))
    os.kill(first, signal.SIGSEGV)
    await until(lambda: processes.pids not in ([first], []))
    (second,) = processes.pids
    await until(lambda: _works(second))
    os.kill(second, signal.SIGSEGV)
    with pytest.raises(InvalidDocument, match="page 1 makes pdfium fail"):
        await task
    await until(lambda: ends == ["crashed", "crashed"])
    processes.close()


async def test_a_process_that_was_killed_between_two_pages_is_not_missed(processes: PdfProcesses, ends: list[str]) -> None:
    pages = await opened(processes, lab_report_pdf())
    first = await read(pages)
    for pid in processes.pids:
        os.kill(pid, signal.SIGKILL)
    assert (first == await read(pages)).all()
    await until(lambda: ends == ["killed"])


async def test_a_process_stays_for_the_next_document_unless_it_keeps_much_memory(processes: PdfProcesses, ends: list[str]) -> None:
    for _ in range(2):
        await read(await opened(processes, lab_report_pdf()), mode=TextMode.LAYER)
    assert (processes.count, ends) == (1, [])
    # With its file, which is open still.
    await opened(processes, lab_report_pdf() + b"%" + bytes(70_000_000))
    await until(lambda: ends == ["worn"])
    assert not isinstance(await read(await opened(processes, lab_report_pdf())), TextLayer)


async def test_what_is_told_to_a_whole_group_leaves_processes_to_their_server(processes: PdfProcesses, ends: list[str]) -> None:
    pages = await opened(processes, lab_report_pdf())
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(processes.pids[0], number)
    await read(pages)
    assert ends == []


async def test_one_whose_processes_are_killed_from_outside_may_be_tried_again(processes: PdfProcesses) -> None:
    task, pid = await drawing(processes, endless_pdf())
    os.kill(pid, signal.SIGKILL)
    await until(lambda: processes.pids not in ([pid], []) and _works(processes.pids[0]))
    os.kill(processes.pids[0], signal.SIGKILL)
    with pytest.raises(Unavailable, match=r"its process was killed, as is done where memory has run out. Try again"):
        await task


async def test_what_is_killed_from_outside_is_not_laid_to_its_document(
    processes: PdfProcesses, monkeypatch: pytest.MonkeyPatch, ends: list[str]
) -> None:
    pages = await opened(processes, lab_report_pdf())
    os.kill(processes.pids[0], signal.SIGKILL)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for _ in range(4):
        with pytest.raises(Unavailable, match="end as soon as they are started"):
            await read(pages)
    monkeypatch.undo()
    assert not isinstance(await read(pages), TextLayer)
    await until(lambda: set(ends) == {"killed", "not_started"})


async def test_what_is_killed_while_nobody_asks_anything_of_it_is_no_defect(processes: PdfProcesses, ends: list[str]) -> None:
    pages = await opened(processes, lab_report_pdf())
    (process,) = processes._alive
    async with processes.lease(pages) as lease:
        await lease.do(lambda process: process.open(pages, lab_report_pdf(), ""))
        os.kill(process.pid, signal.SIGKILL)
        await until(lambda: process.has_ended)
    await until(lambda: ends == ["killed"])


async def test_a_file_that_nobody_takes_any_longer_is_no_defect(processes: PdfProcesses, ends: list[str]) -> None:
    pages = await opened(processes, lab_report_pdf())
    writes, goes_on = threading.Event(), threading.Event()

    def write(piece: bytes) -> None:
        writes.set()
        goes_on.wait()
        raise ValueError("write to closed file")

    async with processes.lease(pages) as lease:
        work = asyncio.create_task(lease.do(lambda process: process.lay_over(io.BytesIO(), 0, write)))
        await until(writes.is_set)
        work.cancel()
        await asyncio.wait((work,))
        goes_on.set()
    await until(lambda: ends == ["given_up"])


async def test_a_process_that_was_killed_is_not_used_again_however_long_the_kernel_takes(
    processes: PdfProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = await opened(processes, lab_report_pdf())
    (first,) = processes.pids
    async with processes.lease(pages) as lease:
        (process,) = processes._alive
        await lease.do(lambda process: process.open(pages, lab_report_pdf(), ""))
        with monkeypatch.context() as slow:
            slow.setattr(subprocess.Popen, "kill", lambda self: None)
            process.kill(Reason.GIVEN_UP)
            assert process.has_ended
    assert not isinstance(await read(pages), TextLayer)
    assert first not in processes.pids


async def test_modules_are_found_where_the_server_has_them_relative_to_its_folder(
    processes: PdfProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["server.pyz", *sys.path])
    await opened(processes, lab_report_pdf())
    environment = Path(f"/proc/{processes.pids[0]}/environ").read_bytes().split(b"\0")
    (found,) = (entry for entry in environment if entry.startswith(b"PYTHONPATH="))
    assert found.startswith(b"PYTHONPATH=" + os.fsencode(tmp_path / "server.pyz") + b":")


async def test_a_document_that_has_cost_three_processes_is_given_up(processes: PdfProcesses, ends: list[str]) -> None:
    pages = await opened(processes, BOMBS["a form that draws itself"]())
    for _ in range(3):
        with pytest.raises(InvalidDocument, match="takes pdfium more"):
            await read(pages)
    with pytest.raises(InvalidDocument, match="not read: what was read of the document before ended pdfium 3 times"):
        await read(pages)
    await until(lambda: ends == ["memory"] * 3)


@pytest.mark.parametrize(
    ("program", "message"),
    [("/nowhere/python", "no process can be started for it .No such file"), ("/bin/false", "end as soon as they are started")],
)
async def test_without_a_process_it_may_be_tried_again(
    processes: PdfProcesses, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(Unavailable, match=message):
        await opened(processes, lab_report_pdf())
    monkeypatch.undo()
    assert (await opened(processes, lab_report_pdf())).page_count == 2


async def test_a_work_that_gets_no_thread_is_not_done_behind_the_back_of_who_was_told(
    processes: PdfProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pages, held, done = await opened(processes, lab_report_pdf()), threading.Event(), []
    pool = processes._threads
    # All threads that there are, once they have nothing more to do.
    await until(lambda: pool._idle_semaphore._value == len(pool._threads))
    working = [processes.begin(held.wait) for _ in list(pool._threads)]
    async with processes.lease(pages) as lease:
        monkeypatch.setattr(threading.Thread, "start", fail)
        with pytest.raises(Unavailable, match="no thread can be started"):
            await lease.do(lambda process: done.append(process.pid))
        monkeypatch.undo()
    held.set()
    await asyncio.wait(working)
    assert not isinstance(await read(pages), TextLayer)
    assert done == []


async def test_where_no_further_process_can_be_started_those_that_there_are_do_the_work(
    processes: PdfProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [await opened(processes, lab_report_pdf()) for _ in range(6)]
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    found = await asyncio.gather(*map(read, documents))
    assert all((page == found[0]).all() for page in found)
    assert processes.count == 1


async def test_a_process_knows_no_secret_and_holds_nothing_of_the_server(processes: PdfProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    held = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(held, True)
    await opened(processes, lab_report_pdf())
    os.close(held)
    (pid,) = processes.pids
    files = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    assert b"s3cr3t" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert ["/dev/null"] * 3 == [file for file in files if not file.startswith("socket:")]
    assert len(files) == 4
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert [line.split()[-3:-1] for line in limits.splitlines() if line.startswith(("Max core", "Max file size"))] == [["0", "0"]] * 2


def test_processes_end_with_their_server_however_it_ends() -> None:
    program = (
        "import asyncio, os, signal\n"
        "from tests.unit.inference_server.tasks.documents.pdf.test_processes import *\n"
        "async def main():\n"
        "    processes = PdfProcesses(most=2)\n"
        "    await opened(processes, lab_report_pdf())\n"
        "    _, pid = await drawing(processes, endless_pdf())\n"
        "    print(*processes.pids, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(Path.cwd()))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in done.stdout.splitlines()[-1].split()]
    assert pids
    asyncio.run(until(lambda: not any(map(_lives, pids))))


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
