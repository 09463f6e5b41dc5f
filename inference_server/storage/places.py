"""What a path or URL names, and whether it lies under an allowed root: decoded and without links, however it is spelled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from inference_server.errors import AccessDenied, InvalidInput

WEB_PORTS = {"http": 80, "https": 443}
_REMOTE_SCHEMES = frozenset({"s3", "gs", "gcs", "az", "azure", "abfs", *WEB_PORTS})
_SETTINGS = {"read": "INFERENCE_READ_ROOTS", "written": "INFERENCE_WRITE_ROOTS"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a URL names, decoded, so that two spellings of one place are one."""

    # In lower case.
    scheme: str
    # Host or bucket, with a port where one is given; of web servers in lower case, and without the port that they have anyway.
    host: str
    # Names in the path; none is empty, `.` or `..`.
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The last of its names."""
        return self.names[-1] if self.names else ""

    @property
    def parent(self) -> Place:
        """What it lies in."""
        return replace(self, names=self.names[:-1])

    def is_below(self, root: Place) -> bool:
        """Whether it is the root, or under it."""
        return (self.scheme, self.host) == (root.scheme, root.host) and self.names[: len(root.names)] == root.names


@dataclass(frozen=True, kw_only=True)
class Roots:
    """What may be read, or written, and nothing else may."""

    # Folders, and URL prefixes such as `s3://bucket/slides/`.
    names: tuple[str, ...]
    # What is done there, as errors tell it: read or written.
    verb: str

    @property
    def setting(self) -> str:
        """The setting that names them."""
        return _SETTINGS[self.verb]

    def found(self, uri: str) -> Place | Path:
        """What a path or URL names. Raises `InvalidInput` for one that names nothing, or may be read in two ways, and `AccessDenied`."""
        if not uri:
            raise InvalidInput("no path or URL was given; expected a file path, or a URL such as s3://bucket/key.")
        if _has_control(uri):
            raise InvalidInput("the path or URL holds control characters; expected a file path, or a URL such as s3://bucket/key.")
        scheme = uri.partition("://")[0].lower() if "://" in uri else "file"
        if scheme not in _REMOTE_SCHEMES | {"file"}:
            raise InvalidInput(f"{shown(uri)} has the scheme {scheme}; expected a path, or file, s3, gs, az, http or https.")
        found = _local_path(uri) if scheme == "file" else _place(uri)
        if not self._hold(found):
            raise AccessDenied(
                f"{uri} may not be {self.verb}: it is not under an allowed root ({len(self.names)} set). "
                f"Name its folder or URL prefix in {self.setting}."
            )
        return found

    def absent(self) -> list[str]:
        """The folders among them that are not there, not yet, or cannot be looked at. May block: what is mounted may hang."""
        return [root for root in self.names if _is_local(root) and not _is_there(root)]

    def hold_web(self, url: str) -> bool:
        """Whether a web server's URL is below one of them; it may have a query."""
        try:
            parts = urlsplit(url)
            return parts.scheme in WEB_PORTS and not _has_control(url) and self._hold(_place(parts._replace(query="").geturl()))
        except (InvalidInput, ValueError):
            return False

    def _hold(self, found: Place | Path) -> bool:
        if isinstance(found, Path):
            return any(_is_local(root) and found.is_relative_to(_local_path(root)) for root in self.names)
        return any(not _is_local(root) and found.is_below(_place(root)) for root in self.names)


def _is_there(root: str) -> bool:
    try:
        return _local_path(root).exists()
    except (InvalidInput, OSError):  # such as a mount whose server is gone, or a folder that this user may not look into
        return False


def shown(url: str) -> str:
    """A URL without what may be secret in it: a user with a password, a query with a signature."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    host, slash, path = rest.split("?")[0].split("#")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def web_host(parts: SplitResult) -> str:
    """A web server's host, with the port where it is another than usual. Raises `ValueError` for a port that can be none."""
    host = (parts.hostname or "").encode("idna").decode("ascii") if not (parts.hostname or "").isascii() else parts.hostname or ""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if parts.port in (None, WEB_PORTS[parts.scheme]) else f"{bracketed}:{parts.port}"


def _place(uri: str) -> Place:
    """Take a URL apart. Raises `InvalidInput` for one that could be read in two ways."""
    try:
        parts = urlsplit(uri)
        host = web_host(parts) if parts.scheme in WEB_PORTS else parts.netloc
    except ValueError as error:
        raise InvalidInput(f"what begins with {uri.partition('://')[0]}:// is no URL; expected one such as s3://bucket/key.") from error
    if not host or "@" in parts.netloc:
        raise InvalidInput(f"{shown(uri)} names no host or bucket, or a user; expected {parts.scheme}://bucket/key.")
    if "?" in uri and parts.scheme in WEB_PORTS:
        raise InvalidInput(
            f"{shown(uri)} is named with a query, and signed URLs are not taken; "
            "name it as s3://bucket/key, which the server reads with its own role."
        )
    if "?" in uri or "#" in uri:
        raise InvalidInput(f"{shown(uri)} has a ? or # behind it; in a name write them as %3F and %23.")
    names = tuple(unquote(parts.path.strip("/")).split("/")) if parts.path.strip("/") else ()
    if any(name in ("", ".", "..") or "\\" in name or _has_control(name) for name in names):
        raise InvalidInput(f"{uri} has an empty name, . or .., a backslash or a control character in its path; name the place itself.")
    return Place(scheme=parts.scheme, host=host, names=names)


def _has_control(text: str) -> bool:
    return any(character < " " or character == "\x7f" for character in text)


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
        raise InvalidInput(
            f"{shown(uri)} names the host {host.rpartition('@')[2]}; expected file:///path, of a file on the server's machine."
        )
    return unquote(slash + path)
