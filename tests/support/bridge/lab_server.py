"""A server of lab tests as a process of its own, without models: `lab_server ADDRESS LOG SECONDS` takes so long over each call."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from lamina.v1 import labs_pb2

from tests.support.bridge.scripted_server import scripted_server


@dataclass(frozen=True, kw_only=True)
class Served:
    """What such a server has noted so far."""

    # Keys of the jobs whose calls it has begun, and of those that it has ended.
    begun: list[str]
    ended: list[str]

    @property
    def unfinished(self) -> set[str]:
        """Jobs that it had in its hands."""
        return set(self.begun) - set(self.ended)


def served(log: Path) -> Served:
    """Read a server's notes; a line that is cut off by a kill is left out."""
    lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")] if log.exists() else []
    notes: Mapping[str, list[str]] = {kind: [key for what, key in lines if what == kind] for kind in ("begun", "ended")}
    return Served(begun=notes["begun"], ended=notes["ended"])


async def _serve(address: str, log: Path, seconds: float) -> None:
    host, _, port = address.rpartition(":")
    with log.open("a", buffering=1) as notes:

        async def classify(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            notes.write(f"begun {request.request_id}\n")
            await asyncio.sleep(seconds)
            found = [labs_pb2.LabTestClassification(id=test.id, category="Other", explanation="scripted") for test in request.tests]
            notes.write(f"ended {request.request_id}\n")
            yield labs_pb2.ClassifyLabTestsResponse(classifications=found, model="scripted:1", catalogue="scripted")

        async with scripted_server(host=host, port=int(port)) as server:
            server.script = [classify]
            notes.write("listens now\n")
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
