"""Ports of this machine on which nobody listens now."""

from __future__ import annotations

import random
import socket

# Below those from which Linux, macOS and Windows give outgoing connections theirs: one of these is not taken while a server starts.
_PORTS = range(15000, 32000)
# A server may take a while to listen, so none is told twice in one process.
_told: set[int] = set()


def free_port() -> int:
    """One of 127.0.0.1. Somebody else may take it before it is used, which is unlikely."""
    while True:
        # Not from a seeded generator: processes of tests run side by side.
        port = random.SystemRandom().choice(_PORTS)
        if port not in _told and _is_free(port):
            _told.add(port)
            return port


def free_address() -> str:
    """The same as host:port."""
    return f"127.0.0.1:{free_port()}"


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
