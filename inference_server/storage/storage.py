"""Where slides and documents are read from and artifacts written to: disk, S3, GCS, Azure or HTTP.

With `stored` and `web.store` alone in importing obstore.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, from_url

from inference_server.errors import AccessDenied, InferenceError, InvalidInput, NotFound, StorageUnavailable
from inference_server.storage import reasons, stored
from inference_server.storage.places import Place, Roots
from inference_server.storage.reasons import reason
from inference_server.storage.stored import StoredObject
from inference_server.storage.web.requests import Connections, WebFailure
from inference_server.storage.web.store import WebStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from obstore import ObjectMeta
    from obstore.store import ObjectStore

# Bytes of the name of a file or folder; no file system takes more.
_LONGEST_NAME = 255
# What the operating system says of a place that another try will not find any better.
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FOR_GOOD = _DENIED | {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
# What stores of S3 and of Google, and of Azure, answer where the bucket itself is missing, not an upload that was begun in it.
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")


class Storage:
    """Reads and writes under allowed roots, and nowhere else."""

    def __init__(self, *, read_roots: tuple[str, ...], write_roots: tuple[str, ...], allow_http: bool = False) -> None:
        """Each root is a folder or a URL prefix (`s3://bucket/slides/`). `allow_http`: talk to S3 without TLS, such as a local MinIO."""
        self._allow_http = allow_http
        self._read_roots = Roots(names=read_roots, verb="read")
        self._write_roots = Roots(names=write_roots, verb="written")
        self._connections = Connections()

    async def open(self, uri: str, *, written: bool = False) -> StoredObject:
        """Find an object without reading it. Raises `AccessDenied`, `NotFound`, `InvalidInput`, `Unavailable`.

        `written`: it must lie where the server may write, in the place of where it may read.
        """
        store, key, local_path = await asyncio.to_thread(self._resolve, uri, self._write_roots if written else self._read_roots)
        try:
            meta = await stored.head(store, key)
        except ValueError as error:
            raise InvalidInput(f"{uri!r} holds characters that no file or object can have in its name.") from error
        except (NotFoundError, FileNotFoundError) as error:
            if local_path is not None and local_path.is_dir():
                raise InvalidInput(f"{uri} is a folder; a file was expected.") from error
            raise NotFound(f"{uri} does not exist. Check the path, and that the server sees the same files as you.") from error
        except (BaseError, OSError, WebFailure) as error:
            if _is_denied(error):
                raise AccessDenied(f"the server may not read {uri}. Grant its user or role read access.") from error
            if local_path is not None:
                raise _unreadable(uri, local_path) from error
            raise StorageUnavailable(f"storage did not answer for {uri} ({reason(error)}); try again.") from error
        return StoredObject(uri=uri, store=store, key=key, local_path=local_path, meta=meta)

    async def read(self, uri: str, *, most_bytes: int, limit: str = "", written: bool = False) -> bytes:
        """Read a whole object of at most `most_bytes`, the limit so named. Raises as `open` does, and `InvalidInput` when it is larger."""
        found = await self.open(uri, written=written)
        if found.size_bytes > most_bytes:
            raise InvalidInput(f"{uri} has {found.size_bytes} bytes; at most {most_bytes} are accepted. Send a smaller file.", limit=limit)
        return await stored.read(found)

    async def read_range(self, found: StoredObject, start: int, length: int) -> bytes:
        """Read `length` bytes from `start` of an object that `open` found. Raises `ContentChanged`, `Unavailable`."""
        return bytes((await self.read_ranges(found, [start], [start + length]))[0])

    async def read_ranges(self, found: StoredObject, starts: Sequence[int], ends: Sequence[int]) -> Sequence[memoryview]:
        """Read several ranges of an object that `open` found, neighbours in one request, nothing between others.

        Raises `ContentChanged`, `Unavailable`.
        """
        return await stored.read_ranges(found, starts, ends)

    def read_ranges_here(self, found: StoredObject, starts: Sequence[int], ends: Sequence[int], *, room: int = 0) -> Sequence[memoryview]:
        """As `read_ranges`, of a file on disk; blocks: a thread that goes on with what it reads needs no other to read it.

        `room`: bytes before each range that belong to its view, to be written to.
        """
        return stored.read_ranges_here(found, starts, ends, room=room)

    async def check_unchanged(self, found: StoredObject) -> None:
        """Raise `ContentChanged` unless an object is still as `open` found it; `Unavailable`."""
        await stored.check_unchanged(found)

    async def list_beside(self, found: StoredObject) -> list[StoredObject]:
        """The other files in the folder of one of this machine that `open` found. Raises `Unavailable`.

        Those that cannot be looked at are left out: links in a circle, and what goes meanwhile.
        """
        try:
            return await asyncio.to_thread(_files_beside, found)
        except OSError as error:
            raise _unlisted(found, error) from error

    async def list_below(self, found: StoredObject, prefix: str, *, most: int) -> list[StoredObject]:
        """Objects in the store of one that `open` found, whose keys begin with a prefix. Raises `InvalidInput`, `Unavailable`."""
        if isinstance(found.store, WebStore):
            raise InvalidInput(
                f"{found.uri} consists of several files, and a web server does not tell which. Put them into S3, GCS or Azure, or on disk."
            )
        listed: list[StoredObject] = []
        try:
            async for metas in obstore.list(found.store, prefix):
                listed += [_beside(found, meta) for meta in metas]
                if len(listed) > most:
                    raise InvalidInput(
                        f"{found.uri} stands beside more than {most:,} files; put the files of each slide into a folder of their own."
                    )
        except (BaseError, OSError) as error:
            raise _unlisted(found, error) from error
        return listed

    async def download(self, found: StoredObject, path: Path, *, moved: Callable[[], None] = lambda: None) -> None:
        """Copy an object that `open` found to a local file; see `stored.download`. Raises `ContentChanged`, `Unavailable`."""
        await stored.download(found, path, moved=moved)

    async def copy_of(self, found: StoredObject, path: Path) -> StoredObject:
        """The copy that `download` made of an object, under the name of that. Raises `Unavailable`."""
        return await stored.copy_of(found, path)

    def check_writable(self, uri_prefix: str) -> None:
        """Raise `AccessDenied` or `InvalidInput` now, rather than after an hour of work. Of a remote store only the root is checked."""
        _, _, local_path = self._resolve(uri_prefix, self._write_roots)
        if local_path is not None:
            _check_local_place(uri_prefix, local_path)

    def written_place(self, uri: str) -> Place | Path:
        """Where something lies that may be written: the same however it is spelled. Raises `AccessDenied`, `InvalidInput`; blocks."""
        return self._write_roots.found(uri)

    async def write(self, uri: str, content: bytes | Path) -> None:
        """Write a whole object, replacing what was there. Raises `AccessDenied`, `InvalidInput`, `Unavailable`."""
        store, key, local_path = await asyncio.to_thread(self._resolve, uri, self._write_roots)
        try:
            await (store.put(content) if isinstance(store, WebStore) else obstore.put_async(store, key, content))
        except ValueError as error:
            raise InvalidInput(f"{uri!r} holds characters that no file or object can have in its name.") from error
        except (BaseError, OSError, WebFailure) as error:
            if _is_denied(error):
                raise _unwritable(uri, errno.EACCES) from error
            if local_path is not None and (number := reasons.number(error)) in _FOR_GOOD:
                raise _unwritable(uri, number) from error
            if local_path is None and any(code in str(error) for code in _NO_BUCKET):
                # It may yet be made: jobs wait for it, rather than fail one after the other.
                raise StorageUnavailable(f"{uri} cannot be written: there is no such bucket. Make it, or name another one.") from error
            raise StorageUnavailable(f"storage failed while {uri} was written ({reason(error)}); try again.") from error

    def _resolve(self, uri: str, roots: Roots) -> tuple[ObjectStore | WebStore, str, Path | None]:
        found = roots.found(uri)
        if isinstance(found, Path):
            return LocalStore(prefix="/"), str(found).lstrip("/"), found
        key, root = "/".join(found.names), f"{found.scheme}://{found.host}"
        try:
            # The hosts of S3 and Azure are read as such.
            if obstore.parse_scheme(root) == "http":
                return WebStore(uri.rstrip("/"), roots, self._connections), key, None
            return from_url(root, client_options={"allow_http": found.scheme == "http" or self._allow_http}), key, None
        except (BaseError, ValueError) as error:
            raise InvalidInput(f"{uri} cannot be opened ({reason(error)}); expected {found.scheme}://bucket/key.") from error


def _beside(found: StoredObject, meta: ObjectMeta) -> StoredObject:
    """Another object of the same store."""
    key = meta["path"]
    if found.local_path is None:
        return StoredObject(uri=f"{found.uri.removesuffix(found.key)}{key}", store=found.store, key=key, local_path=None, meta=meta)
    return StoredObject(uri=f"/{key}", store=found.store, key=key, local_path=Path("/", key), meta=meta)


def _files_beside(found: StoredObject) -> list[StoredObject]:
    """As `Storage.list_beside`; blocks. Raises `OSError` where the folder cannot be listed."""
    assert found.local_path is not None  # noqa: S101 - the caller asks for files on disk
    files: list[StoredObject] = []
    here = LocalStore(prefix="/")
    with os.scandir(found.local_path.parent) as entries:
        for entry in entries:
            # A name that is no text, or that no store takes, is a ValueError.
            with contextlib.suppress(BaseError, OSError, ValueError):
                if entry.path != str(found.local_path) and entry.is_file():
                    files.append(_beside(found, obstore.head(here, entry.path.lstrip("/"))))
    return files


def _is_denied(error: Exception) -> bool:
    """Whether the server may not do it, for all that is known for good. Keys that have expired are mended, and jobs wait for that."""
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError)
    return denied and not reasons.are_keys_refused(error)


def _unlisted(found: StoredObject, error: Exception) -> StorageUnavailable:
    return StorageUnavailable(f"storage failed while the files beside {found.uri} were listed ({reason(error)}); try again.")


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
    return StorageUnavailable(f"storage did not answer for {uri}; try again.")
