"""Tesseract as the last resort: the real program where the machine has it, and one that stands in its place where it has not."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

import numpy as np
import pypdf
import pytest
from PIL import Image

from bridge.errors import PermanentError
from bridge.systems.cards.finding import fields_in
from bridge.systems.cards.reading import tesseract as tesseract_module
from bridge.systems.cards.reading.drawing import drawn
from bridge.systems.cards.reading.tesseract import Tesseract
from bridge.systems.cards.reading.wrapping import page_of
from tests.support.documents.composed_cards import identity_card
from tests.support.documents.pdf import Text, pdf
from tests.support.documents.printed_pages import image_file, images_of
from tests.support.documents.worn_pages import Wear, scanned
from tests.support.moved_clock import moved_clock
from tests.support.patience import PATIENCE_SECONDS, until

needs_tesseract = pytest.mark.skipif(shutil.which("tesseract") is None, reason="Tesseract is not on this machine")
LINES = ("NIK : 3273010203850001", "Nama : BUDI SANTOSO")
# For programs that do not look at it.
PICTURE = b"\x89PNG\r\n\x1a\nand so on"


def page(*lines: str) -> list[Text]:
    return [Text(text=line, x=40, y=60 + 40 * number, size=20) for number, line in enumerate(lines)]


def encrypted(content: bytes) -> bytes:
    writer, out = pypdf.PdfWriter(clone_from=io.BytesIO(content)), io.BytesIO()
    writer.encrypt("secret")
    writer.write(out)
    return out.getvalue()


CARD = pdf([page(*LINES)])


def languages(folder: Path, *names: str) -> str:
    """A folder of these languages, the machine's own; where it has no Indonesian, English stands in its place."""
    told = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=True)
    own = Path((told.stdout or told.stderr).split('"')[1])
    folder.mkdir()
    for name in names:
        data = own / f"{name}.traineddata"
        (folder / data.name).symlink_to(data if data.exists() else own / "eng.traineddata")
    return str(folder)


def program(folder: Path, *told: str, reads: str = "cat > /dev/null; echo read") -> str:
    """Stands in Tesseract's place, and tells these languages."""
    path = folder / "tesseract"
    listed = "; ".join(f"echo {name}" for name in ("List of available languages:", *told))
    path.write_text(f'#!/bin/sh\n[ "$1" = --list-langs ] && {{ {listed}; exit 0; }}\n{reads}\n')
    path.chmod(0o755)
    return str(path)


def is_there(number: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@needs_tesseract
async def test_a_card_is_read_from_a_picture_and_from_the_pages_of_a_pdf(tmp_path: Path) -> None:
    tesseract = Tesseract(data=languages(tmp_path / "data", "ind", "eng", "osd"))
    assert "" == await tesseract.lack()
    for text in (
        await tesseract.read(image_file(images_of(CARD)[0], "PNG")),
        await tesseract.read(pdf([page(LINES[0]), page(LINES[1])])),
    ):
        assert all(part in text for part in ("3273010203850001", "BUDI SANTOSO"))
        assert text.index("3273010203850001") < text.index("BUDI SANTOSO")


@needs_tesseract
@pytest.mark.parametrize(
    ("there", "lack"),
    [
        (("eng", "osd"), "Tesseract lacks the language ind; install tesseract-ocr-ind, or set TESSDATA_PREFIX"),
        (("ind", "eng"), "Tesseract lacks the language osd;"),
        (("osd",), "Tesseract lacks the languages ind, eng; install tesseract-ocr-ind tesseract-ocr-eng,"),
    ],
)
async def test_a_language_that_is_missing_is_named_and_nothing_is_read_without_it(
    tmp_path: Path, there: tuple[str, ...], lack: str
) -> None:
    tesseract = Tesseract(data=languages(tmp_path / "data", *there))
    assert (await tesseract.lack()).startswith(lack)
    with pytest.raises(PermanentError, match=lack):
        await tesseract.read(CARD)


async def test_a_machine_without_it_is_told_so() -> None:
    assert "Tesseract is not on this machine" in await Tesseract(program="no-such-program").lack()


async def test_a_program_that_is_none_or_hangs_is_told_and_stops_nobody(tmp_path: Path) -> None:
    broken, hanging = tmp_path / "broken", tmp_path / "hanging"
    broken.write_bytes(b"\x7fELF")
    hanging.write_text("#!/bin/sh\nsleep 60\n")
    for path in (broken, hanging):
        path.chmod(0o755)
    assert "Tesseract cannot be started" in await Tesseract(program=str(broken)).lack()
    assert "did not tell its languages within 0.3 s" in await Tesseract(program=str(hanging), seconds=0.3).lack()


async def test_its_data_and_one_thread_are_all_that_it_is_told_of_our_surroundings(tmp_path: Path) -> None:
    tesseract = Tesseract(program=program(tmp_path, "ind", "eng", "osd", reads="cat > /dev/null; env; echo $*"), data="/opt/tessdata")
    told = (await tesseract.read(PICTURE)).split("\n")
    assert {"OMP_THREAD_LIMIT=1", "TESSDATA_PREFIX=/opt/tessdata", "- - -l ind+eng --psm 1"} <= set(told)
    assert [] == [line for line in told if line.startswith(("HOME=", "PATH=/root", "VIRTUAL_ENV="))]


async def test_a_language_that_is_installed_meanwhile_is_found(tmp_path: Path) -> None:
    tesseract = Tesseract(program=program(tmp_path, "eng", "osd"))
    assert "lacks the language ind" in await tesseract.lack()
    program(tmp_path, "ind", "eng", "osd")
    assert ("", "read\n") == (await tesseract.lack(), await tesseract.read(PICTURE))


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each program that is being started: it may run already while whoever starts it pauses."""
    under_way: list[int] = []
    start = asyncio.create_subprocess_exec

    async def noted(*command: str, **choices: Any) -> Process:
        under_way.append(1)
        try:
            return await start(*command, **choices)
        finally:
            under_way.pop()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    return under_way


async def test_a_program_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, starting: list[int]) -> None:
    clock, started = moved_clock(monkeypatch), tmp_path / "started"
    started.touch()
    tesseract = Tesseract(program=program(tmp_path, "ind", "eng", "osd", reads=f"echo $$ >> {started}; sleep 600"), seconds=100)
    for content in (PICTURE, CARD):
        before = len(started.read_text().split())
        reading = asyncio.create_task(tesseract.read(content))
        await until(lambda: len(started.read_text().split()) > before and not starting)  # noqa: B023
        clock.sleep(101)
        with pytest.raises(PermanentError, match=r"did not read the document within 100 s"):
            await asyncio.wait_for(reading, 60)  # what it has started holds its pipes, and is ended too
    numbers = [int(line) for line in started.read_text().split()]
    assert not any(map(is_there, numbers))


async def test_a_program_that_starts_when_the_time_is_up_is_not_waited_for_and_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock, begun, goes_on = moved_clock(monkeypatch), asyncio.Event(), asyncio.Event()
    start, started = asyncio.create_subprocess_exec, list[Process]()

    async def late(*command: str, **choices: Any) -> Process:
        begun.set()
        while not goes_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):  # as asyncio does, which waits for pipes that it has not connected
                await goes_on.wait()
        started.append(await start(*command, **choices))
        return started[-1]

    tesseract = Tesseract(program=program(tmp_path, "ind", "eng", "osd", reads="sleep 600"), seconds=100)
    assert not await tesseract.lack()
    monkeypatch.setattr(asyncio, "create_subprocess_exec", late)
    reading = asyncio.create_task(tesseract.read(PICTURE))
    await begun.wait()
    clock.sleep(101)
    with pytest.raises(PermanentError, match=r"did not read the document within 100 s"):
        await asyncio.wait_for(reading, 60)
    goes_on.set()
    await until(lambda: [process.returncode for process in started] == [-signal.SIGKILL])


async def test_nothing_is_drawn_any_more_for_a_document_that_was_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started, start = [], asyncio.create_subprocess_exec

    async def noted(*command: str, **choices: Any) -> Process:
        started.append(await start(*command, **choices))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    tesseract = Tesseract(program=program(tmp_path, "ind", "eng", "osd", reads="exit 3"))
    with pytest.raises(PermanentError, match="could not read the document") as failed:
        await tesseract.read(pdf([page("one")] * 10))
    assert (3, []) == (len(started), [process for process in started if process.returncode is None]), failed


async def test_a_program_that_cannot_be_started_any_more_is_a_reason_as_any_other(tmp_path: Path) -> None:
    tesseract = Tesseract(program=program(tmp_path, "ind", "eng", "osd"))
    assert "" == await tesseract.lack()
    (tmp_path / "tesseract").write_bytes(b"\x7fELF")
    with pytest.raises(PermanentError, match=r"Tesseract could not be started for the document \(Exec format error\)"):
        await tesseract.read(PICTURE)


async def test_a_program_that_has_just_ended_by_itself_hides_no_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tesseract = Tesseract(program=program(tmp_path, "ind", "eng", "osd", reads="exit 0"))
    assert "" == await tesseract.lack()

    async def busy(process: Process, given: bytes | None = None) -> None:
        """Until it is gone: the loop is not told so meanwhile."""
        monkeypatch.undo()
        for _ in range(300):
            if not is_there(process.pid):
                break
            time.sleep(0.01)  # noqa: ASYNC251
        raise TimeoutError

    monkeypatch.setattr(Process, "communicate", busy)
    with pytest.raises(PermanentError, match="did not read the document within"):
        await tesseract.read(PICTURE)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another program's memory")
async def test_a_picture_that_wants_all_memory_is_given_up(tmp_path: Path) -> None:
    greedy = f"exec {sys.executable} -c 'bytearray(3 << 30)'"
    with pytest.raises(PermanentError, match=r"ended with status 1; the document may be broken, or want more than 2 GB of memory"):
        await Tesseract(program=program(tmp_path, "ind", "eng", "osd", reads=greedy)).read(PICTURE)


@needs_tesseract
async def test_what_is_no_picture_is_not_taken_for_a_list_of_files_to_read(tmp_path: Path) -> None:
    """Tesseract would read those of this machine, and tell what stands in them as if the document said it."""
    other = tmp_path / "another_card.png"
    other.write_bytes(image_file(images_of(CARD)[0], "PNG"))
    tesseract = Tesseract(data=languages(tmp_path / "data", "ind", "eng", "osd"))
    assert "3273010203850001" in await tesseract.read(other.read_bytes())
    named = str(other).encode()
    for content in (named + b"\n", b"\xef\xbb\xbf" + named, "\n".join(LINES).encode(), b"GIF\n", b"BM\n" + named, b"\0"):
        with pytest.raises(PermanentError) as refused:
            await tesseract.read(content)
        assert "the document is nothing that Tesseract is given: PNG, JPEG, TIFF, WebP, GIF, BMP, JPEG 2000, PDF" == str(refused.value)


@needs_tesseract
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000"])
async def test_pictures_of_every_format_that_it_is_given_are_read(tmp_path: Path, kind: str) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.asarray(images_of(CARD)[0])).convert("L").save(picture, kind)
    assert "3273010203850001" in await Tesseract(data=languages(tmp_path / "data", "ind", "eng", "osd")).read(picture.getvalue())


@needs_tesseract
async def test_a_card_on_its_head_is_read_turned_where_that_was_not_noticed(tmp_path: Path) -> None:
    """As it is of half of such cards."""
    card = identity_card(3)
    scan = scanned(card.page, Wear(dpi=200), 3).rotate(180)
    tesseract = Tesseract(data=languages(tmp_path / "data", "ind", "eng", "osd"))
    text = await tesseract.read(image_file(scan, "JPEG"), found=lambda text: fields_in("KTP", text))
    assert card.fields["nik"] in text


def turned_pixels(picture: Image.Image, kind: str, **how: Any) -> tuple[Image.Image, Image.Image]:
    """A file of a picture as it is drawn on its head, and the picture, upright and grey."""
    file = io.BytesIO()
    picture.save(file, kind, **how)
    page = page_of(file.getvalue())
    assert page is not None
    [drawing] = drawn(page, dpi=72, most_pages=1, most_pixels=40_000_000, turn=180)
    return Image.open(io.BytesIO(drawing)).rotate(180), picture.convert("L")


@pytest.mark.parametrize(
    ("mode", "kind", "how"),
    [
        *((mode, "PNG", {}) for mode in ("1", "L", "P", "RGB")),
        *((mode, "JPEG", {"quality": 95}) for mode in ("L", "RGB")),
        ("RGB", "JPEG", {"quality": 95, "progressive": True}),
    ],
)
def test_pictures_are_turned_pixel_by_pixel(mode: str, kind: str, how: dict[str, Any]) -> None:
    found, expected = turned_pixels(images_of(CARD)[0].resize((301, 207)).convert(mode), kind, **how)
    assert expected.size == found.size
    assert np.abs(np.asarray(found, np.int16) - np.asarray(expected, np.int16)).max() <= (12 if kind == "JPEG" else 4)


def test_pictures_that_cannot_be_turned_are_told_by_their_headers() -> None:
    card = images_of(CARD)[0]
    files = {kind: io.BytesIO() for kind in ("PNG", "JPEG", "TIFF")}
    card.convert("RGBA").save(files["PNG"], "PNG")
    card.convert("CMYK").save(files["JPEG"], "JPEG")
    card.save(files["TIFF"], "TIFF")
    assert [None] * 3 == [page_of(file.getvalue()) for file in files.values()]
    for whole in (image_file(card, "PNG"), image_file(card, "JPEG")):
        assert [None] == list({page_of(whole[:length]) for length in range(2, 24)}), "cut off within the header"


async def test_the_loop_goes_on_while_a_picture_is_made_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be one of 64 MiB, and leases are renewed on the loop."""
    begun, goes_on = threading.Event(), threading.Event()
    went_on: list[bool] = []

    def made(picture: bytes) -> bytes | None:
        begun.set()
        went_on.append(goes_on.wait(PATIENCE_SECONDS))
        return page_of(picture)

    monkeypatch.setattr(tesseract_module, "page_of", made)
    tesseract = Tesseract(program=program(tmp_path, "ind", "eng", "osd"), seconds=2 * PATIENCE_SECONDS)
    reading = asyncio.create_task(tesseract.read(PICTURE, found=lambda text: 0))
    await until(begun.is_set)
    goes_on.set()
    assert ("read\n", [True]) == (await reading, went_on)


@pytest.mark.parametrize(
    ("second", "expected"), [("echo fields", "fields\n"), ("echo none", "nothing\n"), ("exit 1", "nothing\n"), ("sleep 600", "nothing\n")]
)
async def test_what_is_read_turned_counts_only_where_it_says_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, starting: list[int], second: str, expected: str
) -> None:
    clock, asked, again = moved_clock(monkeypatch), tmp_path / "asked", tmp_path / "again"
    reads = f"cat > /dev/null; [ -e {asked} ] && {{ touch {again}; {second}; exit; }}; touch {asked}; echo nothing"
    tesseract = Tesseract(program=program(tmp_path, "ind", "eng", "osd", reads=reads), seconds=100)
    reading = asyncio.create_task(tesseract.read(CARD, found=lambda text: text.count("fields")))
    await until(lambda: again.exists() and not starting)
    if second == "sleep 600":
        clock.sleep(101)
    assert expected == await asyncio.wait_for(reading, 60)


@needs_tesseract
@pytest.mark.parametrize("first", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"RIFF1234WEBP", b"GIF89a", b"BM1234\0\0\0\0"])
async def test_what_only_begins_as_a_picture_is_read_by_nobody(tmp_path: Path, first: bytes) -> None:
    other = tmp_path / "another_card.png"
    other.write_bytes(image_file(images_of(CARD)[0], "PNG"))
    try:
        text = await Tesseract(data=languages(tmp_path / "data", "ind", "eng", "osd")).read(first + f"\n{other}\n".encode())
    except PermanentError as error:
        text = str(error).removeprefix("Tesseract could not read the document: the program ended with status 1")
        assert text.startswith("; the document may be broken")
    assert not any(part in text for part in ("3273010203850001", "BUDI", other.name))


async def test_what_the_program_says_of_a_document_is_told_to_nobody(tmp_path: Path) -> None:
    """It may quote what it was given."""
    for reads, expected in (("cat >&2; exit 1", "ended with status 1"), ("cat >&2; kill -ABRT $$", "was ended by SIGABRT")):
        tesseract = Tesseract(program=program(tmp_path, "ind", "eng", "osd", reads=reads))
        with pytest.raises(PermanentError, match=f"Tesseract could not read the document: the program {expected}") as failed:
            await tesseract.read(PICTURE + LINES[0].encode())
        assert "3273010203850001" not in str(failed.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encrypted(CARD), "the PDF is encrypted"),
        (CARD[: len(CARD) // 3], "the PDF is broken"),
        (pdf([page("one")] * 21), "the PDF has more than the 20 pages that are read"),
    ],
)
async def test_pdfs_that_cannot_be_drawn_are_told_apart(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(PermanentError, match=f"could not be drawn for Tesseract: {reason}"):
        await Tesseract(program=program(tmp_path, "ind", "eng", "osd")).read(content)


async def test_without_the_library_that_draws_a_pdf_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pypdfium2.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        PermanentError, match=r"it is a PDF, and pypdfium2, which draws its pages, is not installed; pip install 'lamina\[pdf\]'"
    ):
        await Tesseract(program=program(tmp_path, "ind", "eng", "osd")).read(CARD)


async def test_each_page_is_given_to_the_program(tmp_path: Path) -> None:
    text = await Tesseract(program=program(tmp_path, "ind", "eng", "osd", reads="head -c 2; cat > /dev/null")).read(
        pdf([page("a"), page("b")])
    )
    assert "P5\nP5" == text


def test_a_page_is_drawn_grey_and_at_the_resolution_that_fits() -> None:
    [whole] = drawn(CARD, dpi=300, most_pages=1, most_pixels=40_000_000)
    assert whole.startswith(b"P5\n2480 3509\n255\n")
    assert len(b"P5\n2480 3509\n255\n") + 2480 * 3509 == len(whole)
    assert {0, 255} <= set(whole[-2480 * 3509 :])
    [small] = drawn(CARD, dpi=300, most_pages=1, most_pixels=100_000)
    width, height = map(int, small.split(b"\n")[1].split())
    assert 95_000 < width * height < 102_000
