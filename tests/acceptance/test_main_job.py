"""The main job as a user meets it: both programs as processes, jobs by the command line, results in their three places."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bridge.inference.client import InferenceClient
from bridge.ledger.port import JobRecord
from bridge.results import ResultStore
from bridge.systems.documents import messages as documents
from bridge.systems.documents.handler import DocumentHandler
from bridge.systems.wsi import messages as slides
from bridge.systems.wsi.handler import SlideHandler
from scripts.demo_inputs import write_lab_list, write_lab_report, write_slide
from tests.support.bridge.bridge_process import BridgeSetup, finished, has_left_nothing
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.inference_server.server_process import running_server
from tests.support.models.built_models import built_models
from tests.support.ports import free_address
from tests.support.slides.written_files import told

# The fixture starts two programs, and loads all models.
pytestmark = pytest.mark.timeout(300)

GOOD = ("slide", "document", "labs")
BAD = ("text-slide", "outside-slide", "text-document")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What there was to see when both programs had ended."""

    setup: BridgeSetup
    # The jobs while the server was down, and in the end.
    held: Mapping[str, JobRecord]
    ended: Mapping[str, JobRecord]
    # The jobs after the same slide was split.
    split: Mapping[str, JobRecord]
    # What handlers gave that were called by hand.
    streamed: Mapping[str, Any]
    resumed: Mapping[str, Any]
    # The messages of the out queue, as `bridge results` prints them.
    sent: list[Mapping[str, Any]]
    # Of the bridge and of the server.
    exit_statuses: tuple[int, int]
    left_nothing: tuple[bool, bool]

    def result(self, key: str) -> Mapping[str, Any]:
        return self.ended[key].result or {}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The bridge starts alone and is given jobs; then comes the server; then both are told to end."""
    folder = tmp_path_factory.mktemp("main-job")
    outside = tmp_path_factory.mktemp("outside") / "slide.tiff"
    write_slide(outside, size=512)
    address = free_address()
    setup = BridgeSetup(folder=folder, inference=address)
    flags = ("--listen", address, "--engine", "onnxruntime", "--grace-seconds", "0")
    roots = ("--read-roots", str(folder), "--write-roots", str(setup.results))
    with ExitStack() as stack:
        bridge = stack.enter_context(setup.running())
        _submit(setup, outside)
        held = setup.wait_for_jobs("waiting", count=1, seconds=60)
        server = stack.enter_context(running_server(built_models(), folder, *flags, *roots))
        ended = setup.wait_for_jobs("succeeded", "failed", count=len(GOOD + BAD), seconds=100)
        setup.call("submit", "slide", str(folder / "slide.tiff"), "--key", "split", "--shares", "3", "--wait")
        split = setup.wait_for_jobs("succeeded", count=len(GOOD) + 4, seconds=100)
        streamed, resumed = asyncio.run(_by_hand(setup, ended["document"]))
        bridge.send_signal(signal.SIGTERM)
        bridge_status = bridge.wait(30)
        server.signal(signal.SIGTERM)
        statuses = (bridge_status, server.wait())
        left_nothing = (has_left_nothing(bridge), server.has_left_nothing())
    sent = [json.loads(line) for line in setup.call("results").splitlines()]
    return Finished(
        setup=setup,
        held=held,
        ended=ended,
        split=split,
        streamed=streamed,
        resumed=resumed,
        sent=sent,
        exit_statuses=statuses,
        left_nothing=left_nothing,
    )


async def _by_hand(setup: BridgeSetup, read: JobRecord) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A slide whose artifacts come through the stream, and a document that goes on after the first page of one that was read."""
    results = ResultStore(str(setup.results))
    # Which is not the fence of the result when the server went away in between.
    fence_of_first_page = max(int(path.parts[-3]) for path in setup.results.glob("documents/document/*/pages/00001.json"))
    async with InferenceClient(setup.inference) as client:
        slide = slides.job_of(slides.request_message(key="streamed", slide_uri=str(setup.folder / "slide.tiff")))
        streamed = await SlideHandler(client=client, results=results, shared_storage=False).handle(slide, RecordedContext())
        reader = DocumentHandler(client=client, results=results, read_roots=[setup.folder])
        document = documents.job_of(documents.request_message(key="document", document_uri=str(setup.folder / "report.pdf")))
        saved = {"page_count": 2, "pages": {"1": fence_of_first_page}}
        resumed = await reader.handle(document, RecordedContext(fence=read.fence + 1, checkpoint=saved))
    return streamed.result, resumed.result


def _submit(setup: BridgeSetup, outside: Path) -> None:
    folder = setup.folder
    good = {
        "slide": write_slide(folder / "slide.tiff", size=1024),
        "document": write_lab_report(folder / "report.pdf"),
        "labs": write_lab_list(folder / "labs.json"),
    }
    for command in [setup.start("submit", system, str(path), "--key", system) for system, path in good.items()]:
        finished(command)
    (folder / "text.svs").write_text("This is no slide.")
    (folder / "text.pdf").write_text("This is no document.")
    bad = (
        slides.request_message(key="text-slide", slide_uri=str(folder / "text.svs")),
        slides.request_message(key="outside-slide", slide_uri=str(outside)),
        documents.request_message(key="text-document", document_uri=str(folder / "text.pdf")),
    )
    for message in bad:
        setup.read(lambda store, message=message: store.submit(message))


def test_jobs_are_held_while_the_server_is_down(done: Finished) -> None:
    assert set(GOOD + BAD) == set(done.held)
    assert {job.state for job in done.held.values()} <= {"queued", "waiting", "running"}
    assert any("not available" in job.last_error for job in done.held.values())


def test_a_server_that_was_down_burns_no_attempt(done: Finished) -> None:
    assert [0, 0, 0] == [done.ended[key].attempts for key in GOOD]


def test_every_good_job_succeeds(done: Finished) -> None:
    assert ["succeeded"] * 3 == [done.ended[key].state for key in GOOD], done.ended


def test_the_slide_is_measured_and_its_pictures_lie_in_the_results_folder(done: Finished) -> None:
    summary = done.result("slide")["summary"]
    # An island of 1024 px at 0.5 µm with half-axes of 0.36 and 0.42 of that.
    assert 0.12 == pytest.approx(summary["tissue_area_mm2"], rel=0.15)
    assert 150 < summary["nuclear_candidates"] < 300
    files = {artifact["name"]: Path(artifact["uri"]) for artifact in done.result("slide")["artifacts"]}
    folder = done.setup.results / "slides" / "slide" / str(done.ended["slide"].fence)
    assert {folder} == {path.parent for path in files.values()}
    for name in ("heatmap.png", "overlay.png"):
        with Image.open(files[name]) as picture:
            picture.verify()
    assert "lamina.slide-analysis/1" == json.loads(files["analysis.json"].read_text())["schema"]
    with gzip.open(files["detections.geojson.gz"]) as points:
        assert json.load(points)


def test_artifacts_that_are_streamed_are_those_that_the_server_writes(done: Finished) -> None:
    assert _files(done.result("slide")) == _files(done.streamed)
    artifacts = done.streamed["artifacts"]
    assert [Path(one["uri"]).stat().st_size for one in artifacts] == [one["size_bytes"] for one in artifacts]


def test_a_slide_that_is_split_has_the_files_of_the_whole(done: Finished) -> None:
    shares = [done.split[f"split/share/{index}-of-3"] for index in range(3)]
    merged = done.split["split"]
    assert merged.result is not None
    assert _files(done.result("slide")) == _files(merged.result)
    brought = [int(share.result["tiles_analyzed"]) for share in shares if share.result]
    assert merged.result["tiles_resumed"] == merged.result["tiles_analyzed"] == sum(brought)


def _files(result: Mapping[str, Any]) -> dict[str, bytes]:
    return told(result["artifacts"], lambda uri: Path(uri).read_bytes())


def test_a_document_that_is_resumed_is_the_same_document(done: Finished) -> None:
    resumed, whole = (Path(result["location"]) for result in (done.resumed, done.result("document")))
    assert ["00002.json"] == [path.name for path in (resumed / "pages").iterdir()]
    assert (whole / "document.txt").read_text() == (resumed / "document.txt").read_text()
    assert done.result("document")["word_count"] == done.resumed["word_count"]


def test_the_document_is_read_in_both_languages(done: Finished) -> None:
    result = done.result("document")
    assert (2, 0) == (result["page_count"], result["failed_pages"])
    assert result["mean_confidence"] > 0.9
    text = Path(result["text_uri"]).read_text()
    for printed in ("LABORATORY REPORT", "Hemoglobin", "13.5", "Gula darah puasa", "Trigliserida", "Negatif"):
        assert printed in text
    kept = json.loads((Path(result["location"]) / "document.json").read_text())
    assert [1, 2] == [page["page_number"] for page in kept["pages"]]


def test_the_lab_tests_get_their_codes_and_the_bill_none(done: Finished) -> None:
    found = {test["name"]: (test["loinc_code"], test["category"]) for test in done.result("labs")["tests"]}
    assert ("718-7", "Complete Blood Count (CBC)") == found["Hemoglobin"]
    assert ("1558-6", "Diabetes Panel") == found["Gula darah puasa"] == found["Fasting glucose"]
    assert (None, "Others") == found["Biaya administrasi"]
    assert 18 == len(json.loads((Path(done.result("labs")["location"]) / "labs.json").read_text())["tests"])


@pytest.mark.parametrize(
    ("key", "reason"), [("text-slide", "text.svs"), ("outside-slide", "not under an allowed root"), ("text-document", "INVALID_ARGUMENT")]
)
def test_a_bad_job_fails_at_once_and_says_why(done: Finished, key: str, reason: str) -> None:
    assert "failed" == done.ended[key].state
    assert reason in done.result(key)["reason"]


def test_every_job_has_one_message_in_the_out_queue(done: Finished) -> None:
    told = {line["job_key"]: line for line in done.sent}
    # A split slide has one too, and its shares have none.
    good = (*GOOD, "split")
    assert len(good + BAD) == len(done.sent) == len({line["message_id"] for line in done.sent})
    assert dict.fromkeys(good, "completed") | dict.fromkeys(BAD, "failed") == {key: line["type"] for key, line in told.items()}
    assert done.result("slide") == told["slide"]["body"]["result"]
    assert done.result("text-slide")["reason"] == told["text-slide"]["body"]["reason"]


def test_what_failed_lies_in_the_dead_letters(done: Finished) -> None:
    letters = done.setup.read(lambda store: store.dead_letters.list())
    assert set(BAD) == {letter.job_key for letter in letters}


def test_both_programs_end_well_on_sigterm_and_leave_nothing_running(done: Finished) -> None:
    assert ((0, 0), (True, True)) == (done.exit_statuses, done.left_nothing)
