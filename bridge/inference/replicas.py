"""Finds every inference server behind one address: what all of them should know must be told to each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from bridge.errors import OverloadError


async def replicas(address: str) -> Sequence[str]:
    """The addresses (host:port) that a name stands for, sorted; a numeric one stands for itself. Raises `OverloadError`."""
    host = host_of(address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, int(address.rpartition(":")[2]), type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise OverloadError(f"the inference server's name {host!r} stands for no address now ({error})") from error
    return sorted({_written(str(place[0]), int(place[1])) for _, _, _, _, place in found})


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_of(address: str) -> str:
    """The name or number before the port; also of gRPC's own spelling, dns:///name:port."""
    return address.rpartition(":")[0].removeprefix("dns:").lstrip("/").strip("[]")
