"""Runs a module of Python that finds names in a file of ours, written as /etc/hosts is: `named_hosts FILE MODULE [ARGUMENT …]`."""

from __future__ import annotations

import runpy
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write(path: Path, lines: Sequence[str]) -> None:
    """Change such a file in place, as it may be mounted, so that no reader sees half of it."""
    text = "".join(f"{line}\n" for line in lines)
    with path.open("r+" if path.exists() else "w") as file:
        file.write(text.ljust(path.stat().st_size, "\n"))
        file.flush()
        file.truncate(len(text))


def main() -> None:
    """Run the module."""
    path, module = Path(sys.argv[1]), sys.argv[2]
    ask = socket.getaddrinfo

    def look_up(host: str, port: int, *rest: Any, **named: Any) -> Any:
        addresses = [line.split()[0] for line in path.read_text().splitlines() if line.split()[1:] == [host]]
        return [found for address in addresses or [host] for found in ask(address, port, *rest, **named)]

    socket.getaddrinfo = look_up  # type: ignore[assignment]
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
