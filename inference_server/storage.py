"""Where slides and documents are read from and artifacts written to: disk, S3, GCS, Azure or HTTP. Alone in importing obstore.

An object is read as `Storage.open` found it, or not at all: each answer of a store says of which state it is, and is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import sys
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, PreconditionError
from obstore.store import LocalStore, from_url

from inference_server.errors import AccessDenied, ContentChanged, InferenceError, InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from obstore import Bytes, GetOptions, GetResult, ObjectMeta
    from obstore.store import ObjectStore

_REMOTE_SCHEMES = frozenset({"s3", "gs", "gcs", "az", "azure", "abfs", "http", "https"})
# Bytes of the name of a file or folder; no file system takes more.
_LONGEST_NAME = 255
_COPY_BYTES = 8 * 1024 * 1024
# Bytes between two ranges that are read with them in one request: what writers leave for alignment.
_MOST_GAP_BYTES = 512
# Requests for the ranges of one read.
_REQUESTS_AT_A_TIME = 16
# How an entity tag begins that does not promise the same bytes; a condition on it is never met (RFC 9110, 8.8.3 and 13.1.1).
_WEAK = "W/"
# What the operating system says of a place that another try will not find any better.
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FOR_GOOD = _DENIED | {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


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


class Storage:
    """Reads and writes under allowed roots, and nowhere else."""

    def __init__(self, *, read_roots: tuple[str, ...], write_roots: tuple[str, ...], allow_http: bool = False) -> None:
        """Each root is a folder or a URL prefix (`s3://bucket/slides/`). `allow_http`: talk to S3 without TLS, such as a local MinIO."""
        self._allow_http = allow_http
        self._read_roots = read_roots
        self._write_roots = write_roots

    async def open(self, uri: str, *, written: bool = False) -> StoredObject:
        """Find an object without reading it. Raises `AccessDenied`, `NotFound`, `InvalidInput`, `Unavailable`.

        `written`: it must lie where the server may write, in the place of where it may read.
        """
        roots, verb = (self._write_roots, "written") if written else (self._read_roots, "read")
        store, key, local_path = await asyncio.to_thread(self._resolve, uri, roots, verb)
        try:
            meta = await obstore.head_async(store, key)
        except ValueError as error:
            raise InvalidInput(f"{uri!r} holds characters that no file or object can have in its name.") from error
        except (NotFoundError, FileNotFoundError) as error:
            if local_path is not None and local_path.is_dir():
                raise InvalidInput(f"{uri} is a folder; a file was expected.") from error
            raise NotFound(f"{uri} does not exist. Check the path, and that the server sees the same files as you.") from error
        except (PermissionDeniedError, PermissionError) as error:
            raise AccessDenied(f"the server may not read {uri}. Grant its user or role read access.") from error
        except (BaseError, OSError) as error:
            if local_path is not None:
                raise _unreadable(uri, local_path) from error
            raise Unavailable(f"storage did not answer for {uri} ({_reason(error)}); try again.") from error
        return StoredObject(uri=uri, store=store, key=key, local_path=local_path, meta=meta)

    async def read(self, uri: str, *, most_bytes: int, limit: str = "", written: bool = False) -> bytes:
        """Read a whole object of at most `most_bytes`, the limit so named. Raises as `open` does, and `InvalidInput` when it is larger."""
        found = await self.open(uri, written=written)
        if found.size_bytes > most_bytes:
            raise InvalidInput(f"{uri} has {found.size_bytes} bytes; at most {most_bytes} are accepted. Send a smaller file.", limit=limit)
        with _translated(found, "read"):
            return bytes(await (await _get(found)).bytes_async())

    async def read_range(self, found: StoredObject, start: int, length: int) -> bytes:
        """Read `length` bytes from `start` of an object that `open` found. Raises `ContentChanged`, `Unavailable`."""
        return bytes((await self.read_ranges(found, [start], [start + length]))[0])

    async def read_ranges(self, found: StoredObject, starts: Sequence[int], ends: Sequence[int]) -> Sequence[memoryview]:
        """Read several ranges of an object that `open` found, neighbours in one request, nothing between others.

        Raises `ContentChanged`, `Unavailable`.
        """
        if found.local_path is not None:
            return await asyncio.to_thread(self.read_ranges_here, found, starts, ends)
        answers, read = await _read_joined(found, starts, ends)
        if not all(_says_its_state(found, each.meta) for each in answers):
            await self.check_unchanged(found)
        return read

    def read_ranges_here(self, found: StoredObject, starts: Sequence[int], ends: Sequence[int]) -> Sequence[memoryview]:
        """As `read_ranges`, of a file on disk; blocks: a thread that goes on with what it reads needs no other to read it."""
        assert found.local_path is not None  # noqa: S101 - the caller asks for files on disk
        try:
            read = _read_local(found.local_path, starts, ends)
        except OSError as error:
            # A file that was cut short cannot be read, and that is not the disk's fault.
            _check_here(found)
            raise _failed(found, "read", error) from error
        _check_here(found)
        return read

    async def check_unchanged(self, found: StoredObject) -> None:
        """Raise `ContentChanged` unless an object is still as `open` found it; `Unavailable`."""
        with _looking_again(found):
            _check_same(found, await obstore.head_async(found.store, found.key))

    async def list_below(self, found: StoredObject, prefix: str, *, most: int, deep: bool = True) -> list[StoredObject]:
        """Objects in the store of one that `open` found, whose keys begin with a prefix. Raises `InvalidInput`, `Unavailable`.

        `deep`: those in folders below too, else all at once.
        """
        beside = found.uri.removesuffix(found.key)
        listed: list[StoredObject] = []
        try:
            async for metas in _listed(found.store, prefix, deep=deep):
                listed += [
                    StoredObject(
                        uri=f"{beside}{meta['path']}" if found.local_path is None else f"/{meta['path']}",
                        store=found.store,
                        key=meta["path"],
                        local_path=found.local_path and Path("/", meta["path"]),
                        meta=meta,
                    )
                    for meta in metas
                ]
                if len(listed) > most:
                    raise InvalidInput(
                        f"{found.uri} stands beside more than {most:,} files; put the files of each slide into a folder of their own."
                    )
        except (BaseError, OSError) as error:
            if found.uri.lower().startswith("http"):
                raise InvalidInput(
                    f"{found.uri} consists of several files, and a web server does not tell which. Put them into S3, GCS or Azure, or on "
                    "disk."
                ) from error
            raise Unavailable(f"storage failed while the files beside {found.uri} were listed ({_reason(error)}); try again.") from error
        return listed

    async def download(self, found: StoredObject, path: Path) -> None:
        """Copy an object that `open` found to a local file, piece by piece. Raises `ContentChanged`, `Unavailable`."""
        with _translated(found, "copied"):
            answer = await _get(found)
            stream = answer.stream(min_chunk_size=_COPY_BYTES)
            with path.open("wb") as file:
                async for piece in stream:
                    await asyncio.to_thread(file.write, piece)
        if not _says_its_state(found, answer.meta):
            await self.check_unchanged(found)

    def check_writable(self, uri_prefix: str) -> None:
        """Raise `AccessDenied` or `InvalidInput` now, rather than after an hour of work. Of a remote store only the root is checked."""
        _, _, local_path = self._resolve(uri_prefix, self._write_roots, "written")
        if local_path is not None:
            _check_local_place(uri_prefix, local_path)

    async def write(self, uri: str, content: bytes | Path) -> None:
        """Write a whole object, replacing what was there. Raises `AccessDenied`, `InvalidInput`, `Unavailable`."""
        store, key, local_path = await asyncio.to_thread(self._resolve, uri, self._write_roots, "written")
        try:
            await obstore.put_async(store, key, content)
        except ValueError as error:
            raise InvalidInput(f"{uri!r} holds characters that no file or object can have in its name.") from error
        except (PermissionDeniedError, PermissionError) as error:
            raise _unwritable(uri, errno.EACCES) from error
        except (BaseError, OSError) as error:
            if local_path is not None and (number := _number(error)) in _FOR_GOOD:
                raise _unwritable(uri, number) from error
            raise Unavailable(f"storage failed while {uri} was written ({_reason(error)}); try again.") from error

    def _resolve(self, uri: str, roots: tuple[str, ...], verb: str) -> tuple[ObjectStore, str, Path | None]:
        if not uri:
            raise InvalidInput("no path or URL was given; expected a file path, or a URL such as s3://bucket/key.")
        if any(character < " " or character == "\x7f" for character in uri):
            raise InvalidInput("the path or URL holds control characters; expected a file path, or a URL such as s3://bucket/key.")
        scheme = uri.partition("://")[0].lower() if "://" in uri else "file"
        if scheme == "file":
            path = _local_path(uri)
            if not any(_is_local(root) and path.is_relative_to(_local_path(root)) for root in roots):
                raise AccessDenied(_denied(uri, roots, verb))
            return LocalStore(prefix="/"), str(path).lstrip("/"), path
        if scheme not in _REMOTE_SCHEMES:
            raise InvalidInput(f"{uri} has the scheme {scheme}; expected a path, or file, s3, gs, az, http or https.")
        place = _place(uri)
        if not any(not _is_local(root) and place.is_below(_place(root)) for root in roots):
            raise AccessDenied(_denied(uri, roots, verb))
        return _remote(uri, place, allow_http=self._allow_http)


async def _listed(store: ObjectStore, prefix: str, *, deep: bool) -> AsyncIterator[Sequence[ObjectMeta]]:
    if not deep:
        yield (await obstore.list_with_delimiter_async(store, prefix))["objects"]
        return
    async for metas in obstore.list(store, prefix):
        yield metas


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
    """As `Storage.check_unchanged`; blocks."""
    with _looking_again(found):
        _check_same(found, obstore.head(found.store, found.key))


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
    return Unavailable(f"storage failed while {found.uri} was {verb} ({_reason(error)}); try again.")


def _reason(error: Exception) -> str:
    """In the operating system's words where it was the one that failed; the rest of a store's text names places inside of it."""
    number = _number(error)
    return os.strerror(number) if number else type(error).__name__


def _number(error: Exception) -> int:
    """The operating system's number of an error; 0 where it was another's."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else getattr(error, "errno", None) or 0


def _check_local_place(uri: str, path: Path) -> None:
    """Raise as `Storage.check_writable` does, unless a file can be made there, with the folders that it lacks."""
    try:
        if path.is_dir():
            raise _unwritable(uri, errno.EISDIR)
        if any(len(os.fsencode(name)) > _LONGEST_NAME for name in path.parts):
            raise _unwritable(uri, errno.ENAMETOOLONG)
        folder = next(parent for parent in path.parents if os.path.lexists(parent))
        if not folder.is_dir():
            raise _unwritable(uri, errno.ENOTDIR)
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise _unwritable(uri, errno.EROFS)
    except OSError as error:
        raise _unwritable(uri, error.errno or errno.EACCES) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(uri, errno.EACCES)


def _unwritable(uri: str, number: int) -> InferenceError:
    """Why a place can never be written to as it is."""
    if number in _DENIED:
        return AccessDenied(f"the server may not write {uri} ({os.strerror(number)}). Grant its user or role write access.")
    return InvalidInput(f"{uri} can be no file ({os.strerror(number)}); name a place below a folder that is there.")


def _unreadable(uri: str, path: Path) -> InferenceError:
    """Why a file of this machine cannot be read. What will never be there is not worth another try."""
    try:
        if path.is_dir():
            return InvalidInput(f"{uri} is a folder; a file was expected.")
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return NotFound(f"{uri} does not exist. Check the path, and that the server sees the same files as you.")
    except PermissionError:
        return AccessDenied(f"the server may not read {uri}. Grant its user or role read access.")
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return InvalidInput(f"{uri} can be no file: {error.strerror}.")
    return Unavailable(f"storage did not answer for {uri}; try again.")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What a URL names, decoded, so that two spellings of one place are one."""

    # In lower case.
    scheme: str
    # Host or bucket, with a port where one is given.
    host: str
    # Names in the path; none is empty, `.` or `..`.
    names: tuple[str, ...]

    def is_below(self, root: _Place) -> bool:
        return (self.scheme, self.host) == (root.scheme, root.host) and self.names[: len(root.names)] == root.names


def _place(uri: str) -> _Place:
    """Take a URL apart. Raises `InvalidInput` for one that could be read in two ways."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidInput(f"{uri} is no URL; expected one such as s3://bucket/key.") from error
    if not parts.netloc or "@" in parts.netloc:
        raise InvalidInput(f"{uri} names no host or bucket, or a user; expected {parts.scheme}://bucket/key.")
    if "?" in uri and parts.scheme in ("http", "https"):
        raise InvalidInput(
            f"{parts.scheme}://{parts.netloc}{parts.path} is named with a query, and signed URLs are not taken; "
            "name it as s3://bucket/key, which the server reads with its own role."
        )
    if "?" in uri or "#" in uri:
        raise InvalidInput(f"{uri} has a ? or #; in a name write them as %3F and %23.")
    names = tuple(unquote(parts.path.strip("/")).split("/")) if parts.path.strip("/") else ()
    if any(name in ("", ".", "..") or "\\" in name or any(character < " " or character == "\x7f" for character in name) for name in names):
        raise InvalidInput(f"{uri} has an empty name, . or .., a backslash or a control character in its path; name the place itself.")
    return _Place(scheme=parts.scheme, host=parts.netloc, names=names)


def _remote(uri: str, place: _Place, *, allow_http: bool) -> tuple[ObjectStore, str, None]:
    try:
        store = from_url(f"{place.scheme}://{place.host}", client_options={"allow_http": place.scheme == "http" or allow_http})
    except (BaseError, ValueError) as error:
        raise InvalidInput(f"{uri} cannot be opened ({type(error).__name__}); expected {place.scheme}://bucket/key.") from error
    return store, "/".join(place.names), None


def _is_local(root: str) -> bool:
    return "://" not in root or root.lower().startswith("file://")


def _local_path(uri: str) -> Path:
    path = _path_of_file_url(uri) if "://" in uri else uri
    try:
        # Links are followed first, so that none leads out of a root.
        return Path(path).expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as error:
        # A NUL in the name, links in a circle, a home that there is not.
        raise InvalidInput(f"{uri!r} is no path that can be followed ({type(error).__name__}); name the file itself.") from error


def _path_of_file_url(uri: str) -> str:
    host, slash, path = uri.partition("://")[2].partition("/")
    if host not in ("", "localhost"):
        raise InvalidInput(f"{uri} names the host {host}; expected file:///path, of a file on the server's machine.")
    return unquote(slash + path)


def _denied(uri: str, roots: tuple[str, ...], verb: str) -> str:
    setting = "INFERENCE_READ_ROOTS" if verb == "read" else "INFERENCE_WRITE_ROOTS"
    return f"{uri} may not be {verb}: it is not under an allowed root ({len(roots)} set). Name its folder or URL prefix in {setting}."
