"""Ports of this machine on which nobody listens now."""

from __future__ import annotations

import socket


def free_port() -> int:
    """One of 127.0.0.1. Somebody else may take it before it is used."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def free_address() -> str:
    """The same as host:port."""
    return f"127.0.0.1:{free_port()}"
