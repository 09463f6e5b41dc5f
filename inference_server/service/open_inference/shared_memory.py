"""Tensors in system shared memory: objects of /dev/shm that clients registered by name.

Off unless the operator names prefixes of keys. Elements are copied in and out with `pread` and `pwrite`, never mapped: a client that
shortens or changes its object while a model runs can then neither end the server nor change what the model sees. No error tells a key.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_server.errors import AlreadyExists, InvalidInput, NotEnabled, NotFound

_FOLDER = Path("/dev/shm")  # noqa: S108  # where POSIX shared memory lies
_KEY = re.compile(r"/?(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]{0,250})")
_LONGEST_NAME = 256
_LARGEST = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class RegionFacts:
    """What a region was registered with."""

    name: str
    # The client's own key, told back to clients in the status only.
    key: str
    # Bytes from the object's start, and of the region.
    offset: int
    size: int


class Region:
    """A part of a shared memory object; its methods may be called from any thread."""

    def __init__(self, facts: RegionFacts, descriptor: int) -> None:
        """Owns the descriptor."""
        self.facts = facts
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def check(self, offset: int, size: int) -> None:
        """Raises `InvalidInput` for a part that does not lie within the region."""
        if not (0 <= offset <= self.facts.size and 0 <= size <= self.facts.size - offset):
            raise InvalidInput(
                f"{size} bytes at offset {offset} do not lie within the shared memory region {self.facts.name} of {self.facts.size} bytes."
            )

    def read(self, offset: int, size: int) -> memoryview:
        """A copy of a part. Raises `InvalidInput` when it does not lie within the region, or not within its object any more."""
        self.check(offset, size)
        content = memoryview(bytearray(size))
        got = 0
        with self._lock:
            self._usable()
            while got < size:
                count = os.preadv(self._descriptor, [content[got:]], self.facts.offset + offset + got)
                if count == 0:
                    raise self._shortened()
                got += count
        return content

    def write(self, offset: int, content: bytes | memoryview) -> None:
        """Overwrite a part; raises as `read` does."""
        self.check(offset, len(content))
        view = memoryview(content)
        begin = self.facts.offset + offset
        with self._lock:
            self._usable()
            if os.fstat(self._descriptor).st_size < begin + len(view):
                raise self._shortened()
            written = 0
            while written < len(view):
                written += os.pwrite(self._descriptor, view[written:], begin + written)

    def close(self) -> None:
        """Let go of the object; a second call does nothing."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def _usable(self) -> None:
        if self._descriptor < 0:
            raise InvalidInput(f"the shared memory region {self.facts.name} was unregistered while a request used it.")

    def _shortened(self) -> InvalidInput:
        return InvalidInput(f"the shared memory region {self.facts.name} is shorter than it was registered; register it anew.")


class SharedMemory:
    """The registered regions."""

    def __init__(self, prefixes: Sequence[str] = (), *, most_regions: int = 1024) -> None:
        """`prefixes`: what keys must begin with, one of them; none refuses everything."""
        self._prefixes = tuple(prefixes)
        self._most_regions = most_regions
        self._regions: dict[str, Region] = {}

    @property
    def enabled(self) -> bool:
        """Whether regions can be registered."""
        return bool(self._prefixes)

    def register(self, name: str, key: str, *, offset: int, size: int) -> None:
        """Make a region known.

        Raises `NotEnabled`, `AlreadyExists`, `NotFound` when there is no such object, and `InvalidInput` for a name, key or size that
        cannot be.
        """
        self._check_enabled()
        if not 1 <= len(name) <= _LONGEST_NAME:
            raise InvalidInput(f"the name of a shared memory region has 1 to {_LONGEST_NAME} characters.")
        if name in self._regions:
            raise AlreadyExists(f"a shared memory region {name} is registered already; unregister it, or take another name.")
        if len(self._regions) >= self._most_regions:
            raise InvalidInput(
                f"{self._most_regions} shared memory regions are registered, which is the limit; unregister some.",
                limit="shared_memory_regions",
            )
        if not (1 <= size <= _LARGEST and 0 <= offset <= _LARGEST - size):
            raise InvalidInput(f"the shared memory region {name} has no size, or a size and offset beyond any object.")
        descriptor = self._open(name, key)
        try:
            _check_object(name, descriptor, offset + size)
        except InvalidInput:
            os.close(descriptor)
            raise
        self._regions[name] = Region(RegionFacts(name=name, key=key, offset=offset, size=size), descriptor)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all of them; one that is not known is forgotten already."""
        names = [name] if name else list(self._regions)
        for each in names:
            region = self._regions.pop(each, None)
            if region is not None:
                region.close()

    def status(self, name: str = "") -> Mapping[str, RegionFacts]:
        """What is registered, one region or all of them. Raises `NotFound`."""
        return {each: region.facts for each, region in self._regions.items()} if not name else {name: self.region(name).facts}

    def region(self, name: str) -> Region:
        """A registered region. Raises `NotEnabled` or `NotFound`."""
        if name not in self._regions:
            self._check_enabled()
            raise NotFound(f"there is no shared memory region {name}; register it first.")
        return self._regions[name]

    def _check_enabled(self) -> None:
        if not self.enabled:
            raise NotEnabled(
                "shared memory is off; send tensors in the messages, or start the server with INFERENCE_SHARED_MEMORY naming the prefixes "
                "of the keys that clients may register."
            )

    def _open(self, name: str, key: str) -> int:
        found = _KEY.fullmatch(key)
        if not found or not found["name"].startswith(self._prefixes):
            raise InvalidInput(
                f"the key of the shared memory region {name} is not allowed; it must begin with one of {', '.join(self._prefixes)} "
                "and hold only letters, digits, dots, dashes and underscores."
            )
        try:
            return os.open(_FOLDER / found["name"], os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise NotFound(f"the object of the shared memory region {name} cannot be opened; create it before it is registered.") from error


def _check_object(name: str, descriptor: int, end: int) -> None:
    told = os.fstat(descriptor)
    if not stat.S_ISREG(told.st_mode):
        raise InvalidInput(f"the key of the shared memory region {name} names no shared memory.")
    if end > told.st_size:
        raise InvalidInput(f"the shared memory region {name} reaches beyond the end of its object; make one larger or the other smaller.")
