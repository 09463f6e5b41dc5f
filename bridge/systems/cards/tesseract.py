"""The last resort where the inference server cannot read a document: Tesseract, where the machine has it."""

from __future__ import annotations

import asyncio
import shutil

from bridge.errors import PermanentError

# What is asked of it: Indonesian and English, pages in any orientation.
# It would else take every core, and nothing of ours is its business.
_ENVIRONMENT = {"OMP_THREAD_LIMIT": "1"}
_ARGUMENTS = ("-", "-", "-l", "ind+eng", "--psm", "1")


class Tesseract:
    """Reads one image at a time in one thread, within a time."""

    def __init__(self, *, program: str = "tesseract", seconds: float = 120.0) -> None:
        self._program = program
        self._seconds = seconds

    @property
    def found(self) -> bool:
        """Whether the machine has it."""
        return shutil.which(self._program) is not None

    async def read(self, content: bytes) -> str:
        """The text of an image. Raises `PermanentError`."""
        program = shutil.which(self._program)
        if program is None:
            raise PermanentError("Tesseract is not on this machine")
        process = await asyncio.create_subprocess_exec(
            program,
            *_ARGUMENTS,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(_ENVIRONMENT),
        )
        try:
            async with asyncio.timeout(self._seconds):
                text, errors = await process.communicate(content)
        except TimeoutError as error:
            raise PermanentError(f"Tesseract did not read the document within {self._seconds:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise PermanentError(f"Tesseract could not read the document: {errors.decode(errors='replace').strip()[:200]}")
        return text.decode(errors="replace")
