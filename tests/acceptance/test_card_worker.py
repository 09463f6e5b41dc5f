"""The card platform's OCR worker as a drop-in: its variables, its lists, its table, its bucket, its review service; killed at random."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis as redis_client
from psycopg.rows import dict_row

from bridge.job import Job
from bridge.settings import load
from bridge.store import Store, open_store
from tests.support.bridge.answering_bridge import figures_of
from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.bridge.killer import Killer
from tests.support.bridge.platform_rows import rows
from tests.support.documents.pdf import Text, pdf
from tests.support.documents.printed_pages import image_file, images_of
from tests.support.inference_server.server_process import running_server
from tests.support.models.built_models import built_models
from tests.support.ports import free_address
from tests.support.servers.local_http import Asked, LocalHttp, local_http
from tests.support.servers.ministack import Ministack, running_ministack
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.redis import RedisServer, redis_server
from tests.support.servers.sqs import aws_of

pytestmark = pytest.mark.timeout(400)

BUCKET = "filot-documents"
GPU, CPU = "filot:ocr:gpu:queue", "filot:ocr:queue"
RESULTS = "filot:ocr:gpu:results"
CARD = (
    "NIK : 3273010203850001",
    "Nama : BUDI SANTOSO",
    "Tempat/Tgl Lahir : BANDUNG, 02-03-1985",
    "Jenis Kelamin : LAKI-LAKI",
    "Alamat : JL MERDEKA 10",
    "Agama : ISLAM",
)
PHOTO = (("BANDUNG", 4), ("05-12-2012", 5))
UNCLEAR = ("Nama : ANI",)


def card(lines: Sequence[str]) -> bytes:
    """Labels and values in a column of their own, and beside them what stands under a photograph."""
    places = [(label, line.split(" : ")[label], number) for number, line in enumerate(lines) for label in (0, 1)]
    page = [Text(text=text if not column else f": {text}", x=15 + 105 * column, y=30 + 24 * row) for column, text, row in places]
    page += [Text(text=text, x=290, y=30 + 24 * row) for text, row in PHOTO if row < len(lines)]
    return image_file(images_of(pdf((page,), size=(370, 200)))[0], "PNG")


@dataclass
class Reviews:
    """The service where people review; `fails`: so many calls before it works."""

    fails: int = 0
    cases: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, asked: Asked) -> tuple[int, bytes]:
        if self.fails > 0:
            self.fails -= 1
            return 503, b"{}"
        self.cases.append({**json.loads(asked.body), "authorization": asked.headers.get("authorization")})
        return 200, json.dumps({"taskId": f"task-{json.loads(asked.body)['documentId']}"}).encode()


@dataclass(frozen=True, kw_only=True)
class Platform:
    """All that the worker works with."""

    folder: Path
    ministack: Ministack
    inference: str
    postgres: PostgresServer
    # A database with the platform's tables, to be copied.
    template: str
    reviews: Reviews
    reviews_at: LocalHttp

    def variables(self, database: str, redis: RedisServer) -> dict[str, str]:
        return {
            "BRIDGE_DATABASE": "",
            "DATABASE_URL": database,
            "REDIS_URL": redis.url,
            "CF_R2_ENDPOINT": self.ministack.endpoint,
            "CF_R2_ACCESS_KEY_ID": "test",
            "CF_R2_SECRET_ACCESS_KEY": "test",
            "CF_R2_BUCKET_NAME": BUCKET,
            "CF_R2_REGION": "us-east-1",
            "BULI2_API_URL": self.reviews_at.url,
            "BULI2_API_KEY": "secret-key",
            "OCR_GPU_ENABLED": "true",
            # None runs out over a pause of the machine: a case that is taken over is handed over once more.
            "BRIDGE_LEASE_SECONDS": "60",
            "BRIDGE_ESCALATION_SECONDS": "0.5",
            "BRIDGE_MAX_INTERRUPTIONS": "1000",
            "BRIDGE_MAX_SERVER_LOSSES": "1000",
        }


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("card-worker")
    reviews = Reviews()
    with running_ministack(folder) as ministack, pytest.MonkeyPatch.context() as patch, local_http(reviews) as reviews_at:
        for name, value in ministack.environment().items():
            patch.setenv(name, value)
        asyncio.run(_fill_bucket(ministack))
        database = postgres.new_database()
        BridgeSetup(folder=folder, inference="", variables={"BRIDGE_DATABASE": database}).call("migrate", "--with", "documents")
        with running_server(built_models(), folder, "--engine", "onnxruntime:float32", "--services", "documents") as server:
            server.wait_for("ready")
            yield Platform(
                folder=folder,
                ministack=ministack,
                inference=server.grpc,
                postgres=postgres,
                template=database.rpartition("/")[2],
                reviews=reviews,
                reviews_at=reviews_at,
            )


async def _fill_bucket(ministack: Ministack) -> None:
    async with aws_of(ministack) as aws:
        await aws.call("s3", "create_bucket", Bucket=BUCKET)
        for name, content in (
            ("user/KTP_clear.png", card(CARD)),
            ("user/KTP_unclear.png", card(UNCLEAR)),
            ("user/broken.png", b"\x89PNG\r\n\x1a\nand no more"),
        ):
            await aws.call("s3", "put_object", Bucket=BUCKET, Key=name, Body=content)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One test's own database and lists."""

    platform: Platform
    database: str
    redis: RedisServer
    client: Any

    def setup(self, name: str = "bridge", **variables: str) -> BridgeSetup:
        folder = self.platform.folder / f"{name}-{uuid4().hex[:6]}"
        folder.mkdir()
        given = {**self.platform.variables(self.database, self.redis), **variables}
        return BridgeSetup(folder=folder, inference=self.platform.inference, variables=given)

    def on(self, work: Callable[[Store], Any]) -> Any:
        async def opened() -> Any:
            async with open_store(load(database=self.database)) as store:
                return await work(store)

        return asyncio.run(opened())

    def add(self, key: str | None, kind: str = "KTP", status: str = "uploaded") -> str:
        """A document's row; returns its id."""
        document = str(uuid4())
        columns = "CAST(%(id)s AS uuid), gen_random_uuid(), %(type)s, %(key)s, CAST(%(status)s AS document_status)"
        insert = f"INSERT INTO documents (id, user_id, type, file_url, status) VALUES ({columns})"
        with self._connection() as connection:
            connection.execute(insert, {"id": document, "type": kind, "key": key, "status": status})
        return document

    def documents(self) -> Mapping[str, Mapping[str, Any]]:
        """The rows, by their ids. Tests look often, and opening a store checks its schema each time."""
        with self._connection() as connection:
            found = connection.execute("SELECT *, CAST(id AS text) AS key FROM documents").fetchall()
        return {row["key"]: row for row in found}

    def _connection(self) -> psycopg.Connection[dict[str, Any]]:
        return psycopg.connect(self.database, autocommit=True, row_factory=dict_row)

    def wait_until(self, wanted: Callable[[Mapping[str, Mapping[str, Any]]], bool], *, each: Callable[[], object] | None = None) -> None:
        until = time.monotonic() + 240
        while not wanted(found := self.documents()):
            assert time.monotonic() < until, found
            (each or (lambda: time.sleep(0.3)))()


@pytest.fixture
def run(platform: Platform) -> Iterator[Run]:
    with redis_server() as redis, redis_client.Redis.from_url(redis.url) as client:
        database = platform.postgres.new_database(template=platform.template)
        started = Run(platform=platform, database=database, redis=redis, client=client)
        platform.reviews.cases.clear()
        platform.reviews.fails = 0
        yield started


@contextmanager
def published(run: Run, name: str = RESULTS) -> Iterator[list[dict[str, Any]]]:
    """What is published meanwhile."""
    found: list[dict[str, Any]] = []
    channel = run.client.pubsub(ignore_subscribe_messages=True)
    channel.subscribe(name)

    def keep(message: Mapping[str, Any]) -> None:
        found.append(json.loads(message["data"]))

    channel.subscribe(**{name: keep})
    thread = channel.run_in_thread(sleep_time=0.05, daemon=True)
    try:
        yield found
    finally:
        thread.stop()
        thread.join(5)


def until_told(results: Sequence[object], count: int) -> None:
    """Wait until so many results are published: a moment after their rows are written."""
    until = time.monotonic() + 60
    while len(results) < count and time.monotonic() < until:
        time.sleep(0.1)
    assert len(results) == count


def until_empty(run: Run, key: str) -> bool:
    """Whether a list gets empty soon: a case leaves it once its ticket is kept."""
    until = time.monotonic() + 60
    while run.client.llen(key) and time.monotonic() < until:
        time.sleep(0.1)
    return not run.client.llen(key)


def ended(documents: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(row["status"] in {"completed", "failed"} for row in documents.values())


def test_a_card_is_read_parsed_scored_and_published(run: Run) -> None:
    clear = run.add("user/KTP_clear.png")
    by_url = run.add("https://store.example/user/KTP_clear.png?signature=1")
    setup = run.setup()
    with published(run) as results, setup.running():
        run.client.hset("filot:ocr:gpu:correlation", clear, "11111111-1111-4111-8111-111111111111")
        run.client.rpush(GPU, clear)
        run.client.rpush(CPU, by_url)
        run.wait_until(ended)
        until = time.monotonic() + 60
        while len(results) < 2 and time.monotonic() < until:
            time.sleep(0.1)

    row = run.documents()[clear]
    assert (row["status"], row["verification_status"], row["ai_score"], row["ai_decision"]) == (
        "completed",
        "auto_approved",
        90,
        "auto_approve",
    )
    assert row["result_json"] == {
        "nik": "3273010203850001",
        "name": "BUDI SANTOSO",
        "birthPlace": "BANDUNG",
        "birthDate": "02-03-1985",
        "address": "JL MERDEKA 10",
        "gender": "LAKI-LAKI",
        "religion": "ISLAM",
    }
    assert "BANDUNG" in row["ocr_text"]
    assert row["processed_at"] is not None
    assert run.documents()[by_url]["status"] == "completed"
    result = next(result for result in results if result["documentId"] == clear)
    assert (result["success"], result["correlationId"], result["score"], result["gpuProcessed"], result["engine"]) == (
        True,
        "11111111-1111-4111-8111-111111111111",
        90,
        False,
        "server",
    )
    assert result["models"], "which tell that it was a CPU"
    assert result["fallbackReason"].endswith(": no GPU engine for model ppocrv6_small_det: this server runs it on its CPU")
    assert all(model.split("@")[1].split(":")[0] in {"onnxruntime", "openvino"} for model in result["models"])
    assert result["parsedResult"] == row["result_json"]
    nik = result["fields"]["nik"]
    assert (nik["value"], nik["page"], len(nik["polygon"]), nik["confidence"] > 0.9) == (row["result_json"]["nik"], 1, 4, True)
    assert (result["reviewReasons"], result["quality"][0]["glare"], result["quality"][0]["sharpness"] > 0.02) == ([], 0, True)
    assert result["processingTimeMs"] > 0
    logged = (setup.folder / "bridge.log").read_text()
    assert clear in logged
    assert [text for text in ("3273010203850001", "BUDI", "BANDUNG", "MERDEKA") if text in logged] == [], "logs tell nothing of the holder"
    left = [key.decode() for key in run.client.keys("filot:*")]
    assert [key for key in left if not key.startswith("filot:ocr:gpu:results:")] == [], "nothing is left of what was done"


# Notes what each write of a document changes, in the order of the writes.
NOTED = """
CREATE TABLE noted (number serial, id text, changed jsonb);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO noted (id, changed) SELECT NEW.id, jsonb_object_agg(new_one.key, new_one.value)
  FROM jsonb_each(to_jsonb(NEW)) AS new_one JOIN jsonb_each(to_jsonb(OLD)) AS old_one USING (key)
  WHERE new_one.value IS DISTINCT FROM old_one.value;
  RETURN NEW;
END $$;
CREATE TRIGGER noting AFTER UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION note();
"""
# Of a result: the platform's keys with their types, and beside them ours.
TOLD_OF_ALL = {"success": bool, "documentId": str, "correlationId": str, "gpuProcessed": bool, "processingTimeMs": int}
TOLD_OF_READ = {**TOLD_OF_ALL, "ocrText": str, "parsedResult": dict, "score": int, "decision": str, "outcome": str}
TOLD_OF_FAILED = {**TOLD_OF_ALL, "error": str}
OURS = {"engine": str, "models": list, "fallbackReason": str, "fields": dict, "quality": list, "reviewReasons": list}


def test_columns_are_written_in_the_platforms_order_and_results_have_its_keys(run: Run) -> None:
    with psycopg.connect(run.database, autocommit=True) as connection:
        connection.execute(NOTED)
    clear, unclear, broken = run.add("user/KTP_clear.png"), run.add("user/KTP_unclear.png"), run.add("user/missing.png")
    nowhere = str(uuid4())
    with published(run) as results, run.setup().running_forked():
        run.client.rpush(GPU, clear, unclear, broken, nowhere)
        run.wait_until(ended)
        until_told(results, 4)

    with psycopg.connect(run.database) as connection:
        noted = connection.execute("SELECT id, changed FROM noted ORDER BY number").fetchall()
    written = {document: [changed for each, changed in noted if each == document] for document in (clear, unclear, broken)}
    read = [["status"], ["ocr_text", "verification_status"], ["ai_decision", "ai_score", "result_json", "verification_status"]]
    assert [*read, ["processed_at", "status", "verification_status"]] == [sorted(each) for each in written[clear]]
    assert [*read, ["buli2_ticket_id", "processed_at", "status", "verification_status"]] == [sorted(each) for each in written[unclear]]
    assert [["status"], ["result_json", "status"]] == [sorted(each) for each in written[broken]]
    for document, outcome in ((clear, "auto_approved"), (unclear, "pending_manual_review")):
        states = [each["verification_status"] for each in written[document] if "verification_status" in each]
        assert ["ocr_completed", "ai_evaluated", outcome] == states
        assert ["processing", "completed"] == [each["status"] for each in written[document] if "status" in each]

    told = {result["documentId"]: result for result in results}
    types = {document: {key: type(value) for key, value in result.items()} for document, result in told.items()}
    assert {**TOLD_OF_READ, **OURS} == types[clear] == types[unclear]
    assert TOLD_OF_FAILED == types[broken]
    assert {name: kind for name, kind in TOLD_OF_FAILED.items() if name != "processingTimeMs"} == types[nowhere]
    assert {(90, "auto_approve", "auto_approved"), (60, "needs_review", "pending_manual_review")} == {
        tuple(told[document][key] for key in ("score", "decision", "outcome")) for document in (clear, unclear)
    }
    assert told[clear]["ocrText"] == written[clear][1]["ocr_text"]
    assert "3273010203850001" in told[clear]["ocrText"]
    [case] = run.platform.reviews.cases
    expected = {"documentId", "userId", "documentType", "parsedData", "aiScore", "correlationId", "metadata", "reasons"}
    assert expected == case.keys() - {"authorization"}
    assert (str(run.documents()[unclear]["user_id"]), ["submittedAt"]) == (case["userId"], list(case["metadata"]))


def test_each_key_and_the_channel_may_have_another_name(run: Run) -> None:
    names = {"QUEUE_KEY": "own:queue", "PROCESSING_KEY": "own:processing", "ATTEMPTS_KEY": "own:attempts"}
    setup = run.setup(OCR_GPU_PUBLISH_CHANNEL="own:results", **{f"OCR_GPU_{name}": key for name, key in names.items()})
    document, waiting = run.add("user/KTP_clear.png"), str(uuid4())
    setup.call("documents", "enqueue", document)
    assert [document.encode()] == run.client.lrange("own:queue", 0, -1)
    assert {document.encode(): b"0"} == run.client.hgetall("own:attempts")
    # One that another program has in its hands.
    run.client.sadd("own:processing", waiting)
    run.client.hset("filot:ocr:gpu:processing:timestamps", waiting, int(time.time() * 1000))
    with published(run, "own:results") as results, setup.running_forked():
        run.wait_until(ended)
        until_told(results, 1)
        stands = json.loads(setup.call("documents", "status"))

    assert (True, document) == (results[0]["success"], results[0]["documentId"])
    assert (0, 1) == (stands["queueLength"], stands["processingCount"])
    assert ([waiting.encode()], {}) == (list(run.client.smembers("own:processing")), run.client.hgetall("own:attempts"))
    assert [] == run.client.keys("filot:ocr:gpu:queue") + run.client.keys("filot:ocr:gpu:attempts")


def test_what_cannot_be_read_fails_with_its_reason_and_is_published_once(run: Run) -> None:
    reasons = {
        run.add("user/broken.png"): "",
        run.add(None): "Document has no file URL",
        run.add("user/missing.png"): "not in the bucket",
        run.add("user/KTP_clear.png", kind="PASSPORT"): "Unknown document type: PASSPORT",
    }
    with published(run) as results, run.setup().running_forked():
        run.client.rpush(GPU, *reasons, "no uuid", str(uuid4()))
        run.wait_until(ended)
        until = time.monotonic() + 60
        while len(results) < 5 and time.monotonic() < until:
            time.sleep(0.1)

    documents = run.documents()
    told = Counter(result["documentId"] for result in results)
    for document, reason in reasons.items():
        row = documents[document]
        assert (row["status"], row["result_json"]["maxRetriesExceeded"]) == ("failed", True)
        assert reason in row["result_json"]["error"]
        assert told[document] == 1
    assert {result["gpuProcessed"] for result in results} == {False}
    assert "Document not found" in {result["error"] for result in results}
    letters = run.on(lambda store: rows(store, "SELECT reason FROM lamina.dead_letters"))
    no_id = next(row["reason"] for row in letters if "expected the id of a document" in row["reason"])
    assert "no uuid" not in no_id, "it may be a person's"


def test_documents_wait_while_their_store_does_not_know_us(run: Run) -> None:
    document = run.add("user/KTP_clear.png")
    mistaken = run.setup("mistaken", CF_R2_BUCKET_NAME="filot-documnets")
    with published(run) as results:
        with mistaken.running_forked():
            run.client.rpush(GPU, document)
            log = mistaken.folder / "bridge.log"
            until = time.monotonic() + 60
            while log.read_text().count("work_failed") < 3:
                assert time.monotonic() < until
                time.sleep(0.1)
        assert ("processing", []) == (run.documents()[document]["status"], results)
        assert "set CF_R2_ENDPOINT, CF_R2_BUCKET_NAME" in log.read_text()
        with run.setup("mended").running_forked():
            run.wait_until(ended)

    assert "completed" == run.documents()[document]["status"]
    [job] = run.on(lambda store: rows(store, "SELECT state, attempts FROM lamina.jobs"))
    assert ("succeeded", 0) == tuple(job.values())


def test_a_case_for_people_is_handed_over_once_and_later_where_the_service_is_down(run: Run) -> None:
    first = run.add("user/KTP_unclear.png")
    setup = run.setup()
    with setup.running_forked():
        run.client.rpush(GPU, first)
        run.wait_until(ended)
        assert run.documents()[first]["buli2_ticket_id"] == f"task-{first}"
        run.platform.reviews.fails = 4  # longer than the tries of one call
        second = run.add("user/KTP_unclear.png")
        run.client.rpush(GPU, second)
        run.wait_until(lambda found: found[second]["buli2_ticket_id"] is not None)

    row = run.documents()[second]
    assert (row["status"], row["verification_status"], row["ai_decision"]) == ("completed", "pending_manual_review", "needs_review")
    cases = run.platform.reviews.cases
    assert [case["documentId"] for case in cases] == [first, second]
    assert cases[0]["authorization"] == "Bearer secret-key"
    assert (cases[0]["documentType"], cases[0]["parsedData"], cases[0]["aiScore"]) == ("KTP", {"name": "ANI"}, 60)
    assert [reason.split(":")[0] for reason in cases[0]["reasons"]] == ["NIK_MISSING", "NAME_MISSING", "FIELDS_MISSING", "LOW_SCORE"]
    assert cases[0]["correlationId"].startswith(f"esc-{first}-")
    assert until_empty(run, "filot:buli2:retry_queue")
    assert "secret-key" not in (setup.folder / "bridge.log").read_text()
    assert "Nama" not in (setup.folder / "bridge.log").read_text(), "logs tell nothing of a case"


def test_no_document_is_lost_or_done_twice_while_workers_are_killed(run: Run, request: pytest.FixtureRequest) -> None:
    batch = 8 if request.config.getoption("whole_matrix") else 3
    documents = [run.add("user/KTP_clear.png") for _ in range(4 * batch)]

    def progress() -> object:
        return sorted(row["status"] for row in run.documents().values())

    setups = [run.setup(name, BRIDGE_LEASE_SECONDS="3") for name in ("one", "two")]
    killer = Killer(setups, random.Random(5), database=run.database, pause=(0.5, 1.5), progress=progress)
    with published(run) as results:
        try:
            for begin in range(0, len(documents), batch):
                killer.let_work()
                run.client.rpush(GPU, *documents[begin : begin + batch])
                killer.strike()
            run.wait_until(ended, each=killer.let_work_and_strike)
            until = time.monotonic() + 60
            while len({result["documentId"] for result in results}) < len(documents) and time.monotonic() < until:
                time.sleep(0.2)
        finally:
            killer.close()

    assert {"SIGKILL", "SIGTERM"} == set(killer.kills)
    taken_over = run.on(lambda store: rows(store, "SELECT key FROM lamina.jobs WHERE fence > 1"))
    assert killer.orphaned & {row["key"] for row in taken_over}, "others took over what the killed had"
    assert {row["status"] for row in run.documents().values()} == {"completed"}
    assert sorted(result["documentId"] for result in results) == sorted(documents), "each is told of once"
    jobs = run.on(lambda store: rows(store, "SELECT state, attempts, count(*) AS count FROM lamina.jobs GROUP BY state, attempts"))
    assert [tuple(row.values()) for row in jobs] == [("succeeded", 0, len(documents))], "interruptions burn no attempt"
    assert (run.client.llen(GPU), run.client.scard("filot:ocr:gpu:processing")) == (0, 0)


def test_a_document_that_lies_in_both_lists_is_done_once_by_two_bridges(run: Run) -> None:
    documents = [run.add("user/KTP_clear.png") for _ in range(6)]
    broken = run.add("user/broken.png")
    # The platform's API puts documents into the CPU's list, others the same into the GPU's.
    run.client.rpush(GPU, *documents, broken)
    run.client.rpush(CPU, broken, *reversed(documents))
    with published(run) as results, run.setup("one").running_forked(), run.setup("two").running_forked():
        run.wait_until(ended)
        until = time.monotonic() + 60
        while (run.client.llen(GPU) or run.client.llen(CPU) or len(results) < 7) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1.5)  # what waited for a lock would come now

    assert Counter([*documents, broken]) == Counter(result["documentId"] for result in results)
    jobs = run.on(lambda store: rows(store, "SELECT state, count(*) AS count FROM lamina.jobs GROUP BY state ORDER BY state"))
    assert [("failed", 1), ("succeeded", 6)] == [tuple(row.values()) for row in jobs]
    left = [key.decode() for key in run.client.keys("filot:*")]
    assert [key for key in left if not key.startswith("filot:ocr:gpu:results:")] == []


def test_a_document_that_the_old_worker_holds_is_left_to_it_and_one_that_it_lost_is_done(run: Run) -> None:
    held, lost, done = run.add("user/KTP_clear.png"), run.add("user/KTP_clear.png", status="processing"), run.add(None, status="completed")
    run.client.set(f"filot:ocr:gpu:lock:{held}", "somebody", ex=600)
    run.client.sadd("filot:ocr:gpu:processing", lost)
    run.client.hset("filot:ocr:gpu:processing:timestamps", lost, int(time.time() * 1000) - 10_000)
    with run.setup(OCR_GPU_STUCK_TIMEOUT="2000").running_forked():
        run.client.rpush(GPU, held, done)
        run.wait_until(lambda found: found[lost]["status"] == "completed")
        assert run.documents()[held]["status"] == "uploaded"
        run.client.delete(f"filot:ocr:gpu:lock:{held}")
        run.wait_until(ended)


def test_the_last_try_falls_back_to_tesseract_and_says_so(run: Run, tmp_path: Path) -> None:
    # Stands in Tesseract's place on the PATH, since not every machine has it: the same arguments, standard input, standard output.
    program = tmp_path / "tesseract"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --list-langs ] && printf "ind\\neng\\nosd\\n" && exit 0\n'
        '[ "$*" = "- - -l ind+eng --psm 1" ] && cat > /dev/null && echo "NIK : 3273010203850001"\n'
    )
    program.chmod(0o755)
    document = run.add("user/broken.png")
    address = free_address()
    with published(run) as results, run.setup(PATH=f"{tmp_path}:{os.environ['PATH']}", BRIDGE_HTTP=address).running_forked():
        run.client.rpush(GPU, document)
        run.wait_until(ended)
        until = time.monotonic() + 60
        while not results and time.monotonic() < until:
            time.sleep(0.1)
        figures = asyncio.run(figures_of(address))

    assert run.documents()[document]["status"] == "completed"
    assert 'bridge_fallbacks_total{by="tesseract",system="cards"} 1.0' in figures
    [result] = results
    assert (result["engine"], result["gpuProcessed"], result["parsedResult"]["nik"]) == ("tesseract", False, "3273010203850001")
    assert result["fallbackReason"]
    assert "NOT_MEASURED" in {reason["code"] for reason in result["reviewReasons"]}


def test_commands_put_documents_into_the_queue_and_tell_how_it_stands(run: Run) -> None:
    setup = run.setup()
    first, second = run.add("user/KTP_clear.png"), run.add("user/KTP_clear.png")
    assert setup.call("documents", "enqueue", first, second).count("is queued") == 2
    again = setup.start("documents", "enqueue", first)
    assert again.communicate(timeout=60)[0] == f"{first} was there already\n"
    assert again.returncode == 1
    stands = json.loads(setup.call("documents", "status"))
    assert (stands["queueLength"], stands["queues"][GPU]["waiting"], stands["isGPUEnabled"]) == (2, 2, True)
    assert (stands["isRunning"], stands["isGPUAvailable"], stands["activeJobsCount"], stands["reaperIntervalMs"]) == (
        None,
        True,
        None,
        60_000,
    )
    assert [None, 0.0] == [stands["queues"][name]["oldestSeconds"] for name in (GPU, CPU)], "nobody knows since when they wait"
    run.client.rpush(CPU, first)
    assert json.loads(setup.call("documents", "status"))["queueLength"] == 2, "of the GPU's list, as the platform counts"
    run.client.delete(CPU)
    times = {"OCR_GPU_STUCK_TIMEOUT": "2000", "OCR_GPU_REAPER_INTERVAL": "500", "OCR_GPU_MAX_RETRIES": "7"}
    nobody = run.setup(BRIDGE_HTTP=free_address(), NVIDIA_VISIBLE_DEVICES="none", **times)
    told = nobody.call("documents", "status")
    assert [] == [name for name in ('"stuckJobTimeoutMs": 2000,', '"reaperIntervalMs": 500,', '"maxRetries": 7,') if name not in told]
    stands = json.loads(told)
    assert (stands["isRunning"], stands["isGPUAvailable"], stands["activeJobsCount"]) == (False, False, 0)
    run.client.sadd("filot:ocr:gpu:processing", "7c1f3c9e-0f1d-4c2b-9b1a-0d6e5f4a3b2c")
    assert "is stuck" in setup.call("documents", "reap", "--dry-run")
    told = json.loads(setup.call("documents", "reap", "--dry-run", "--json"))
    assert told == [{"documentId": "7c1f3c9e-0f1d-4c2b-9b1a-0d6e5f4a3b2c", "queued": False}]
    assert "is queued again" in setup.call("documents", "reap")
    assert "no document is stuck" in setup.call("documents", "reap")
    assert run.client.llen(GPU) == 3


def test_what_redis_has_lost_is_queued_again_and_goes_on_as_the_job_that_it_was(run: Run) -> None:
    """Redis was started anew and empty: what waits or is worked on stays as it is, and so does what has ended or was not asked for."""
    setup = run.setup()
    again, new, waits, held, delayed = (run.add("user/KTP_clear.png", status="processing") for _ in range(5))
    ended, unasked = run.add("user/KTP_clear.png", status="completed"), run.add("user/KTP_clear.png")
    correlation = str(uuid4())
    job = Job(key=f"{again}/{correlation}", system="cards", request={"documentId": again, "correlationId": correlation})
    run.on(lambda store: store.jobs.announce(job))
    run.client.rpush(CPU, waits)
    run.client.sadd("filot:ocr:gpu:processing", held)
    run.client.zadd("filot:ocr:delayed", {delayed: 1})

    told = setup.call("documents", "recover", "--dry-run")
    assert (f"{again} is lost\n{new} is lost\n", 0) == (told, run.client.llen(GPU))
    assert f"{again} is queued again\n{new} is queued again\n" == setup.call("documents", "recover")
    assert "no document is lost\n" == setup.call("documents", "recover")
    assert [] == json.loads(setup.call("documents", "recover", "--json"))
    assert [again.encode(), new.encode()] == run.client.lrange(GPU, 0, -1)
    with published(run) as results, setup.running_forked():
        run.wait_until(lambda found: all(found[document]["status"] == "completed" for document in (again, new, waits, delayed)))
        until_told(results, 4)

    assert correlation == next(result["correlationId"] for result in results if result["documentId"] == again)
    assert {"succeeded"} == {row["state"] for row in run.on(lambda store: rows(store, "SELECT state FROM lamina.jobs"))}
    assert ["completed", "uploaded", "processing"] == [run.documents()[document]["status"] for document in (ended, unasked, held)]


def test_health_is_told_as_the_task_definition_asks(run: Run, tmp_path: Path) -> None:
    address = free_address()
    # No languages lie there, where the machine has Tesseract at all.
    setup = run.setup(BRIDGE_HTTP=address, TESSDATA_PREFIX=str(tmp_path))
    with setup.running_forked():
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://{address}/health", timeout=60) as answer:
                    told = json.load(answer)
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.2)
        of_prometheus = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": "text/plain;version=0.0.4;q=0.9,*/*;q=0.1"})
        with urllib.request.urlopen(of_prometheus, timeout=60) as answer:
            metrics = answer.read().decode()
        run.client.rpush("filot:buli2:retry_queue", "{}")
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
            as_json = json.load(answer)
        stands = json.loads(setup.call("documents", "status"))
        with urllib.request.urlopen(of_prometheus, timeout=60) as answer:
            assert 'bridge_escalations{state="waiting"}' in answer.read().decode()

    assert (told["ok"], told["status"]) == (True, "ok")
    [warning] = [line for line in (setup.folder / "bridge.log").read_text().splitlines() if "no_fallback" in line]
    assert "tesseract-ocr-ind" in warning, "what is missing is said at the start"
    assert (stands["isRunning"], stands["isGPUAvailable"], stands["activeJobsCount"]) == (True, True, 0)
    assert {
        *("isRunning", "isGPUAvailable", "isGPUEnabled", "activeJobsCount", "queueLength", "processingCount"),
        *("autoFallbackEnabled", "maxRetries", "stuckJobTimeoutMs", "reaperIntervalMs"),
    } <= stands.keys()
    types = {"ok": bool, "status": str, "uptime": float, "timestamp": str, "environment": str, "ocrEngine": str, "temporalConfigured": bool}
    assert types == {name: type(value) for name, value in told.items()}
    assert "production" == told["environment"] == as_json["metrics"]["environment"]
    assert f'bridge_queue_messages{{queue="{GPU}",source="redis",state="waiting"}}' in metrics
    assert as_json["ok"] is True
    assert {"timestamp", "uptime", "environment", "queues", "gpuWorker", "circuitBreaker", "metricsBuffer"} == as_json["metrics"].keys()
    assert {"isRunning": True, "isGPUAvailable": True, "isGPUEnabled": True, "activeJobsCount": 0, "autoFallbackEnabled": True} == as_json[
        "metrics"
    ]["gpuWorker"]
    queues = as_json["metrics"]["queues"]
    assert {"gpuQueueLength": 0, "cpuQueueLength": 0, "gpuActiveJobs": 0} == {
        name: queues[name] for name in queues.keys() - {"buli2RetryQueueLength"}
    }
    # The case that nobody can read is put aside as soon as the loop comes to it.
    assert queues["buli2RetryQueueLength"] in {0, 1}
    assert ({"buli2": "CLOSED"}, {"size": 0}) == (as_json["metrics"]["circuitBreaker"], as_json["metrics"]["metricsBuffer"])
    assert f'bridge_queue_oldest_seconds{{queue="{GPU}",source="redis"}}' in metrics


def test_the_old_worker_goes_on_with_what_was_given_back(run: Run) -> None:
    """Once what the page about it says is done."""
    page = (Path(__file__).parents[2] / "docs" / "migration" / "ocr-worker.md").read_text(encoding="utf-8")
    [statement] = [line for line in page.partition("\n## Go back\n")[2].splitlines() if line.startswith("UPDATE ")]
    documents = [run.add("user/KTP_clear.png") for _ in range(3)]
    # Nobody answers there, so that all wait.
    setup = run.setup(BRIDGE_INFERENCE=free_address(), OCR_GPU_CONCURRENCY="3", BRIDGE_DRAIN_SECONDS="0.2")
    with setup.running_forked() as bridge:
        run.client.rpush(GPU, *documents)
        run.wait_until(lambda rows: {row["status"] for row in rows.values()} == {"processing"})
        bridge.terminate()
        bridge.join(60)
    assert 0 == bridge.exitcode
    until = time.monotonic() + 60
    while run.client.llen(GPU) < len(documents):
        setup.call("documents", "reap")
        assert time.monotonic() < until, run.client.keys("filot:*")
    stuck = run.add("user/KTP_clear.png")
    with psycopg.connect(run.database, autocommit=True) as connection:
        connection.execute("UPDATE documents SET status = 'processing' WHERE id = %s", (stuck,))
        told = [str(row[0]) for row in connection.execute(statement.encode())]
    assert sorted([*documents, stuck]) == sorted(told)
    setup.call("documents", "enqueue", *(document for document in told if run.client.lpos(GPU, document) is None))

    assert sorted([*documents, stuck]) == sorted(_taken_by_the_old_worker(run))
    assert [] == run.client.keys("filot:ocr:gpu:queue:*")


def _taken_by_the_old_worker(run: Run) -> list[str]:
    """The documents that it takes off its list: it drops those that are processing or completed in the table."""
    taken = []
    while item := run.client.lpop(GPU):
        document = item.decode()
        assert run.client.set(f"filot:ocr:gpu:lock:{document}", "its own", nx=True, ex=600), "nobody has it"
        if run.documents()[document]["status"] not in {"processing", "completed"}:
            taken.append(document)
    return taken
