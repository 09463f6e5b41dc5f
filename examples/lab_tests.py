"""Asks a running inference server what three lab tests are.

Run: python examples/lab_tests.py [ADDRESS]
"""

import sys

import grpc
from lamina.v1 import labs_pb2, labs_pb2_grpc


def main(address: str) -> None:
    """Print the category and the best LOINC candidate of each test."""
    request = labs_pb2.ClassifyLabTestsRequest(
        tests=[
            labs_pb2.LabTest(name="Hemoglobin", value="13.5", unit="g/dL"),
            labs_pb2.LabTest(name="Gula darah puasa", value="95", unit="mg/dL"),
            labs_pb2.LabTest(name="Invoice total", value="250.000"),
        ]
    )
    with grpc.insecure_channel(address) as channel:
        response = labs_pb2_grpc.LabServiceStub(channel).ClassifyLabTests(request, timeout=30)
    for test, found in zip(request.tests, response.classifications, strict=True):
        best = found.candidates[0] if found.candidates else None
        code = best.code if best and found.status == labs_pb2.MATCH_STATUS_MATCHED else "no match"
        print(f"{test.name:20} {found.category:30} {code}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001")
