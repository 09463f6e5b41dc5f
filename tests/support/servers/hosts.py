"""Several hosts on this machine, and a name that stands for some of them.

They are network namespaces where those may be made, else loopback addresses; LAMINA_HOSTS=loopback asks for the latter.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from tests.support.servers import named_hosts

NAME = "inference.test"


class Hosts(Protocol):
    """A few hosts, numbered from 1, and a client that knows them by name."""

    # What they are made of.
    kind: str
    # Where servers listen, on each of them.
    port: int

    def address(self, host: int) -> str:
        """A host's address, without a port."""

    def command(self, host: int, *command: str) -> list[str]:
        """How to run a command there."""

    def client_command(self, module: str, *arguments: str) -> list[str]:
        """How to run a module of Python that finds the hosts by their name."""

    def point(self, *hosts: int) -> None:
        """Let the name stand for these from now on."""


class NamespaceHosts:
    """Each host is a network of its own, joined to the client's by a cable; names are those of the client's /etc/hosts."""

    kind = "network namespaces"
    port = 8001

    def __init__(self, stack: ExitStack, names: Path, count: int) -> None:
        self._names = names
        self.point()
        self._client = _holder(stack, ["unshare", "--user", "--map-root-user", "--net", "--mount", "--kill-child"])
        self._run(0, "ip", "link", "set", "lo", "up")
        self._run(0, "ip", "link", "add", "switch", "type", "bridge")
        self._run(0, "ip", "addr", "add", "10.77.0.254/24", "dev", "switch")
        self._run(0, "ip", "link", "set", "switch", "up")
        self._run(0, "mount", "--bind", str(names), "/etc/hosts")
        self._hosts = [_holder(stack, [*_into(self._client), "unshare", "--net"]) for _ in range(count)]
        for host, holder in enumerate(self._hosts, start=1):
            self._run(0, "ip", "link", "add", f"cable{host}", "type", "veth", "peer", "name", "eth0", "netns", str(holder))
            self._run(0, "ip", "link", "set", f"cable{host}", "master", "switch", "up")
            self._run(host, "ip", "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self._run(host, "ip", "link", "set", device, "up")

    def address(self, host: int) -> str:
        return f"10.77.0.{host}"

    def command(self, host: int, *command: str) -> list[str]:
        return [*_into(self._hosts[host - 1] if host else self._client), *command]

    def client_command(self, module: str, *arguments: str) -> list[str]:
        return self.command(0, sys.executable, "-m", module, *arguments)

    def point(self, *hosts: int) -> None:
        named_hosts.write(self._names, ["127.0.0.1 localhost", *(f"{self.address(host)} {NAME}" for host in hosts)])

    def _run(self, host: int, *command: str) -> None:
        subprocess.run(self.command(host, *command), check=True, capture_output=True, timeout=60)


class LoopbackHosts:
    """Each host is an address of this machine; names are those of a file that the client reads instead of /etc/hosts."""

    kind = "loopback addresses"

    def __init__(self, names: Path) -> None:
        self._names = names
        self.point()
        with socket.create_server((self.address(1), 0)) as free:
            self.port: int = free.getsockname()[1]

    def address(self, host: int) -> str:
        return f"127.0.1.{host}"

    def command(self, host: int, *command: str) -> list[str]:
        return list(command)

    def client_command(self, module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", named_hosts.__name__, str(self._names), module, *arguments]

    def point(self, *hosts: int) -> None:
        named_hosts.write(self._names, [f"{self.address(host)} {NAME}" for host in hosts])


@contextmanager
def open_hosts(folder: Path, count: int) -> Iterator[Hosts]:
    """So many hosts, of the best kind that this machine allows."""
    with ExitStack() as stack:
        try:
            if os.environ.get("LAMINA_HOSTS") == "loopback":
                raise OSError("LAMINA_HOSTS says so")
            hosts: Hosts = NamespaceHosts(stack, folder / "hosts", count)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"no network namespaces here: {error}", file=sys.stderr)
            hosts = LoopbackHosts(folder / "hosts")
        yield hosts


def _into(holder: int) -> Sequence[str]:
    return ["nsenter", "--target", str(holder), "--user", "--net", "--mount", "--preserve-credentials"]


def _holder(stack: ExitStack, unshare: Sequence[str]) -> int:
    """A process that does nothing but hold new namespaces; its id."""
    process = subprocess.Popen([*unshare, "sh", "-c", "echo ready; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stack.callback(process.wait, 10)
    stack.callback(process.kill)
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise OSError("unshare is not allowed")
    return process.pid
