"""A process that does what pdfium does for the server.

Usage: python -m inference_server.tasks.documents.pdf.worker FILE_DESCRIPTOR MOST_BYTES, of a socket to the server. Says that it is `ready`,
then answers one request after the other, each with `done`, `refused` (and `limit`) or `defect`. The file that was opened last stays open:

    open     its body is the file; `password`. Answers `pages`
    page     `index`, `mode`, `dpi`, `lowest_dpi`, `most_pixels`. Answers `picture` (height, width; the body is RGB), or `layer`
    overlay  its body is frames of pages with their lines. Answers pieces of the file, a body each, before it is done
    drop     frees the file; has no answer
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pdf.confinement import Watch, confine, resident_pages
from inference_server.tasks.documents.pdf.drawing import PdfFile
from inference_server.tasks.documents.pdf.wire import MEMORY_STATUS, Cut, exactly, read_head, send


class Worker:
    """Answers the server, one request at a time."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._file: PdfFile | None = None

    def answer(self, head: Mapping[str, Any], body: bytes) -> None:
        """Do what is asked for, and tell what became of it. Raises `Cut` when the server is gone."""
        told: dict[str, Any] = {"done": True}
        answer: Any = b""
        try:
            match head["do"]:
                case "open":
                    told["pages"] = self._open(head, body)
                case "page":
                    more, answer = self._page(head)
                    told.update(more)
                case "overlay":
                    self._lay_over(body)
        except InvalidDocument as error:
            told = {"refused": str(error), "limit": error.limit}
        except MemoryError:
            os._exit(MEMORY_STATUS)
        except (Cut, BrokenPipeError) as gone:
            raise Cut from gone
        except Exception as error:  # a defect here must be told as any failure is, but nothing of the document
            place = traceback.extract_tb(error.__traceback__)[-1]
            told = {"defect": f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"}
        send(self._channel, told | {"resident": resident_pages() * os.sysconf("SC_PAGE_SIZE")}, answer)

    def drop(self) -> None:
        """Free the file."""
        if self._file:
            self._file.close()
        self._file = None

    def _open(self, head: Mapping[str, Any], content: bytes) -> int:
        self.drop()
        self._file = PdfFile(content, password=head["password"])
        return self._file.page_count

    def _page(self, head: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        file = self._opened()
        index, dpi = head["index"], head["dpi"]
        if layer := file.wanted_layer(index, dpi, head["mode"]):
            from inference_server.tasks.documents.pdf.packing import packed_layer

            told, body = packed_layer(layer)
            return {"layer": told}, body
        picture = file.page(index, dpi, most_pixels=head["most_pixels"], lowest_dpi=head["lowest_dpi"])
        return {"picture": (picture.height, picture.width)}, picture.content

    def _lay_over(self, pages: bytes) -> None:
        # What only some documents want is not imported for all.
        from inference_server.tasks.documents.pdf.overlay import lay_over

        file = self._opened()
        lay_over(file.content, file.password, pages, lambda piece: send(self._channel, {"piece": True}, piece))

    def _opened(self) -> PdfFile:
        if self._file is None:
            raise LookupError("no file is open")
        return self._file


def serve(channel: socket.socket, most_bytes: int) -> None:
    """Answer until the server is gone."""
    watch = Watch(channel, most_bytes)
    confine(most_bytes)
    stream: BinaryIO = channel.makefile("rb")
    worker = Worker(channel)
    _say_no_more()
    send(channel, {"ready": True})
    while True:
        head, size = read_head(stream)
        with watch.over():
            body = exactly(stream, size)
            if head["do"] == "drop":
                worker.drop()
            else:
                worker.answer(head, body)
            del body


def _say_no_more() -> None:
    """What is written from now on, as by pdfium of a file, is of a document."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    try:
        serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    except Cut:
        # The process is to leave, whatever is open still.
        os._exit(0)
    except MemoryError:
        # For what it was sent.
        os._exit(MEMORY_STATUS)
