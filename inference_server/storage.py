"""Where slides and documents are read from and artifacts written to: disk, S3, GCS, Azure or HTTP.

With `stored` alone in importing obstore.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError
from obstore.store import LocalStore, from_url

from inference_server import stored
from inference_server.errors import AccessDenied, InferenceError, InvalidInput, NotFound, Unavailable
from inference_server.stored import StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_REMOTE_SCHEMES = frozenset({"s3", "gs", "gcs", "az", "azure", "abfs", "http", "https"})
# Bytes of the name of a file or folder; no file system takes more.
_LONGEST_NAME = 255
# What the operating system says of a place that another try will not find any better.
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FOR_GOOD = _DENIED | {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


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
            raise Unavailable(f"storage did not answer for {uri} ({stored.reason(error)}); try again.") from error
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

    def read_ranges_here(self, found: StoredObject, starts: Sequence[int], ends: Sequence[int]) -> Sequence[memoryview]:
        """As `read_ranges`, of a file on disk; blocks: a thread that goes on with what it reads needs no other to read it."""
        return stored.read_ranges_here(found, starts, ends)

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
        listed: list[StoredObject] = []
        try:
            async for metas in obstore.list(found.store, prefix):
                listed += [_beside(found, meta) for meta in metas]
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
            raise _unlisted(found, error) from error
        return listed

    async def download(self, found: StoredObject, path: Path, *, moved: Callable[[], None] = lambda: None) -> None:
        """Copy an object that `open` found to a local file; see `stored.download`. Raises `ContentChanged`, `Unavailable`."""
        await stored.download(found, path, moved=moved)

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
            if local_path is not None and (number := stored.number(error)) in _FOR_GOOD:
                raise _unwritable(uri, number) from error
            raise Unavailable(f"storage failed while {uri} was written ({stored.reason(error)}); try again.") from error

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
    with os.scandir(found.local_path.parent) as entries:
        for entry in entries:
            # A name that is no text, or that no store takes, is a ValueError.
            with contextlib.suppress(BaseError, OSError, ValueError):
                if entry.path != str(found.local_path) and entry.is_file():
                    files.append(_beside(found, obstore.head(found.store, entry.path.lstrip("/"))))
    return files


def _unlisted(found: StoredObject, error: Exception) -> Unavailable:
    return Unavailable(f"storage failed while the files beside {found.uri} were listed ({stored.reason(error)}); try again.")


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
