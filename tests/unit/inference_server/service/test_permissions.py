"""Every method of every service has its permission."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from grpc_health.v1 import health_pb2
from inference import grpc_service_pb2
from lamina.v1 import documents_pb2, labs_pb2, slides_pb2

from inference_server.service.security.permissions import NEEDS, Need, Permission, need_of


def methods() -> Iterator[str]:
    for module in (health_pb2, grpc_service_pb2, slides_pb2, documents_pb2, labs_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}"


def test_every_method_is_in_the_table() -> None:
    assert [path for path in methods() if not any(path.startswith(prefix) for prefix in NEEDS)] == []


@pytest.mark.parametrize(
    ("path", "need"),
    [
        ("/grpc.health.v1.Health/Watch", Need.NOTHING),
        ("/inference.GRPCInferenceService/ServerReady", Need.NOTHING),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Need.A_NAME),
        ("/inference.GRPCInferenceService/ModelInfer", Permission.INFER),
        ("/inference.GRPCInferenceService/RepositoryIndex", Permission.INFER),
        ("/inference.GRPCInferenceService/RepositoryModelUnload", Permission.ADMIN),
        ("/inference.GRPCInferenceService/CudaSharedMemoryStatus", Permission.ADMIN),
        ("/inference.GRPCInferenceService/LogSettings", Permission.ADMIN),
        ("/lamina.v1.SlideService/AnalyzeSlide", Permission.SLIDES),
        ("/lamina.v1.DocumentService/RecognizeDocument", Permission.DOCUMENTS),
        ("/lamina.v1.LabService/Embed", Permission.LABS),
        ("/another.Service/Method", Permission.ADMIN),
        ("", Permission.ADMIN),
    ],
)
def test_what_a_method_needs(path: str, need: Permission | Need) -> None:
    assert need_of(path) is need
