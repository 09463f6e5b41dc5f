"""LabService on the wire: messages to values, one call into the lab task, values to messages."""

from __future__ import annotations

from typing import Any

import grpc.aio
from lamina.v1 import labs_pb2, labs_pb2_grpc

from inference_server.service.caller import caller_of
from inference_server.tasks.labs.classifier import Classification, LabClassifier
from inference_server.tasks.labs.matching.aliases import Alias
from inference_server.tasks.labs.matching.match import Candidate, Status
from inference_server.tasks.labs.measures.results import Flag, Kind, LabResult
from inference_server.tasks.labs.parsing.normalise import PrintedTest

_STATUSES = {
    Status.MATCHED: labs_pb2.MATCH_STATUS_MATCHED,
    Status.NO_MATCH: labs_pb2.MATCH_STATUS_NO_MATCH,
    Status.NEEDS_REVIEW: labs_pb2.MATCH_STATUS_NEEDS_REVIEW,
}

_KINDS = {
    Kind.NUMBER: labs_pb2.RESULT_KIND_NUMBER,
    Kind.TITRE: labs_pb2.RESULT_KIND_TITRE,
    Kind.ORDINAL: labs_pb2.RESULT_KIND_ORDINAL,
    Kind.TEXT: labs_pb2.RESULT_KIND_TEXT,
}
_FLAGS = {
    Flag.LOW: labs_pb2.RESULT_FLAG_LOW,
    Flag.NORMAL: labs_pb2.RESULT_FLAG_NORMAL,
    Flag.HIGH: labs_pb2.RESULT_FLAG_HIGH,
    Flag.ABNORMAL: labs_pb2.RESULT_FLAG_ABNORMAL,
}


class LabServicer(labs_pb2_grpc.LabServiceServicer):
    """Serves LabService."""

    def __init__(self, labs: LabClassifier) -> None:
        """`labs`: the task; it may still be starting."""
        self._labs = labs

    async def ClassifyLabTests(  # noqa: N802  # named by the protocol
        self, request: labs_pb2.ClassifyLabTestsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> labs_pb2.ClassifyLabTestsResponse:
        """Category, candidates and verdict of each test."""
        tests = [
            PrintedTest(
                name=test.name,
                value=test.value,
                unit=test.unit,
                specimen=test.specimen,
                reference_range=test.reference_range,
                heading=test.heading,
                sex=test.sex,
                age=test.age_years if test.HasField("age_years") else None,
            )
            for test in request.tests
        ]
        found = await self._labs.classify(tests, top=request.top_k, locale=request.locale, caller=caller_of(context))
        return labs_pb2.ClassifyLabTestsResponse(
            classifications=[_classification(test.id, each) for test, each in zip(request.tests, found.tests, strict=True)],
            model=found.model,
            catalogue=found.catalogue,
        )

    async def SearchLoinc(  # noqa: N802  # named by the protocol
        self, request: labs_pb2.SearchLoincRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> labs_pb2.SearchLoincResponse:
        """Codes that fit a free text."""
        hits = await self._labs.search(request.query, limit=request.limit, caller=caller_of(context))
        return labs_pb2.SearchLoincResponse(candidates=map(_candidate, hits))

    async def UpsertAliases(  # noqa: N802  # named by the protocol
        self, request: labs_pb2.UpsertAliasesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> labs_pb2.UpsertAliasesResponse:
        """Remember reviewed names."""
        aliases = [Alias(name=alias.name, code=alias.code, unit=alias.unit, specimen=alias.specimen) for alias in request.aliases]
        inserted, updated = await self._labs.upsert_aliases(aliases)
        return labs_pb2.UpsertAliasesResponse(inserted=inserted, updated=updated)

    async def Embed(  # noqa: N802  # named by the protocol
        self, request: labs_pb2.EmbedRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> labs_pb2.EmbedResponse:
        """Embeddings of texts."""
        vectors, model = await self._labs.embed(request.texts, model=request.model, caller=caller_of(context))
        return labs_pb2.EmbedResponse(embeddings=[labs_pb2.Embedding(values=row) for row in vectors], model=model)


def _classification(identifier: str, found: Classification) -> labs_pb2.LabTestClassification:
    return labs_pb2.LabTestClassification(
        id=identifier,
        category=found.category,
        category_confidence=found.category_confidence,
        status=_STATUSES[found.match.status],
        candidates=map(_candidate, found.match.candidates),
        explanation=found.match.explanation,
        result=None if found.result is None else _result(found.result),
    )


def _result(result: LabResult) -> labs_pb2.LabResult:
    reading, flagged = result.reading, result.flagged
    return labs_pb2.LabResult(
        raw=reading.raw,
        kind=_KINDS[reading.kind],
        bound=reading.bound,
        number=reading.number,
        text=reading.text,
        unit=reading.unit,
        converted_number=result.converted_number,
        converted_unit=result.converted_unit,
        flag=_FLAGS[flagged.flag] if flagged else labs_pb2.RESULT_FLAG_UNSPECIFIED,
        flag_basis=flagged.basis if flagged else "",
    )


def _candidate(candidate: Candidate) -> labs_pb2.LoincCandidate:
    entry = candidate.entry
    return labs_pb2.LoincCandidate(
        code=entry.code,
        long_common_name=entry.long_common_name,
        component=entry.component,
        system=entry.system,
        property=entry.property,
        score=candidate.score,
        reasons=candidate.reasons,
    )
