"""What of a benchmark is to run, and on what, as its command line names it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A type for argparse: names separated by commas, each once and in the order of those that there are. It refuses others, and none."""
    there = list(known)

    def named(text: str) -> list[str]:
        names = {name.strip() for name in text.split(",")}
        if unknown := ", ".join(repr(name) for name in sorted(names - set(there))):
            raise argparse.ArgumentTypeError(f"there is no {unknown}; expected some of {', '.join(there)}")
        return [name for name in there if name in names]

    return named


def existing_file(text: str) -> Path:
    """A type for argparse: a file that is there."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path
