"""One file or object of a store, read in the state in which it was found, or not at all. With `storage` alone in importing obstore.

Each answer of a store says of which state it is, and is compared; a file on disk is looked at after each read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError, PreconditionError

from inference_server.errors import ContentChanged, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from obstore import Bytes, GetOptions, GetResult, ObjectMeta
    from obstore.store import ObjectStore

_COPY_BYTES = 8 * 1024 * 1024
# Bytes between two ranges that are read with them in one request: what writers leave for alignment.
_MOST_GAP_BYTES = 512
# Requests for the ranges of one read.
_REQUESTS_AT_A_TIME = 16
# How an entity tag begins that does not promise the same bytes; a condition on it is never met (RFC 9110, 8.8.3 and 13.1.1).
_WEAK = "W/"


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One file or object that may be read."""

    # As the caller named it.
    uri: str
    # The store, and the key in it.
    store: ObjectStore
    key: str
    # Where it lies when it is a file of this machine, else None.
    local_path: Path | None
    # What the store told of it when it was found.
    meta: ObjectMeta

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return self.meta["size"]

    @property
    def revision(self) -> str:
        """Changes whenever the content may have: entity tag and version, or the time of the last change."""
        return f"{self.meta['e_tag'] or self.meta['last_modified']} {self.meta['version'] or ''}".strip()

    @property
    def suffix(self) -> str:
        """The file name's ending, in lower case, with its dot."""
        return Path(self.key).suffix.lower()


async def read(found: StoredObject) -> bytes:
    """All of it. Raises `ContentChanged`, `Unavailable`."""
    with _translated(found, "read"):
        return bytes(await (await _get(found)).bytes_async())


async def read_ranges(found: StoredObject, starts: Sequence[int], ends: Sequence[int]) -> Sequence[memoryview]:
    """Several ranges, neighbours in one request, nothing between others. Raises `ContentChanged`, `Unavailable`."""
    if found.local_path is not None:
        return await asyncio.to_thread(read_ranges_here, found, starts, ends)
    answers, read = await _read_joined(found, starts, ends)
    if not all(_says_its_state(found, each.meta) for each in answers):
        await check_unchanged(found)
    return read


def read_ranges_here(found: StoredObject, starts: Sequence[int], ends: Sequence[int]) -> Sequence[memoryview]:
    """As `read_ranges`, of a file on disk; blocks."""
    assert found.local_path is not None  # noqa: S101 - the caller asks for files on disk
    try:
        read = _read_local(found.local_path, starts, ends)
    except OSError as error:
        # A file that was cut short cannot be read, and that is not the disk's fault.
        _check_here(found)
        raise _failed(found, "read", error) from error
    _check_here(found)
    return read


async def download(found: StoredObject, path: Path, *, moved: Callable[[], None] = lambda: None) -> None:
    """Copy it to a local file, piece by piece; `moved` is called after each. Raises `ContentChanged`, `Unavailable`."""
    with _translated(found, "copied"):
        answer = await _get(found)
        stream = answer.stream(min_chunk_size=_COPY_BYTES)
        with path.open("wb") as file:
            async for piece in stream:
                await asyncio.to_thread(file.write, piece)
                moved()
    if not _says_its_state(found, answer.meta):
        await check_unchanged(found)


async def check_unchanged(found: StoredObject) -> None:
    """Raise `ContentChanged` unless it is still as it was found; `Unavailable`."""
    with _looking_again(found):
        _check_same(found, await obstore.head_async(found.store, found.key))


async def _get(found: StoredObject, span: tuple[int, int] | None = None) -> GetResult:
    """The answer for an object, or a part of it, from a start to an end. Raises `ContentChanged` for another state of it."""
    options: GetOptions = {} if span is None else {"range": span}
    tag = found.meta["e_tag"] or ""
    if tag and not tag.startswith(_WEAK):
        options["if_match"] = f'"{_bare(tag)}"'
    answer = await obstore.get_async(found.store, found.key, options=options)
    _check_same(found, answer.meta)
    return answer


def _check_here(found: StoredObject) -> None:
    """As `check_unchanged`, of a file on disk; blocks."""
    if not _is_surely_same(found):
        with _looking_again(found):
            _check_same(found, obstore.head(found.store, found.key))


def _is_surely_same(found: StoredObject) -> bool:
    """Whether a file on disk has the tag that obstore gives it: number, time in microseconds and size.

    Asked itself, obstore hands the question to a thread of its own and waits, which on busy cores takes as long as decoding some tiles.
    """
    assert found.local_path is not None  # noqa: S101 - the caller asks for files on disk
    try:
        status = found.local_path.stat()
    except OSError:
        return False
    return _bare(found.meta["e_tag"] or "") == f"{status.st_ino:x}-{status.st_mtime_ns // 1000:x}-{status.st_size:x}"


@contextlib.contextmanager
def _looking_again(found: StoredObject) -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise _changed(found) from error
    except (BaseError, OSError) as error:
        raise _failed(found, "looked at again", error) from error


def _read_local(path: Path, starts: Sequence[int], ends: Sequence[int]) -> list[memoryview]:
    """Ranges of a file; blocks. Raises `OSError`, for ranges past its end too."""
    spans = _spans(starts, ends)
    with path.open("rb", buffering=0) as file:
        read = [os.pread(file.fileno(), end - start, start) for start, end in spans]
    if any(len(content) != end - start for content, (start, end) in zip(read, spans, strict=True)):
        raise OSError("the file is shorter than it was")
    return _parts(spans, read, starts, ends)


async def _read_joined(found: StoredObject, starts: Sequence[int], ends: Sequence[int]) -> tuple[list[GetResult], list[memoryview]]:
    """Ranges of a remote object, each request on condition that it is still the same; and the answers to the requests."""
    spans = _spans(starts, ends)
    turns = asyncio.Semaphore(_REQUESTS_AT_A_TIME)

    async def one(span: tuple[int, int]) -> tuple[GetResult, Bytes]:
        async with turns:
            answer = await _get(found, span)
            return answer, await answer.bytes_async()

    with _translated(found, "read"):
        reading = [asyncio.ensure_future(one(span)) for span in spans]
        try:
            read = await asyncio.gather(*reading)
        finally:
            for each in reading:
                each.cancel()
    return [answer for answer, _ in read], _parts(spans, [content for _, content in read], starts, ends)


def _spans(starts: Sequence[int], ends: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges in order, neighbours as one."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted(zip(starts, ends, strict=True)):
        if spans and start - spans[-1][1] <= _MOST_GAP_BYTES:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def _parts(spans: Sequence[tuple[int, int]], read: Sequence[bytes | Bytes], starts: Sequence[int], ends: Sequence[int]) -> list[memoryview]:
    """The ranges that were asked for, cut from the spans that hold them."""
    views = [memoryview(content) for content in read]
    places = [bisect_right(spans, (start, sys.maxsize)) - 1 for start in starts]
    return [views[place][start - spans[place][0] : end - spans[place][0]] for place, start, end in zip(places, starts, ends, strict=True)]


def _check_same(found: StoredObject, meta: ObjectMeta) -> None:
    """Raise `ContentChanged` when a store tells of another state than the one that was found."""
    # Versions are not compared: stores give them in answers and not in lists.
    differs = found.size_bytes != meta["size"]
    if found.meta["e_tag"] and meta["e_tag"]:
        differs |= _bare(found.meta["e_tag"]) != _bare(meta["e_tag"])
    elif _says_its_state(found, meta):
        differs |= found.meta["last_modified"] != meta["last_modified"]
    if differs:
        raise _changed(found)


def _bare(tag: str) -> str:
    """An entity tag without what servers give in one answer and not in another: Azure's lists lack the quotes, parts may promise less."""
    return tag.removeprefix(_WEAK).strip('"')


def _says_its_state(found: StoredObject, meta: ObjectMeta) -> bool:
    """Whether what a store tells can be compared with what was found. Some web servers leave out of parts what they say of the whole."""
    # obstore's word for no time is that at which Unix began.
    times = found.meta["last_modified"].timestamp(), meta["last_modified"].timestamp()
    return bool(found.meta["e_tag"] and meta["e_tag"]) or min(times) > 0


def _changed(found: StoredObject) -> ContentChanged:
    return ContentChanged(
        f"{found.uri} was replaced or removed while it was read: it is no longer the file that was opened. "
        "Ask again once it lies there whole; give a new slide or document a name of its own."
    )


@contextlib.contextmanager
def _translated(found: StoredObject, verb: str) -> Iterator[None]:
    try:
        yield
    except PreconditionError as error:
        raise _changed(found) from error
    except (BaseError, OSError) as error:
        raise _failed(found, verb, error) from error


def _failed(found: StoredObject, verb: str, error: Exception) -> Unavailable:
    return Unavailable(f"storage failed while {found.uri} was {verb} ({reason(error)}); try again.")


def reason(error: Exception) -> str:
    """In the operating system's words where it was the one that failed; the rest of a store's text names places inside of it."""
    found = number(error)
    return os.strerror(found) if found else type(error).__name__


def number(error: Exception) -> int:
    """The operating system's number of an error; 0 where it was another's."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else getattr(error, "errno", None) or 0
