"""The span of one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridge.tracing.context import CURRENT
from bridge.tracing.port import Carrier, Kind, Tracer


@contextmanager
def followed(tracer: Tracer, request: Any, *, address: str) -> Iterator[Carrier]:
    """Follow a call until it has ended; gives what the server is told of the trace. `request`: the call's protobuf message."""
    name = request.DESCRIPTOR.name.removesuffix("Request")
    service = next((each.full_name for each in request.DESCRIPTOR.file.services_by_name.values() if name in each.methods_by_name), "")
    facts = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name, "server.address": address}
    span = tracer.start(f"{service}/{name}", parent=CURRENT.get(), kind=Kind.CLIENT, facts=facts)
    try:
        yield span.carrier
    except GeneratorExit:  # who reads a stream has what was wanted
        span.end()
        raise
    except BaseException as error:
        code = getattr(error, "code", None)
        span.end(failure=str(code().name) if callable(code) else type(error).__name__)
        raise
    span.end()
