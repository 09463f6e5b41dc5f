"""Paths and URLs that requests name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import StringConstraints

# A path or URL, as a request names it.
Location = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4096)]


def absolute(location: str) -> str:
    """A path from the root, so that another process in another folder finds it; URLs stay as they are."""
    return location if "://" in location or not location else str(Path(location).expanduser().absolute())


def local_path(location: str) -> Path | None:
    """The file that is meant; None for a URL."""
    if location.startswith("file://"):
        return Path(unquote(urlsplit(location).path))
    return None if "://" in location else Path(location)
