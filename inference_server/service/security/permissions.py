"""Which permission each method needs. This table is the only place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from types import MappingProxyType


class Permission(Enum):
    """What a caller may be allowed."""

    # Models: their facts, their state, running them.
    INFER = "infer"
    # What changes the server for everybody: loading models, shared memory, settings of traces and logs.
    ADMIN = "admin"
    SLIDES = "slides"
    DOCUMENTS = "documents"
    LABS = "labs"


class Need(Enum):
    """What a method asks beside the permissions."""

    # Anybody may call it.
    NOTHING = "nothing"
    # Anybody whom the server knows may.
    A_NAME = "a name"


_PROTOCOL = "/inference.GRPCInferenceService/"

# By the longest prefix of /package.Service/Method that fits.
NEEDS: Mapping[str, Permission | Need] = MappingProxyType(
    {
        "/grpc.health.v1.Health/": Need.NOTHING,
        f"{_PROTOCOL}ServerLive": Need.NOTHING,
        f"{_PROTOCOL}ServerReady": Need.NOTHING,
        "/grpc.reflection.": Need.A_NAME,
        f"{_PROTOCOL}ServerMetadata": Permission.INFER,
        f"{_PROTOCOL}ModelReady": Permission.INFER,
        f"{_PROTOCOL}ModelMetadata": Permission.INFER,
        f"{_PROTOCOL}ModelConfig": Permission.INFER,
        f"{_PROTOCOL}ModelStatistics": Permission.INFER,
        f"{_PROTOCOL}ModelInfer": Permission.INFER,
        f"{_PROTOCOL}ModelStreamInfer": Permission.INFER,
        f"{_PROTOCOL}RepositoryIndex": Permission.INFER,
        f"{_PROTOCOL}RepositoryModelLoad": Permission.ADMIN,
        f"{_PROTOCOL}RepositoryModelUnload": Permission.ADMIN,
        f"{_PROTOCOL}SystemSharedMemory": Permission.ADMIN,
        f"{_PROTOCOL}CudaSharedMemory": Permission.ADMIN,
        f"{_PROTOCOL}TraceSetting": Permission.ADMIN,
        f"{_PROTOCOL}LogSettings": Permission.ADMIN,
        "/lamina.v1.SlideService/": Permission.SLIDES,
        "/lamina.v1.DocumentService/": Permission.DOCUMENTS,
        "/lamina.v1.LabService/": Permission.LABS,
    }
)


@lru_cache(maxsize=256)
def need_of(path: str) -> Permission | Need:
    """What a method needs; a method that the table does not know is for admins."""
    fitting = [prefix for prefix in NEEDS if path.startswith(prefix)]
    return NEEDS[max(fitting, key=len)] if fitting else Permission.ADMIN
