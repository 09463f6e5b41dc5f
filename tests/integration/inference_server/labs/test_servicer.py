"""LabService over a real gRPC connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import numpy as np
import pytest
from lamina.v1 import labs_pb2, labs_pb2_grpc

from inference_server.errors import InvalidInput
from inference_server.scheduler.port import Caller
from inference_server.service.labs import LabServicer
from inference_server.tasks.labs.classifier import LabClassifier
from inference_server.tasks.labs.parsing.normalise import PrintedTest


@pytest.fixture
async def client(labs: LabClassifier) -> AsyncIterator[labs_pb2_grpc.LabServiceStub]:
    server = grpc.aio.server()
    labs_pb2_grpc.add_LabServiceServicer_to_server(LabServicer(labs), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield labs_pb2_grpc.LabServiceStub(channel)
    await server.stop(0)


async def test_classifications_come_in_the_order_of_the_request(client: labs_pb2_grpc.LabServiceStub) -> None:
    request = labs_pb2.ClassifyLabTestsRequest(
        tests=[
            labs_pb2.LabTest(id="a", name="Gula darah puasa", value="105", unit="mg/dL"),
            labs_pb2.LabTest(id="b", name="asdf qwer"),
            labs_pb2.LabTest(id="c", name="Glucose", specimen="Urine", value="Negatif"),
        ],
        top_k=2,
    )
    response = await client.ClassifyLabTests(request)
    matched, no_match = labs_pb2.MATCH_STATUS_MATCHED, labs_pb2.MATCH_STATUS_NO_MATCH
    assert ["a", "b", "c"] == [each.id for each in response.classifications]
    assert [matched, no_match] == [each.status for each in response.classifications[:2]]
    assert [2, 2, 2] == [len(each.candidates) for each in response.classifications]
    first = response.classifications[0]
    assert ("Diabetes Panel", "1558-6", "Ser/Plas", "MCnc") == (
        first.category, first.candidates[0].code, first.candidates[0].system, first.candidates[0].property
    )  # fmt: skip
    assert "unit" in first.candidates[0].reasons
    assert 0.9 < first.category_confidence <= 1
    assert "Urine" == response.classifications[2].candidates[0].system
    assert ("all_minilm_l6_v2:1", True) == (response.model, response.catalogue.startswith("builtin:"))


async def test_a_value_is_read_converted_and_flagged(client: labs_pb2_grpc.LabServiceStub) -> None:
    tests = [
        labs_pb2.LabTest(name="Gula darah puasa", value="105", unit="mg/dL", reference_range="70 - 99"),
        labs_pb2.LabTest(name="Hemoglobin", value="11,5", unit="gr/dl", sex="female", age_years=30, heading="Hematologi"),
        labs_pb2.LabTest(name="Trombosit", value="245.000", unit="/uL"),
        labs_pb2.LabTest(name="HBsAg", value="Non Reaktif", reference_range="Non Reaktif"),
        labs_pb2.LabTest(name="Hemoglobin", unit="g/dL"),
    ]
    found = await client.ClassifyLabTests(labs_pb2.ClassifyLabTestsRequest(tests=tests))
    glucose, hemoglobin, platelets, antigen = (each.result for each in found.classifications[:4])
    assert ("105", labs_pb2.RESULT_FLAG_HIGH, "reported range", "mmol/L") == (
        glucose.raw, glucose.flag, glucose.flag_basis, glucose.converted_unit
    )  # fmt: skip
    assert 5.83 == pytest.approx(glucose.converted_number, abs=0.01)
    assert (11.5, "g/dL", labs_pb2.RESULT_FLAG_LOW, "sex and age") == (
        hemoglobin.number, hemoglobin.unit, hemoglobin.flag, hemoglobin.flag_basis
    )  # fmt: skip
    assert (245_000, labs_pb2.RESULT_FLAG_UNSPECIFIED) == (platelets.number, platelets.flag)
    assert ("negative", False, labs_pb2.RESULT_FLAG_NORMAL) == (antigen.text, antigen.HasField("number"), antigen.flag)
    assert not found.classifications[4].HasField("result")


@pytest.mark.parametrize(
    ("request_part", "test_part", "said"),
    [({"locale": "xx"}, {}, "no locale 'xx'"), ({}, {"sex": "Male"}, "the sex 'Male'"), ({}, {"age_years": -1.0}, "the age -1.0 years")],
)
async def test_what_is_no_locale_sex_or_age_is_refused(
    labs: LabClassifier, request_part: dict[str, str], test_part: dict[str, object], said: str
) -> None:
    test = PrintedTest(name="Hb", sex=str(test_part.get("sex", "")), age=test_part.get("age_years"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=said):
        await labs.classify([test], locale=request_part.get("locale", ""), caller=Caller(client="test"))


async def test_aliases_are_counted_and_then_found(client: labs_pb2_grpc.LabServiceStub) -> None:
    aliases = [labs_pb2.Alias(name="Tes manis ajaib", code="2345-7")]
    counted = await client.UpsertAliases(labs_pb2.UpsertAliasesRequest(aliases=aliases))
    assert (1, 0) == (counted.inserted, counted.updated)
    found = await client.SearchLoinc(labs_pb2.SearchLoincRequest(query="tes manis ajaib", limit=1))
    assert [("2345-7", ["alias"])] == [(hit.code, list(hit.reasons)) for hit in found.candidates]


async def test_embeddings_are_normalised(client: labs_pb2_grpc.LabServiceStub) -> None:
    response = await client.Embed(labs_pb2.EmbedRequest(texts=["hemoglobin", "haemoglobin", "invoice"]))
    rows = np.array([embedding.values for embedding in response.embeddings])
    assert ((3, 384), "all_minilm_l6_v2:1") == (rows.shape, response.model)
    assert rows[0] @ rows[1] > 0.8 > rows[0] @ rows[2]
