"""The card platform's handler on a real PostgreSQL, a real gRPC server and a real HTTP server in the review service's place."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import grpc
import psycopg
import pytest
from lamina.v1 import documents_pb2
from psycopg.rows import dict_row

from bridge.database.platforms import create_tables
from bridge.errors import OverloadError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import CORRELATION, Delivery, Event, Job, Outcome
from bridge.ledger.port import Claim
from bridge.records.documents import DocumentRecords
from bridge.results import ResultStore
from bridge.reviews import ReviewService
from bridge.settings import load
from bridge.store import Store, open_store
from bridge.systems.cards.finding import finding_of, reading_of
from bridge.systems.cards.handler import CardHandler
from bridge.systems.cards.options import CardOptions
from bridge.systems.cards.reading.tesseract import Tesseract
from bridge.systems.cards.review import Gate
from tests.support.bridge.claimed_context import ClaimedContext
from tests.support.bridge.scripted_server import Behaviour, ScriptedServer, answer, refuse, scripted_server
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.local_http import Asked, LocalHttp, local_http

CLEAR = (
    *("NIK : 3273010203850001", "Nama : BUDI SANTOSO", "Tempat/Tgl Lahir : BANDUNG, 02-03-1985", "Jenis Kelamin : LAKI-LAKI"),
    *("Alamat : JL. MERDEKA NO. 10", "Agama : ISLAM", "Status Perkawinan : KAWIN"),
)
UNCLEAR = ("Nama : ANI",)
# As Tesseract is given it; nothing here looks further.
CARD = b"\x89PNG\r\n\x1a\nand so on"
BY_PEOPLE = ("manually_approved", "manually_rejected", "escalation_cancelled")


def read_as(*lines: str, models: Sequence[str] = ("rec:1@onnxruntime:float32",)) -> Behaviour:
    """The server reads these lines, with these models."""
    found = []
    for row, line in enumerate(lines):
        corners = [documents_pb2.Point(x=x, y=y + 20 * row) for x, y in ((20, 12), (300, 12), (300, 22), (20, 22))]
        word = documents_pb2.Word(text=line, confidence=0.9, polygon=corners)
        found.append(documents_pb2.TextLine(text=line, confidence=0.9, polygon=corners, words=[word]))
    page = documents_pb2.DocumentPage(page_number=1, page_count=1, width=320, height=200, lines=found, text="\n".join(lines))
    page.quality.CopyFrom(documents_pb2.PageQuality(sharpness=0.3, text_height=30, contrast=0.8))
    summary = documents_pb2.DocumentSummary(page_count=1, media_type="image/png", models=models)
    return answer(documents_pb2.RecognizeDocumentResponse(page=page), documents_pb2.RecognizeDocumentResponse(summary=summary))


@dataclass
class KeptEscalations:
    """Keeps what could not be handed over."""

    cases: list[Mapping[str, Any]] = field(default_factory=list)

    def later(self, case: Mapping[str, Any]) -> Event:
        self.cases.append(case)
        return Event(type="escalation", destination="redis-list:later", body=b"{}")


@dataclass
class Office:
    """The handler and all that it works with."""

    database: str
    store: Store
    records: DocumentRecords
    client: InferenceClient
    server: ScriptedServer
    reviews: LocalHttp
    bucket: ResultStore
    escalations: KeptEscalations

    def handler(self, *, tesseract: Tesseract | None = None, **options: Any) -> CardHandler:
        return CardHandler(
            client=self.client,
            records=self.records,
            bucket=self.bucket,
            reviews=ReviewService(self.reviews.url),
            escalations=self.escalations,
            options=CardOptions(**options),
            tesseract=tesseract,
        )

    def add(self, status: str = "uploaded", **columns: Any) -> str:
        """A document's row; returns its id."""
        document = str(uuid4())
        values = {"id": document, "user_id": str(uuid4()), "type": "KTP", "file_url": "card.png", "status": status, **columns}
        names = ", ".join(values)
        self.sql(f"INSERT INTO documents ({names}) VALUES ({', '.join(['%s'] * len(values))})", *values.values())
        return document

    def sql(self, statement: str, *values: Any) -> None:
        """What another program does meanwhile."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(statement, values)

    def decide(self, document: str, verification: str) -> None:
        """What the platform writes when a person has decided."""
        self.sql("UPDATE documents SET verification_status = %s WHERE id = %s", verification, document)

    def remove(self, document: str) -> None:
        """What its owner does."""
        self.sql("DELETE FROM documents WHERE id = %s", document)

    def row(self, document: str) -> dict[str, Any]:
        with psycopg.connect(self.database, row_factory=dict_row) as connection:
            found = connection.execute("SELECT * FROM documents WHERE id = %s", [document]).fetchone()
        assert found is not None
        return found

    def job(self, document: str) -> Job:
        delivery = Delivery(
            source="redis", queue="q", message_id=document, receipt="1", body=document.encode(), attributes={CORRELATION: "asked-once"}
        )
        return self.handler().parse(delivery)

    async def work(self, document: str, **options: Any) -> Outcome:
        """Work on a document as the worker does, to its end."""
        job, handler = self.job(document), self.handler(**options)
        claim = await self.store.ledger.claim(job, worker="tester", lease_seconds=60)
        assert isinstance(claim, Claim)
        try:
            outcome = await handler.handle(job, ClaimedContext(self.store, claim))
        except PermanentError as error:
            outcome = handler.failure(job, str(error))
        await self.store.ledger.finish(claim, outcome)
        return outcome


@pytest.fixture
def reviews() -> Iterator[LocalHttp]:
    with local_http(lambda asked: (200, b'{"taskId": "task-1"}')) as running:
        yield running


@pytest.fixture
async def office(new_postgres_database: Callable[[], str], tmp_path: Path, reviews: LocalHttp) -> AsyncIterator[Office]:
    database = new_postgres_database()
    bucket = ResultStore(str(tmp_path / "bucket"))
    (tmp_path / "bucket" / "card.png").write_bytes(CARD)
    async with (
        # Far from UTC, as a server may be.
        open_store(load(database=f"{database}?options=-c%20TimeZone%3DAsia/Jakarta")) as store,
        scripted_server() as server,
        InferenceClient(server.address, retries=RetryPolicy(attempts=1)) as client,
    ):
        await create_tables(store.database, "documents")
        server.script = [read_as(*CLEAR)]
        yield Office(database, store, DocumentRecords(store.database), client, server, reviews, bucket, KeptEscalations())


def published(outcome: Outcome) -> dict[str, Any]:
    return json.loads(outcome.events[0].body)  # type: ignore[no-any-return]


@pytest.mark.parametrize("decision", BY_PEOPLE)
async def test_what_a_person_decides_while_a_document_is_read_stays(office: Office, decision: str) -> None:
    document = office.add()

    async def decide_meanwhile(request: Any, context: Any) -> AsyncIterator[Any]:
        await asyncio.to_thread(office.decide, document, decision)
        async for message in read_as(*UNCLEAR)(request, context):
            yield message

    office.server.script = [decide_meanwhile]
    await office.work(document)

    row = office.row(document)
    assert ("completed", decision) == (row["status"], row["verification_status"])
    assert (60, {"name": "ANI"}) == (row["ai_score"], row["result_json"]), "what was read is kept beside it"
    assert [] == office.reviews.asked, "nobody needs to decide once more"


@pytest.mark.parametrize("decision", BY_PEOPLE)
async def test_what_a_person_decides_before_the_document_ends_stays(office: Office, decision: str) -> None:
    """A reviewer who is quicker than the write that ends the document."""
    document = office.add()
    office.server.script = [read_as(*UNCLEAR)]

    def decided(asked: Asked) -> tuple[int, bytes]:
        office.decide(document, decision)
        return 200, b'{"taskId": "task-1"}'

    office.reviews.answering = decided
    await office.work(document)

    row = office.row(document)
    assert ("completed", decision, "task-1") == (row["status"], row["verification_status"], row["buli2_ticket_id"])


async def test_what_a_person_decides_outlives_a_failure(office: Office) -> None:
    document = office.add()
    office.sql("UPDATE documents SET result_json = '{\"name\": \"ANI\"}', file_url = 'gone.png' WHERE id = %s", document)
    office.decide(document, "manually_approved")
    outcome = await office.work(document)

    row = office.row(document)
    assert not outcome.succeeded
    assert ("failed", "manually_approved", {"name": "ANI"}) == (row["status"], row["verification_status"], row["result_json"])


async def test_what_another_program_has_completed_meanwhile_is_left_as_it_is(office: Office) -> None:
    """The old worker beside us, which had the document before its row said so."""
    document = office.add()

    async def complete_meanwhile(request: Any, context: Any) -> AsyncIterator[Any]:
        done = "UPDATE documents SET status = 'completed', verification_status = 'auto_approved', ai_score = 90 WHERE id = %s"
        await asyncio.to_thread(office.sql, done, document)
        async for message in read_as(*UNCLEAR)(request, context):
            yield message

    office.server.script = [complete_meanwhile]
    outcome = await office.work(document)
    assert (True, ()) == (outcome.succeeded, outcome.events), "that program has told of it"

    row = office.row(document)
    assert ("completed", "auto_approved", 90) == (row["status"], row["verification_status"], row["ai_score"])
    assert [] == office.reviews.asked


async def test_what_was_read_is_published_and_not_kept_with_the_job(office: Office) -> None:
    outcome = await office.work(office.add())

    assert "BUDI SANTOSO" == published(outcome)["parsedResult"]["name"]
    kept = json.dumps(outcome.result)
    assert [] == [text for text in ("BUDI", "3273010203850001") if text in kept]
    assert (90, "auto_approve", "auto_approved", None) == tuple(outcome.result[key] for key in ("score", "decision", "outcome", "ticket"))


@pytest.mark.parametrize(
    ("models", "why"),
    [
        (["det:1@tensorrt:float16", "rec:1@onnxruntime-cuda:float32"], None),
        (
            ["det:1@tensorrt:float16", "rec:1@onnxruntime:float32"],
            "on its CPU (rec:1@onnxruntime:float32): its GPU has no engine for what ran there",
        ),
        (
            ["det:1@tensorrt:float16", "rec:1@tensorrt:float16", "rec:1@onnxruntime:float32"],
            "on its CPU (rec:1@onnxruntime:float32): its GPU failed meanwhile",
        ),
        (
            ["det:1@openvino:float32", "rec:1@onnxruntime:float32"],
            "on its CPU (det:1@openvino:float32, rec:1@onnxruntime:float32): it has no GPU, or none that runs these models now",
        ),
        # A text that the document holds: no model tells where it was read.
        ([], None),
    ],
)
async def test_a_result_tells_which_models_read_the_document_and_why_no_gpu_did(office: Office, models: list[str], why: str | None) -> None:
    office.server.script = [read_as(*CLEAR, models=models)] * 2
    outcome = await office.work(office.add(), has_gpu=True)
    told = published(outcome)
    assert (models, "server", why is None) == (told["models"], told["engine"], told["gpuProcessed"])
    assert (why or "") in told.get("fallbackReason", "")
    assert (why is None) == ("fallbackReason" not in told)
    assert (models, why is None) == (outcome.result["models"], outcome.result["gpuProcessed"])
    assert "fallbackReason" not in published(await office.work(office.add())), "where no GPU is to be there, none was missing"


async def test_what_the_cpu_read_in_the_gpus_place_is_published_with_the_gpus_cause_and_counted(office: Office) -> None:
    lost = refuse(grpc.StatusCode.INTERNAL, "Xid 79", trailing=(("lamina-device-cause", "device_lost"),))
    office.server.script = [lost, read_as(*CLEAR)]
    outcome = await office.work(office.add(), has_gpu=True)
    told = published(outcome)
    why = "the inference server read it on its CPU (rec:1@onnxruntime:float32): the GPU failed: the device was lost"
    assert (why, False, "server", "BUDI SANTOSO") == (
        told["fallbackReason"],
        told["gpuProcessed"],
        told["engine"],
        told["parsedResult"]["name"],
    )
    assert (why, "cpu") == (outcome.result["fallbackReason"], outcome.fallback)


async def test_a_gpu_without_a_fallback_is_tried_again_and_at_last_the_document_fails_of_it(office: Office) -> None:
    office.server.script = [refuse(grpc.StatusCode.INTERNAL, "it failed", trailing=(("lamina-device-cause", "device_lost"),))]
    with pytest.raises(TransientError, match="the GPU failed: the device was lost"):
        await office.work(office.add(), has_gpu=True, falls_back=False, most_attempts=1)
    assert [documents_pb2.DEVICE_GPU] == [request.device for request in office.server.requests]


async def test_cards_are_parsed_beside_the_loop(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which renews leases and answers others meanwhile."""
    threads: list[threading.Thread] = []

    def noted(work: Callable[..., Any]) -> Callable[..., Any]:
        def working(*given: Any, **choices: Any) -> Any:
            threads.append(threading.current_thread())
            return work(*given, **choices)

        return working

    for module, work in (("reading.readers", reading_of), ("handler", finding_of)):
        monkeypatch.setattr(f"bridge.systems.cards.{module}.{work.__name__}", noted(work))
    assert (await office.work(office.add())).succeeded
    assert 2 == len(threads)
    assert threading.current_thread() not in threads


async def test_what_tesseract_read_goes_to_a_person_as_nothing_measured_it(office: Office, tmp_path: Path) -> None:
    program = tmp_path / "tesseract"
    lines = "\\n".join(CLEAR)
    listed = 'printf "ind\\neng\\nosd\\n"'
    program.write_text(f'#!/bin/sh\n[ "$1" = --list-langs ] && {listed} && exit 0\ncat > /dev/null; printf "{lines}\\n"\n')
    program.chmod(0o755)
    for gate, decision in ((Gate.PICTURES, "needs_review"), (Gate.OFF, "auto_approve")):
        office.server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT, "the document is broken")]
        told = published(await office.work(office.add(), tesseract=Tesseract(program=str(program)), gate=gate))
        assert (90, decision, [], False) == (told["score"], told["decision"], told["models"], told["gpuProcessed"])
        assert ["NOT_MEASURED"] == [reason["code"] for reason in told["reviewReasons"]]
        assert "the document is broken" in told["fallbackReason"]


async def test_what_neither_the_server_nor_tesseract_reads_fails_with_both_reasons(office: Office, tmp_path: Path) -> None:
    office.server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT, "the document is broken")]
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\necho eng\n")
    program.chmod(0o755)
    error = published(await office.work(office.add(), tesseract=Tesseract(program=str(program))))["error"]
    assert "the document is broken" in error
    assert "nor was it read in the server's place: Tesseract lacks the languages ind, osd" in error


async def test_a_document_that_is_no_picture_is_read_by_no_program_and_quoted_nowhere(office: Office, tmp_path: Path) -> None:
    """Tesseract would take it for the names of files to read, and quote it in what it says."""
    (tmp_path / "bucket" / "list.png").write_bytes(f"{tmp_path}/bucket/card.png\n{CLEAR[0]}\n".encode())
    program = tmp_path / "tesseract"
    program.write_text('#!/bin/sh\n[ "$1" = --list-langs ] && printf "ind\\neng\\nosd\\n" && exit 0\ncat >&2; exit 1\n')
    program.chmod(0o755)
    for file, expected in (("list.png", "nothing that Tesseract is given: PNG, JPEG"), ("card.png", "the program ended with status 1")):
        office.server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT, "the document is broken")]
        document = office.add(file_url=file)
        outcome = await office.work(document, tesseract=Tesseract(program=str(program)))
        told = json.dumps([published(outcome), outcome.result, office.row(document)["result_json"]])
        assert expected in published(outcome)["error"]
        assert [] == [text for text in ("3273010203850001", str(tmp_path), "and so on") if text in told]


async def test_where_nothing_may_read_in_the_servers_place_its_reason_stands_alone(office: Office) -> None:
    office.server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT, "the document is broken")]
    for choice in ({"falls_back": False}, {"tesseract": Tesseract(program="no-such-program")}):
        assert "Tesseract" not in published(await office.work(office.add(), **choice))["error"]


async def test_a_server_that_does_not_know_us_is_no_reason_to_fall_back(office: Office) -> None:
    office.server.script = [refuse(grpc.StatusCode.UNAUTHENTICATED, "who are you?")]
    with pytest.raises(OverloadError):
        await office.work(office.add(), most_attempts=1)


async def test_a_failure_tells_how_long_the_document_took(office: Office) -> None:
    failed = await office.work(office.add(file_url="gone.png"))
    assert 0 <= published(failed)["processingTimeMs"] < 60_000
    assert not published(failed)["success"]

    nowhere = await office.work(str(uuid4()))
    assert ("Document not found", False) == (published(nowhere)["error"], "processingTimeMs" in published(nowhere))


async def test_a_document_whose_end_the_table_refuses_fails_and_tells_how_long_it_took(office: Office) -> None:
    job, handler = office.job(office.add()), office.handler()
    claim = await office.store.ledger.claim(job, worker="tester", lease_seconds=60)
    assert isinstance(claim, Claim)
    assert (await handler.handle(job, ClaimedContext(office.store, claim))).succeeded
    assert 0 <= published(handler.failure(job, "the tables refuse what is to be written"))["processingTimeMs"] < 60_000


async def test_how_long_the_last_try_took_is_known_though_others_were_tried_since_the_first(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.systems.cards.handler._MOST_FAILURES", 2)
    handler = office.handler()
    first, second, third = (office.job(office.add(file_url="gone.png")) for _ in range(3))
    claims = {job.key: await office.store.ledger.claim(job, worker="tester", lease_seconds=60) for job in (first, second, third)}
    for job in (first, second, first, third):
        claim = claims[job.key]
        assert isinstance(claim, Claim)
        with pytest.raises(PermanentError, match="is not in the bucket"):
            await handler.handle(job, ClaimedContext(office.store, claim))
    assert "processingTimeMs" in published(handler.failure(first, "it is not there"))


async def test_a_document_that_is_too_large_fails_with_its_size(office: Office) -> None:
    outcome = await office.work(office.add(), most_bytes=5)
    assert f"the object card.png has {len(CARD)} bytes; at most 5 are read" == published(outcome)["error"]
    assert [] == office.server.requests


@pytest.mark.parametrize(
    "url",
    [
        "https://store.example/",
        "https://store.example?signature=secret",
        "http://[::1/card.png?signature=secret",
        "https://secret@stor\u2100.example/card.png",
    ],
)
async def test_a_url_that_names_no_object_fails_at_once_and_is_quoted_nowhere(office: Office, url: str) -> None:
    outcome = await office.work(office.add(file_url=url))
    assert published(outcome)["error"].startswith("the document's file URL ")
    assert "secret" not in published(outcome)["error"]
    assert [] == office.server.requests


async def test_a_document_without_a_status_is_worked_on_and_may_fail(office: Office) -> None:
    done, broken = office.add(), office.add(file_url="gone.png")
    office.sql("UPDATE documents SET status = NULL")
    await office.work(done)
    await office.work(broken)

    assert ("completed", "failed") == (office.row(done)["status"], office.row(broken)["status"])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, False),
        ({"buli2_ticket_id": "task-1"}, True),
        ({"buli2_ticket_id": ""}, False),
        ({"verification_status": "pending_review"}, False),
        *(({"verification_status": decision}, True) for decision in BY_PEOPLE),
    ],
)
async def test_a_case_that_has_its_ticket_or_is_decided_needs_nobody_more(office: Office, columns: dict[str, str], expected: bool) -> None:
    assert expected is await office.records.is_with_people(office.add("completed", **columns))


async def test_the_platforms_own_review_of_a_document_has_a_task_of_its_own(office: Office) -> None:
    """Its web service puts such cases into the same list. The worker's ticket of the document is another."""
    document, review, other = office.add("completed", buli2_ticket_id="of the worker"), str(uuid4()), str(uuid4())
    for each in (review, other):
        office.sql("INSERT INTO manual_reviews (id, document_id, payload) VALUES (%s, %s, '{}')", each, document)

    before = await office.records.is_with_people(document, review)
    await office.records.keep_ticket(document, "of the review", review)

    assert [False, True, False] == [before, *[await office.records.is_with_people(document, each) for each in (review, other)]]
    assert "of the worker" == office.row(document)["buli2_ticket_id"]
    office.decide(document, "manually_approved")
    assert await office.records.is_with_people(document, other), "a person has had the last word"


@pytest.mark.parametrize("review", ["7b0c1f5e-5c1b-4c3e-9f43-2d1f0b6f6a11", "no id"])
async def test_a_review_that_cannot_be_told_of_is_handed_over_all_the_same(office: Office, review: str) -> None:
    document = office.add("completed", buli2_ticket_id="of the worker")
    office.sql("DROP TABLE manual_reviews")

    assert not await office.records.is_with_people(document, review)
    await office.records.keep_ticket(document, "of the review", review)
    assert "of the worker" == office.row(document)["buli2_ticket_id"]


async def test_a_document_that_nobody_knows_is_with_nobody(office: Office) -> None:
    assert [False] * 3 == [await office.records.is_with_people(document) for document in (str(uuid4()), "no id", f"urn:uuid:{uuid4()}")]


async def test_moments_are_written_as_the_platform_reads_them(office: Office) -> None:
    """In UTC without a zone, and as JavaScript's toISOString."""
    done, broken = office.add(), office.add(file_url="gone.png")
    before = datetime.now(tz=UTC).replace(tzinfo=None)
    await office.work(done)
    await office.work(broken)
    after = datetime.now(tz=UTC).replace(tzinfo=None)

    assert before <= office.row(done)["processed_at"] <= after
    failed_at = office.row(broken)["result_json"]["failedAt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", failed_at)
    assert before - timedelta(seconds=1) <= datetime.fromisoformat(failed_at).replace(tzinfo=None) <= after
    assert {"error", "failedAt", "maxRetriesExceeded"} == office.row(broken)["result_json"].keys()


@pytest.mark.parametrize("lines", [CLEAR, UNCLEAR], ids=["clear", "for people"])
async def test_a_document_that_is_removed_while_it_is_read_is_told_to_nobody(office: Office, lines: Sequence[str]) -> None:
    document = office.add()

    async def remove_meanwhile(request: Any, context: Any) -> AsyncIterator[Any]:
        await asyncio.to_thread(office.remove, document)
        async for message in read_as(*lines)(request, context):
            yield message

    office.server.script = [remove_meanwhile]
    told = published(await office.work(document))

    assert (False, "Document not found") == (told["success"], told["error"])
    assert "ocrText" not in told
    assert [] == office.reviews.asked


async def test_characters_that_the_table_does_not_take_cost_no_document(office: Office) -> None:
    document = office.add()
    office.server.script = [read_as("NIK : 3273010203850001", "Nama : BUDI\x00SANTOSO")]
    outcome = await office.work(document)

    assert outcome.succeeded
    row = office.row(document)
    assert ("completed", "NIK : 3273010203850001\nNama : BUDI\ufffdSANTOSO") == (row["status"], row["ocr_text"])
    assert "BUDI\ufffdSANTOSO" == row["result_json"]["name"]


async def test_an_empty_document_fails_before_anything_reads_it(office: Office, tmp_path: Path) -> None:
    (tmp_path / "bucket" / "empty.png").touch()
    document = office.add(file_url="empty.png")
    outcome = await office.work(document)

    assert "the object empty.png is empty" == published(outcome)["error"]
    assert [] == office.server.requests
    assert "failed" == office.row(document)["status"]


async def test_a_ticket_is_cut_to_what_the_table_holds(office: Office) -> None:
    office.reviews.answering = lambda _: (200, json.dumps({"taskId": "t" * 300}).encode())
    office.server.script = [read_as(*UNCLEAR)]
    document = office.add()
    await office.work(document)

    assert ("completed", "t" * 255) == (office.row(document)["status"], office.row(document)["buli2_ticket_id"])


@pytest.mark.parametrize(("told", "kept"), [("a\x00b", "a\ufffdb"), ("a\ud800b", "a?b")])
async def test_a_ticket_of_characters_that_the_table_does_not_take_is_kept_without_them(office: Office, told: str, kept: str) -> None:
    office.reviews.answering = lambda _: (200, json.dumps({"taskId": told}).encode())
    office.server.script = [read_as(*UNCLEAR)]
    document = office.add()
    await office.work(document)

    assert ("completed", kept) == (office.row(document)["status"], office.row(document)["buli2_ticket_id"])


@pytest.mark.parametrize("answer", [b"\xe9t\xe9", b"[" * 200_000, b"[" + b"1," * 2**20 + b"1]"])
async def test_a_document_outlives_what_the_review_service_answers(office: Office, answer: bytes) -> None:
    office.reviews.answering = lambda _: (200, answer)
    office.server.script = [read_as(*UNCLEAR)]
    outcome = await office.work(office.add())

    assert (True, ["completed", "escalation"]) == (outcome.succeeded, [event.type for event in outcome.events])


async def test_a_table_out_of_reach_is_no_failure_of_the_document(office: Office) -> None:
    parts = urlsplit(office.database)
    async with FaultProxy(parts.port or 5432) as proxy:
        address = parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}").geturl()
        async with open_store(load(database=address)) as store:
            office.records = DocumentRecords(store.database)
            proxy.refuse()
            with pytest.raises(OverloadError):
                await office.work(office.add())
