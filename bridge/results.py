"""Where results are written: a folder of this machine, or a URL prefix such as s3://bucket/results. Alone in importing obstore."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from bridge.errors import BridgeError, ConfigurationError, PermanentError, first_line
from bridge.store_faults import NO_BUCKET, code_of, has_lost_its_reason, kind_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# access_key_id, secret_access_key, token and expires_at.
Credentials = Callable[[], Awaitable[Mapping[str, Any]]]
_SCHEMES = frozenset({"s3", "gs", "gcs", "az", "azure", "abfs", "http", "https"})
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_NAME = 120
_PIECE_BYTES = 1024 * 1024


class ResultStore:
    """Hands out one folder for each job and fence, so that what a stale worker writes never counts."""

    def __init__(
        self,
        root: str,
        *,
        allow_http: bool = False,
        s3: Mapping[str, str] | None = None,
        s3_credentials: Credentials | None = None,
        set_by: str = "BRIDGE_RESULTS",
    ) -> None:
        """`root`: a folder, made when missing, or a URL prefix. `allow_http`: talk to S3 endpoints without TLS, such as a local MinIO.

        `s3`: region, endpoint, access_key_id and secret_access_key, where the usual AWS variables are not to be asked.
        `s3_credentials`: tells the keys of the moment, where they are lent for a while, such as a role's. `set_by`: the settings that
        name it, for people. Raises `ConfigurationError`.
        """
        self._set_by = set_by
        self._root, self._store, self._prefix = _opened(root, allow_http=allow_http, s3=s3 or {}, s3_credentials=s3_credentials)

    @property
    def root(self) -> str:
        """The folder as an absolute path, or the URL prefix; without a slash at its end."""
        return self._root

    def folder(self, kind: str, job_key: str, fence: int) -> ResultFolder:
        """The folder of one try of one job. `kind`: slides, documents, labs."""
        return self.folder_at(f"{kind}/{_file_name(job_key)}/{fence}")

    def tries(self, kind: str, job_key: str) -> ResultFolder:
        """The folder that holds those of all tries of one job."""
        return self.folder_at(f"{kind}/{_file_name(job_key)}")

    def folder_at(self, below: str) -> ResultFolder:
        """The folder at a path below the root, such as results/1/two/3."""
        return ResultFolder(location=f"{self._root}/{below}", store=self._store, prefix=f"{self._prefix}{below}", set_by=self._set_by)

    async def read(self, key: str, *, most_bytes: int) -> bytes | None:
        """The bytes of the object of that key; None when there is none.

        `most_bytes`: of a larger one nothing more is fetched than its head, and `PermanentError` is raised. Raises it too for a key that
        none can have, `OverloadError` while the store is down or out of reach, `ConfigurationError` when it does not know our keys or has
        no such bucket, and `TransientError` for what else may go better next time.
        """
        _check_key(key)
        try:
            found = await obstore.get_async(self._store, f"{self._prefix}{key}")
            if found.meta["size"] > most_bytes:
                raise PermanentError(f"the object {key} has {found.meta['size']} bytes; at most {most_bytes} are read")
            content = bytearray()
            async for piece in found.stream(min_chunk_size=_PIECE_BYTES):
                content += piece
                if len(content) > most_bytes:  # more than its head has told
                    raise PermanentError(f"the object {key} has more than {most_bytes} bytes; no more are read")
            return bytes(content)
        except (BaseError, OSError) as error:
            if _is_missing(error):
                return None
            raise _failed(f"{self._root}/{key} could not be read", error, self._set_by) from error
        except ValueError as error:
            raise PermanentError(f"no object can have the key {key!r}") from error

    async def holds(self, key: str) -> bool:
        """Whether there is an object of that key. Raises as `read` does."""
        _check_key(key)
        try:
            await self._ask_for(f"{self._prefix}{key}")
        except (BaseError, OSError) as error:
            if _is_missing(error):
                return False
            raise _failed(f"{self._root}/{key} could not be looked for", error, self._set_by) from error
        except ValueError as error:  # an empty part, `..`, control characters
            raise PermanentError(f"S3 object not found. No object can have the key {key!r}") from error
        return True

    async def _ask_for(self, key: str) -> None:
        try:
            await obstore.head_async(self._store, key)
        except (BaseError, OSError) as error:
            if not has_lost_its_reason(error):
                raise
            await obstore.get_async(self._store, key)  # of what is there nothing more is fetched than its head


class ResultFolder:
    """The files of one try of one job.

    What fails raises `OverloadError` while the store is down or out of reach, `ConfigurationError` when it does not know our keys or has no
    such bucket, and `TransientError` for what else may go better next time.
    """

    def __init__(self, *, location: str, store: ObjectStore, prefix: str, set_by: str) -> None:
        """`location`: its path or URL. `prefix`: its key in the store. `set_by`: the settings that name it, for people."""
        self._set_by = set_by
        self._location = location
        self._store = store
        self._prefix = prefix

    @property
    def location(self) -> str:
        """Its path or URL, without a slash at its end."""
        return self._location

    async def write(self, name: str, content: bytes | Path) -> str:
        """Write a file whole or not at all, and return its path or URL."""
        try:
            await obstore.put_async(self._store, f"{self._prefix}/{name}", content)
        except (BaseError, OSError) as error:
            raise _failed(f"{self._location}/{name} could not be written", error, self._set_by) from error
        return f"{self._location}/{name}"

    async def copy(self, name: str, to: ResultFolder) -> None:
        """Copy a file to another folder of the same store, where there is one of that name."""
        try:
            await obstore.copy_async(self._store, f"{self._prefix}/{name}", f"{to._prefix}/{name}")
        except (BaseError, OSError) as error:
            if _is_missing(error):
                return
            raise _failed(f"{to.location}/{name} could not be written", error, self._set_by) from error

    async def names(self) -> Sequence[str]:
        """The files in this folder and in those in it, sorted."""
        start = len(self._prefix) + 1
        try:
            return sorted([one["path"][start:] async for found in obstore.list(self._store, f"{self._prefix}/") for one in found])
        except (BaseError, OSError) as error:
            raise _failed(f"{self._location} could not be listed", error, self._set_by) from error

    async def clear(self, below: str, *, but: str = "") -> None:
        """Remove all files of a folder in this one. `but`: the name of one that stays."""
        kept = f"{self._prefix}/{but}"
        try:
            async for found in obstore.list(self._store, f"{self._prefix}/{below}"):
                await self._remove([one["path"] for one in found if one["path"] != kept])
        except (BaseError, OSError) as error:
            raise _failed(f"{self._location}/{below} could not be removed", error, self._set_by) from error

    async def _remove(self, keys: Sequence[str]) -> None:
        try:
            await obstore.delete_async(self._store, keys)
        except (BaseError, OSError) as error:
            if not _is_missing(error):
                raise
            # Another removes the same: a disk tells so, unlike S3, and leaves what follows.
            for key in keys if len(keys) > 1 else ():
                await self._remove([key])

    async def read(self, name: str) -> bytes | None:
        """A file's bytes; None when there is none."""
        try:
            return bytes(await (await obstore.get_async(self._store, f"{self._prefix}/{name}")).bytes_async())
        except (BaseError, OSError) as error:
            if _is_missing(error):
                return None
            raise _failed(f"{self._location}/{name} could not be read", error, self._set_by) from error


def _check_key(key: str) -> None:
    """Raise `PermanentError` for the key of no object: what a store answers for it is a list of all others."""
    if not key.strip("/"):
        raise PermanentError(f"no object can have the key {key!r}")


def _is_missing(error: Exception) -> bool:
    """Whether it is the object alone that is not there, and not the bucket."""
    return isinstance(error, NotFoundError | FileNotFoundError) and code_of(error) != NO_BUCKET


def _failed(told: str, error: Exception, set_by: str) -> BridgeError:
    kind = kind_of(error)
    told = f"{told}: {first_line(error)}"
    return kind(f"{told}; set {set_by} right") if kind is ConfigurationError else kind(told)


def _opened(root: str, *, allow_http: bool, s3: Mapping[str, str], s3_credentials: Credentials | None) -> tuple[str, ObjectStore, str]:
    scheme = urlsplit(root).scheme if "://" in root else "file"
    if not root:
        raise ConfigurationError("BRIDGE_RESULTS is empty; set it to a folder, or to a URL prefix such as s3://bucket/results.")
    try:
        if scheme == "file":
            path = Path(unquote(urlsplit(root).path) if "://" in root else root).expanduser().resolve()
            return str(path), LocalStore(prefix=path, mkdir=True, automatic_cleanup=True), ""
        if scheme not in _SCHEMES:
            raise ConfigurationError(f"BRIDGE_RESULTS has the scheme {scheme}; expected a folder, or s3, gs, az, http or https.")
        parts = urlsplit(root)
        own: Any = {"config": dict(s3)} if scheme == "s3" and s3 else {}
        if scheme == "s3" and s3_credentials is not None:
            own["credential_provider"] = s3_credentials
        store = from_url(f"{scheme}://{parts.netloc}", client_options={"allow_http": scheme == "http" or allow_http}, **own)
    except (BaseError, OSError, ValueError) as error:
        raise ConfigurationError(f"BRIDGE_RESULTS cannot be opened as a place for results: {error}") from error
    prefix = unquote(parts.path).strip("/")
    return root.rstrip("/"), store, f"{prefix}/" if prefix else ""


def _file_name(job_key: str) -> str:
    """A name for any key that is safe on disk and in a URL; two keys never share one."""
    safe = _UNSAFE.sub("_", job_key).lstrip(".")[:_LONGEST_NAME]
    return safe if safe == job_key else f"{safe}-{hashlib.sha256(job_key.encode()).hexdigest()[:12]}"
