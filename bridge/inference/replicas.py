"""Finds every inference server behind one address."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.errors import OverloadError


@dataclass(frozen=True, kw_only=True, order=True)
class Replica:
    """One place where an inference server listens."""

    # Number and port, such as 10.0.3.7:8001.
    address: str
    # What the settings call it: the name before the port, which its certificate must have.
    name: str


async def replicas(address: str, *, name: str = "") -> Sequence[Replica]:
    """The places that `address` stands for, sorted: a name for each of its addresses, a number for itself.

    `address`: host:port, or several, separated by commas. `name`: what to call them, where it is another.
    Raises `OverloadError` when it stands for none now.
    """
    found: set[Replica] = set()
    problems: list[str] = []
    for one in address.split(","):
        try:
            found.update(await _behind(one.strip(), name))
        except (OSError, ValueError) as error:
            problems.append(f"the inference server's name {host_of(one)!r} stands for no address now ({error})")
    if not found:
        raise OverloadError("; ".join(problems))
    return sorted(found)


async def _behind(address: str, name: str) -> set[Replica]:
    host, port = host_of(address), int(address.rpartition(":")[2])
    if _is_number(host):
        return {Replica(address=_written(host, port), name=name or host)}
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return {Replica(address=_written(str(place[0]), int(place[1])), name=name or host) for _, _, _, _, place in found}


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_of(address: str) -> str:
    """The name or number before the port; also of gRPC's own spelling, dns:///name:port."""
    return address.strip().rpartition(":")[0].removeprefix("dns:").lstrip("/").strip("[]")
