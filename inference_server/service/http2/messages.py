"""Messages on their way: what they may be, what room there is for them, and what a call ends with."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import grpc

from inference_server.service.http2.headers import Metadata

# A message is preceded by whether it is compressed, and its size.
PREFIX_SIZE = 5
PREFIX = struct.Struct(">BI")

# Bytes of memory that a message takes beside its own: a caller may send many that are empty.
OVERHEAD = 128

# What an UNAVAILABLE of ours carries: without it, it is not the server that said so, but the connection that broke.
OWN_STATUS: Metadata = (("lamina-own-status", "1"),)

Content = bytes | bytearray


class BytesBudget:
    """Bounds the bytes of all messages that are on their way in one direction."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def try_hold(self, size: int, *, own: int = 0) -> bool:
        """Take so many bytes if they fit; one message alone, which holds its `own` bytes already, always fits."""
        if self.held > own and self.held + size > self._most:
            return False
        self.held += size
        return True

    def release(self, size: int) -> None:
        """Give them back."""
        self.held -= size


@dataclass(frozen=True, kw_only=True)
class MessageLimits:
    """What messages may be."""

    # Bytes of one, before and after decompression.
    most_bytes: int
    # Of those that have begun to arrive and were not yet taken, and of those that wait for their callers to take them.
    arriving: BytesBudget
    leaving: BytesBudget


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What a call ends with."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    metadata: Metadata = field(default=())


PUSHBACK: Metadata = (("retry-after-ms", "250"), ("grpc-retry-pushback-ms", "250"))
