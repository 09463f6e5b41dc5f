"""Runs benchmarks with --check one after another, whatever becomes of each, and tells at the end which missed their bars.

Ends with 1 when one did. Each one's own tables come before; one that fails on the way counts as missed, and has its error there.

Usage: scripts/bench.py SCRIPT…
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One benchmark that was run."""

    name: str
    # Of the process: 0 where all bars are met.
    status: int
    seconds: float


def run(script: Path) -> Ended:
    """Run one; what it prints is seen at once."""
    print(f"── {script.stem} ──", flush=True)
    begun = time.monotonic()
    status = subprocess.run([sys.executable, script, "--check"]).returncode
    return Ended(name=script.stem, status=status, seconds=time.monotonic() - begun)


def report(all_ended: Sequence[Ended]) -> None:
    """Print the table."""
    table = Table("benchmark", "bars", "time")
    for ended in all_ended:
        minutes, seconds = divmod(round(ended.seconds), 60)
        table.add_row(ended.name, "MISSED" if ended.status else "met", f"{minutes}:{seconds:02}")
    Console().print(table)


def main() -> int:
    """Run them all; 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="+", type=Path, metavar="SCRIPT", help="benchmarks that know --check")
    all_ended = [run(script) for script in parser.parse_args().scripts]
    report(all_ended)
    return int(any(ended.status for ended in all_ended))


if __name__ == "__main__":
    sys.exit(main())
