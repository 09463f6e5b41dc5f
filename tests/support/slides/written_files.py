"""What an analysis wrote, to be compared with what another one did."""

from __future__ import annotations

import gzip
from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """The files by name, GeoJSON unpacked: the same text can be packed in more ways than one, and once was."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {name: gzip.decompress(content) if name.endswith(".gz") else content for name, content in found.items()}
