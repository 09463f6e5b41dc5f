"""The last resort where the inference server cannot read a document: Tesseract, where the machine has it."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from bridge.errors import PermanentError
from bridge.systems.cards.reading.drawing import FAILURES
from bridge.systems.cards.reading.pictures import PICTURES, picture_format
from bridge.systems.cards.reading.wrapping import page_of

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

# What is asked of it: Indonesian and English, pages in any orientation, which is told by a language of its own.
_ARGUMENTS = ("-", "-", "-l", "ind+eng", "--psm", "1")
LANGUAGES = ("ind", "eng", "osd")
# Of PDFs: what its makers recommend, and what keeps a page below 40 MB.
_DPI = 300
# Of pictures that are drawn: a point is a pixel.
_POINTS_AN_INCH = 72
_MOST_PAGES = 20
_MOST_PIXELS = 40_000_000
# Of either program, in bytes; a page of that size takes some 300 MB.
_MOST_MEMORY = 2 * 1024**3
_PDF = b"%PDF-"
# A PDF may begin somewhat later than its file.
_HEAD_BYTES = 1024
# Starts of programs that nobody waits for any more.
_left: set[asyncio.Future[Process]] = set()


class Tesseract:
    """Reads one document at a time in one thread, within a time; of PDFs it is given pictures of their pages.

    What is no picture it would take for a list of files to read, and what it says of one quotes that: it is given pictures alone, and no
    word of it goes further.
    """

    def __init__(self, *, program: str = "tesseract", seconds: float = 120.0, data: str = "") -> None:
        """`seconds`: of a document. `data`: the folder of its languages (TESSDATA_PREFIX); empty for its own."""
        self._program = program
        self._seconds = seconds
        # It would else take every core, and nothing else of ours is its business.
        self._environment = {"OMP_THREAD_LIMIT": "1", **({"TESSDATA_PREFIX": data} if data else {})}
        self._usable = False

    @property
    def found(self) -> bool:
        """Whether the machine has it, with its languages or without."""
        return shutil.which(self._program) is not None

    async def lack(self) -> str:
        """What keeps it from reading, and how to mend that; empty when nothing does."""
        if self._usable:
            return ""
        if not self.found:
            return "Tesseract is not on this machine; install tesseract-ocr and tesseract-ocr-ind"
        try:
            async with asyncio.timeout(self._seconds), self._started("--list-langs", errors=PIPE) as process:
                # On either stream, by its version.
                told = b"\n".join(await process.communicate()).decode(errors="replace").splitlines()
        except TimeoutError:
            return f"Tesseract did not tell its languages within {self._seconds:g} s"
        except OSError as error:
            return f"Tesseract cannot be started ({error.strerror}); install it anew"
        missing = [language for language in LANGUAGES if language not in told]
        self._usable = not missing
        return (
            f"Tesseract lacks the language{'s' if len(missing) > 1 else ''} {', '.join(missing)}; install "
            f"{' '.join(f'tesseract-ocr-{language}' for language in missing)}, or set TESSDATA_PREFIX to the folder that has them"
            if missing
            else ""
        )

    async def read(self, content: bytes, *, found: Callable[[str], int] = len) -> str:
        """The text of an image, or of the pages of a PDF, a line feed between them. Raises `PermanentError`.

        `found`: how much of what is looked for stands in a text; it is run beside the loop. Where nothing does, the document may stand on
        its head, which is not always noticed: it is read once more, turned, within the same time.
        """
        if lack := await self.lack():
            raise PermanentError(lack)
        if not picture_format(content) and _PDF not in content[:_HEAD_BYTES]:
            raise PermanentError(f"the document is nothing that Tesseract is given: {', '.join(PICTURES)}, PDF")
        texts: list[str] = []
        try:
            async with asyncio.timeout(self._seconds):
                texts.append(await self._read(content, turn=0))
                if not await asyncio.to_thread(found, texts[0]):
                    turned = await self._read(content, turn=180)
                    return turned if await asyncio.to_thread(found, turned) else texts[0]
        except (TimeoutError, OSError, PermanentError) as error:
            # What was read as it stands stays, whatever becomes of it turned.
            if not texts:
                raise self._failure(error) from error
        return texts[0]

    def _failure(self, error: Exception) -> PermanentError:
        if isinstance(error, TimeoutError):
            return PermanentError(f"Tesseract did not read the document within {self._seconds:g} s")
        if isinstance(error, OSError):
            return PermanentError(f"Tesseract could not be started for the document ({error.strerror})")
        return PermanentError(str(error))

    async def _read(self, content: bytes, *, turn: int) -> str:
        is_picture = bool(picture_format(content))
        if is_picture and not turn:
            return await self._read_picture(content)
        page = await asyncio.to_thread(page_of, content) if is_picture else content
        if page is None:
            return ""
        async with aclosing(_drawn(page, dpi=_POINTS_AN_INCH if is_picture else _DPI, turn=turn)) as pictures:
            return "\n".join([await self._read_picture(picture) async for picture in pictures])

    async def _read_picture(self, content: bytes) -> str:
        async with self._started(*_ARGUMENTS) as process:
            text, _ = await process.communicate(content)
        if process.returncode:
            raise PermanentError(f"Tesseract could not read the document: {_ending(process.returncode)}")
        return text.decode(errors="replace")

    @asynccontextmanager
    async def _started(self, *arguments: str, errors: int = DEVNULL) -> AsyncIterator[Process]:
        program = shutil.which(self._program) or self._program
        async with _running([program, *arguments], self._environment, errors=errors) as process:
            yield process


async def _drawn(content: bytes, *, dpi: int, turn: int) -> AsyncGenerator[bytes, None]:
    """The pages of a PDF as pictures, each as soon as it is drawn. Raises `PermanentError`."""
    command = [sys.executable, "-m", f"{__package__}.drawing", *map(str, (dpi, _MOST_PAGES, _MOST_PIXELS, turn))]
    async with _running(command, {"PYTHONPATH": os.pathsep.join(sys.path)}) as process:
        given, pictures = cast("StreamWriter", process.stdin), cast("StreamReader", process.stdout)
        try:
            # Read to its end before anything is written.
            given.write(content)
            await given.drain()
            given.close()
            while head := await pictures.readline():
                size = await pictures.readline()
                width, height = map(int, size.split())
                depth = await pictures.readline()
                yield head + size + depth + await pictures.readexactly(width * height)
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # its exit status tells why
        if status := await process.wait():
            why = FAILURES[status].format(pages=_MOST_PAGES) if status in FAILURES else _ending(status)
            raise PermanentError(f"the pages could not be drawn for Tesseract: {why}")


@asynccontextmanager
async def _running(command: Sequence[str], environment: Mapping[str, str], *, errors: int = DEVNULL) -> AsyncIterator[Process]:
    """A program that does not outlive its use, nor does what it has started. `errors`: where it may say what is wrong."""
    process = await _whole_start(
        asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=errors, env=dict(environment), start_new_session=True)
    )
    # A small file may be a picture of any size. Where the system knows no such limit, its own stand.
    with suppress(AttributeError, ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    try:
        yield process
    finally:
        cast("StreamWriter", process.stdin).close()
        _kill(process)
        # Until its pipes are closed, too.
        await process.communicate()


async def _whole_start(starting: Coroutine[Any, Any, Process]) -> Process:
    """A program whose start is not cut off: asyncio may wait for ever for one whose pipes it had not connected yet."""
    start = asyncio.ensure_future(starting)
    try:
        await asyncio.wait((start,))
    except asyncio.CancelledError:
        _left.add(start)
        start.add_done_callback(_end)
        raise
    return start.result()


def _end(start: asyncio.Future[Process]) -> None:
    """End a program that nobody waits for any more, if it could be started."""
    _left.discard(start)
    if not start.cancelled() and start.exception() is None:
        _kill(start.result())


def _kill(process: Process) -> None:
    """With what it has started, unless it has ended."""
    if process.returncode is None:
        # It may have ended by itself, and the loop was not told yet.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _ending(status: int) -> str:
    """How a program ended that was to read a document, in our words: its own may quote what it was given."""
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return f"the program was ended by {name}, as it is where {_MOST_MEMORY >> 30} GB of memory are not enough"
    return f"the program ended with status {status}; the document may be broken, or want more than {_MOST_MEMORY >> 30} GB of memory"
