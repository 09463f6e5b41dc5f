"""What of a benchmark is to run, as its command line names it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A type for argparse: names separated by commas, each once and in the order of those that there are. It refuses others, and none."""
    there = list(known)

    def named(text: str) -> list[str]:
        names = {name.strip() for name in text.split(",")}
        if unknown := ", ".join(repr(name) for name in sorted(names - set(there))):
            raise argparse.ArgumentTypeError(f"there is no {unknown}; expected some of {', '.join(there)}")
        return [name for name in there if name in names]

    return named
