"""Programs in the place of others, such as docker: they write down how they were called, and answer as they are told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """#!{python}
import json, os, sys
called = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
given = sys.stdin.read() if "--password-stdin" in called else ""
with open({log!r}, "a") as log:
    log.write(json.dumps([called, given]) + "\\n")
for start, answer, status in json.load(open({answers!r})):
    if called[:len(start)] == start:
        print(answer) if answer else None
        sys.exit(status)
"""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A folder of such programs, to be first on the path."""

    folder: Path

    @property
    def path(self) -> str:
        """PATH with the programs in front."""
        return f"{self.folder}{os.pathsep}/usr/bin{os.pathsep}/bin"

    def answer(self, answers: Mapping[Sequence[str], str | int]) -> None:
        """What is printed, or the status, for calls that start so; the first that fits counts. Others succeed silently."""
        told = [
            [list(start), answer if isinstance(answer, str) else "", 0 if isinstance(answer, str) else answer]
            for start, answer in answers.items()
        ]
        (self.folder / "answers.json").write_text(json.dumps(told))

    def calls(self) -> list[list[str]]:
        """How they were called, in order."""
        return [called for called, _ in self._log()]

    def given(self, *start: str) -> str:
        """What the last call that starts so was given on its input."""
        return [given for called, given in self._log() if called[: len(start)] == list(start)][-1]

    def _log(self) -> list[tuple[list[str], str]]:
        log = self.folder / "calls.jsonl"
        return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def recorded_programs(folder: Path, *names: str) -> Recorded:
    """Make programs of these names in a new folder."""
    folder.mkdir()
    for name in names:
        program = folder / name
        program.write_text(_PROGRAM.format(python=sys.executable, log=str(folder / "calls.jsonl"), answers=str(folder / "answers.json")))
        program.chmod(0o755)
    recorded = Recorded(folder=folder)
    recorded.answer({})
    return recorded
