"""One file or object of a store, read in the state in which it was found, or not at all.

With `storage` and `web.store` alone in importing obstore.

Each answer of a store says of which state it is, and is compared; a file on disk is looked at after each read.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, PreconditionError
from obstore.store import LocalStore

from inference_server.errors import ContentChanged, StorageUnavailable
from inference_server.storage.ranges import cut, joined, read_scattered
from inference_server.storage.reasons import reason
from inference_server.storage.web.requests import WebFailure
from inference_server.storage.web.store import WebAnswer, WebStore
from inference_server.threads import in_thread, on_disk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from obstore import Bytes, GetOptions, GetResult, ObjectMeta
    from obstore.store import ObjectStore

_COPY_BYTES = 8 * 1024 * 1024
# Requests for the ranges of one read.
_REQUESTS_AT_A_TIME = 16
# How an entity tag begins that does not promise the same bytes; a condition on it is never met (RFC 9110, 8.8.3 and 13.1.1).
_WEAK = "W/"


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One file or object that may be read."""

    # As the caller named it.
    uri: str
    # The store, and the key in it; a web server's file is a store of its own.
    store: ObjectStore | WebStore
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
    def comes_in_parts(self) -> bool:
        """Whether ranges of it can be read; of what some web servers have, only its first bytes can, and all of it."""
        return not isinstance(self.store, WebStore) or self.store.sends_parts

    @property
    def is_far(self) -> bool:
        """Whether it lies elsewhere, and is read in parts, each of them asked for."""
        return self.local_path is None and self.comes_in_parts

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
        return await on_disk(read_ranges_here, found, starts, ends)
    metas, read = await _read_joined(found, starts, ends)
    if not all(_says_its_state(found, meta) for meta in metas):
        await check_unchanged(found)
    return read


def read_ranges_here(found: StoredObject, starts: Sequence[int], ends: Sequence[int], *, room: int = 0) -> Sequence[memoryview]:
    """As `read_ranges`, of a file on disk; blocks. `room`: as for `read_scattered`."""
    assert found.local_path is not None  # noqa: S101 - the caller asks for files on disk
    try:
        read = read_scattered(found.local_path, starts, ends, room=room)
    except OSError as error:
        # A file that was cut short cannot be read, and that is not the disk's fault.
        _check_here(found)
        raise _failed(found, "read", error) from error
    _check_here(found)
    return read


async def download(found: StoredObject, path: Path, *, moved: Callable[[], None] = lambda: None) -> None:
    """Copy it to a local file, piece by piece; `moved` is called after each. Raises `ContentChanged`, `Unavailable`."""
    with _translated(found, "copied"), path.open("wb") as file:
        async with contextlib.aclosing(_in_pieces(found)) as pieces:
            async for piece in pieces:
                # To its end: closing the file would have the event loop wait for it.
                await in_thread(file.write, piece)
                moved()


async def copy_of(found: StoredObject, path: Path) -> StoredObject:
    """What `download` has put at an absolute path, under the name of what it is a copy of. Raises `Unavailable`."""
    store, key = LocalStore(prefix="/"), str(path).lstrip("/")
    with _translated(found, "copied"):
        return StoredObject(uri=found.uri, store=store, key=key, local_path=path, meta=await obstore.head_async(store, key))


async def head(store: ObjectStore | WebStore, key: str) -> ObjectMeta:
    """What a store tells of an object. Raises obstore's errors, `WebFailure`, and what `WebStore` does."""
    if isinstance(store, WebStore):
        return await store.head()
    try:
        return await obstore.head_async(store, key)
    except PermissionDeniedError:
        # The answer to HEAD has no body, and so does not tell whether it is the keys that are at fault; of what is there no more is
        # fetched than its head.
        return (await obstore.get_async(store, key)).meta


async def check_unchanged(found: StoredObject) -> None:
    """Raise `ContentChanged` unless it is still as it was found; `Unavailable`."""
    with _looking_again(found):
        _check_same(found, await head(found.store, found.key))


async def _get(found: StoredObject, span: tuple[int, int] | None = None) -> GetResult | WebAnswer:
    """The answer for an object, or a part of it, from a start to an end. Raises `ContentChanged` for another state of it, or none."""
    if not isinstance(found.store, WebStore):
        return await _get_object(found, found.store, {} if span is None else {"range": span})
    with _missed(found):
        answer = await found.store.get(span, condition=_condition(found), size_bytes=found.size_bytes)
    _check_same(found, answer.meta)
    return answer


async def _get_object(found: StoredObject, store: ObjectStore, options: GetOptions) -> GetResult:
    if condition := _condition(found):
        options["if_match"] = condition
    with _missed(found):
        answer = await obstore.get_async(store, found.key, options=options)
    _check_same(found, answer.meta)
    return answer


async def _in_pieces(found: StoredObject) -> AsyncGenerator[bytes | Bytes]:
    """All of an object, and at the end a look at whether it is still the same, unless the store said so with each piece."""
    metas: list[ObjectMeta] = []
    if not isinstance(found.store, WebStore):
        result = await _get_object(found, found.store, {})
        metas.append(result.meta)
        async for chunk in result.stream(min_chunk_size=_COPY_BYTES):
            yield chunk
    elif found.comes_in_parts:
        for start in range(0, found.size_bytes, _COPY_BYTES):
            answer = await _get(found, (start, min(start + _COPY_BYTES, found.size_bytes)))
            metas.append(answer.meta)
            yield await answer.bytes_async()
    else:
        async with contextlib.AsyncExitStack() as stack:
            with _missed(found):
                whole = found.store.whole(condition=_condition(found), size_bytes=found.size_bytes)
                meta, pieces = await stack.enter_async_context(whole)
            _check_same(found, meta)
            metas.append(meta)
            async for piece in pieces:
                yield piece
    if not all(_says_its_state(found, meta) for meta in metas):
        await check_unchanged(found)


def _condition(found: StoredObject) -> str:
    """The entity tag that it must have, where that can be asked for."""
    tag = found.meta["e_tag"] or ""
    return f'"{_bare(tag)}"' if tag.isascii() and tag and not tag.startswith(_WEAK) else ""


def _check_here(found: StoredObject) -> None:
    """As `check_unchanged`, of a file on disk; blocks."""
    if not _is_surely_same(found):
        with _looking_again(found):
            _check_same(found, obstore.head(cast("ObjectStore", found.store), found.key))


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
def _missed(found: StoredObject) -> Iterator[None]:
    """Ask for an object that was there when it was found."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise _changed(found) from error


@contextlib.contextmanager
def _looking_again(found: StoredObject) -> Iterator[None]:
    try:
        with _missed(found):
            yield
    except (BaseError, OSError, WebFailure) as error:
        raise _failed(found, "looked at again", error) from error


async def _read_joined(found: StoredObject, starts: Sequence[int], ends: Sequence[int]) -> tuple[list[ObjectMeta], list[memoryview]]:
    """What a store tells of a remote object with each request, on condition that it is still the same; and ranges of it."""
    spans = joined(starts, ends)
    turns = asyncio.Semaphore(_REQUESTS_AT_A_TIME)

    async def one(span: tuple[int, int]) -> tuple[ObjectMeta, bytes | Bytes]:
        async with turns:
            answer = await _get(found, span)
            content = await answer.bytes_async()
            # obstore compares what an answer says of itself alone.
            if len(content) != span[1] - span[0]:
                raise WebFailure("its answer has more or less bytes than were asked for")
            return answer.meta, content

    with _translated(found, "read"):
        reading = [asyncio.ensure_future(one(span)) for span in spans]
        try:
            read = await asyncio.gather(*reading)
        finally:
            for each in reading:
                each.cancel()
    return [meta for meta, _ in read], cut(spans, [content for _, content in read], starts, ends)


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
    except (BaseError, OSError, WebFailure) as error:
        raise _failed(found, verb, error) from error


def _failed(found: StoredObject, verb: str, error: Exception) -> StorageUnavailable:
    return StorageUnavailable(f"storage failed while {found.uri} was {verb} ({reason(error)}); try again.")
