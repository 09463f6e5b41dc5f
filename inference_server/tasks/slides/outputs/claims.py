"""Which analyses of this server write where: two in one folder would mix their files."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from inference_server.errors import OutputInUse


class Claims:
    """The folders that analyses write to. They are in memory, so that nothing of a killed server holds one."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()

    @contextmanager
    def held(self, output_uri: str, place: Hashable) -> Iterator[None]:
        """A folder for as long as the block lasts. `place`: the same however it is spelled. Raises `OutputInUse`."""
        if place in self._held:
            raise OutputInUse(
                f"another analysis on this server is writing to {output_uri}, and files of the two would be mixed there. "
                "Give each analysis an output_uri of its own, or send this one again when the other has ended or been cancelled."
            )
        self._held.add(place)
        try:
            yield
        finally:
            self._held.remove(place)
