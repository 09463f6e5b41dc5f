"""Tries a Dockerfile step by step where there is no container engine: every COPY and RUN of its stages, in folders of their own.

Usage: python scripts/try_image.py Dockerfile.cpu FOLDER [--build-arg NAME=VALUE] …
FOLDER then holds one folder a stage, and `image`, what the last stage would hold. Absolute paths of the image are paths below that of its
stage, `python` is this machine's, and packages may come from uv's cache. Steps that need an image's own root are told and left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).parents[1]
# Folders of the image that its steps name by absolute paths.
_PATHS = re.compile(r"(?<![\w./}])/(opt|src|models|var/lib/lamina)(?=[/\s;&\"']|$)")
# Programs that an ordinary user has not, or that change the machine.
_NEED_ROOT = re.compile(r"^\s*(apt-get|useradd|install --directory --owner|rm -rf /var/lib/apt|if command -v)")


@dataclass
class Stage:
    """One stage as far as it has come."""

    name: str
    folder: Path
    work: str = "/"
    arguments: dict[str, str] = field(default_factory=dict)
    # What could not be tried here.
    left_out: list[str] = field(default_factory=list)

    def place(self, path: str) -> Path:
        """Where a path of the image lies."""
        return self.folder / (path if path.startswith("/") else f"{self.work}/{path}").lstrip("/")


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile, without comments, lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        yield name.upper(), rest.strip()


def try_image(dockerfile: Path, folder: Path, arguments: Mapping[str, str]) -> list[Stage]:
    """Carry out the stages that the last one needs. Raises `CalledProcessError` where a step fails."""
    split: list[tuple[str, str, list[tuple[str, str]]]] = []
    global_arguments: dict[str, str] = {}
    for name, rest in instructions(dockerfile.read_text(encoding="utf-8")):
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            split.append((_filled(base, global_arguments), stage.strip() or "image", []))
        elif split:
            split[-1][2].append((name, rest))
        elif name == "ARG":
            variable, _, default = rest.partition("=")
            global_arguments[variable] = arguments.get(variable, default)
    done: dict[str, Stage] = {}
    needed = _needed(split)
    for base, name, steps in split:
        if name in needed:
            done[name] = stage = Stage(name=name, folder=folder / name, arguments=dict(global_arguments))
            _begin(stage, done.get(base))
            for step in steps:
                _do(stage, done, arguments, *step)
    return list(done.values())


def _needed(split: list[tuple[str, str, list[tuple[str, str]]]]) -> set[str]:
    """The stages that the last one is made of."""
    stages = {name: (base, steps) for base, name, steps in split}
    found, waiting = set[str](), [split[-1][1]]
    while waiting:
        name = waiting.pop()
        if name in stages and name not in found:
            found.add(name)
            base, steps = stages[name]
            waiting += [base, *(re.findall(r"--from=(\S+)", " ".join(rest for kind, rest in steps if kind == "COPY")))]
    return found


def _begin(stage: Stage, base: Stage | None) -> None:
    if base is None:
        stage.folder.mkdir(parents=True)
        return
    # A GB is not copied: nothing writes into a file that an earlier stage made.
    shutil.copytree(base.folder, stage.folder, symlinks=True, copy_function=os.link)
    stage.work, stage.arguments, stage.left_out = base.work, dict(base.arguments), list(base.left_out)
    _rename(stage, base)


def _rename(stage: Stage, origin: Stage) -> None:
    """Programs of environments name the folder that they were installed in."""
    old, new = str(origin.folder).encode(), str(stage.folder).encode()
    for program in [path for path in stage.folder.glob("opt/*/bin/*") if path.is_file() and not path.is_symlink()]:
        content = program.read_bytes()
        if old in content[:4096]:
            mode = program.stat().st_mode
            program.unlink()
            program.write_bytes(content.replace(old, new))
            program.chmod(mode)


def _do(stage: Stage, done: Mapping[str, Stage], arguments: Mapping[str, str], name: str, rest: str) -> None:
    if name == "ARG":
        variable, _, default = rest.partition("=")
        stage.arguments[variable] = arguments.get(variable, default or stage.arguments.get(variable, ""))
    elif name == "WORKDIR":
        stage.work = rest
        stage.place(rest).mkdir(parents=True, exist_ok=True)
    elif name == "COPY":
        _copy(stage, done, _filled(rest, stage.arguments))
    elif name == "RUN":
        _run(stage, _filled(rest, stage.arguments, braced=True))


def _copy(stage: Stage, done: Mapping[str, Stage], rest: str) -> None:
    *sources, target = [word for word in shlex.split(rest) if not word.startswith("--")]
    origin = re.search(r"--from=(\S+)", rest)
    for source in sources:
        found = done[origin[1]].place(source) if origin else _ROOT / source
        place = stage.place(target)
        place = place / found.name if target.endswith("/") or len(sources) > 1 else place
        place.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            copy = os.link if origin else shutil.copy2
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True, ignore=ignored, copy_function=copy)
        else:
            shutil.copy(found, stage.place(target) / found.name if place.is_dir() else place)
    if origin:
        _rename(stage, done[origin[1]])


def _run(stage: Stage, command: str) -> None:
    steps = [part.strip() for part in re.split(r"\s&&\s", command)]
    stage.left_out += [step for step in steps if _NEED_ROOT.match(step)]
    for step in [step for step in steps if not _NEED_ROOT.match(step)]:
        here = _PATHS.sub(lambda match: f"{stage.folder}/{match[1]}", step).replace(" --no-cache ", " ")
        print(f"[{stage.name}] {step}", flush=True)
        work = stage.place(stage.work)
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run(["bash", "-euo", "pipefail", "-c", here], cwd=work, env=_environment(stage.folder.parent), check=True)


def _environment(folder: Path) -> dict[str, str]:
    """This machine's Python under the names that images have for it, and nothing of this checkout's environment."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    python = Path(sys.base_prefix) / "bin" / "python3"
    for name in ("python", "python3"):
        if not (programs / name).exists():
            (programs / name).symlink_to(python)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON", "INFERENCE_", "BRIDGE_"))}
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}


def _filled(text: str, arguments: Mapping[str, str], *, braced: bool = False) -> str:
    """With the build's arguments; `braced`: those of the shell are left alone."""
    pattern = r"\$\{(\w+)\}" if braced else r"\$\{?(\w+)\}?"
    return re.sub(pattern, lambda match: arguments.get(match[1], match[0]), text)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    arguments = dict(argument.split("=", 1) for argument in given.build_arg)
    stages = try_image(given.dockerfile, given.folder.resolve(), arguments)
    for step in dict.fromkeys(step for stage in stages for step in stage.left_out):
        print(f"left out: {step}")


if __name__ == "__main__":
    main()
