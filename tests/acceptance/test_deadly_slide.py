"""A slide over which the inference server dies each time: it ends in the dead letters, and other slides are analysed meanwhile."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.ledger.port import DeadLetter, JobRecord
from bridge.store import Store
from bridge.systems.wsi import messages
from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.ports import free_address
from tests.support.servers.local_http import Asked, LocalHttp, local_http
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_classifier

pytestmark = pytest.mark.timeout(300)

MODEL = "pinkness"
MOST = 3


class Supervised:
    """The real server at one address; whenever it has died it is started again, as a platform does."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.address = free_address()
        self.deaths = 0
        self._folder = folder
        self._flags = ("--listen", self.address, "--engine", "onnxruntime", "--threads", "1", "--services", "slides", *flags)
        # The readers of one server ask at once.
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._server: ServerProcess | None = None
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join(60)

    def _run(self) -> None:
        while not self._ended.is_set():
            with running_server(self._folder / "models", self._folder, *self._flags) as self._server:
                while self._server.process.poll() is None and not self._ended.wait(0.02):
                    pass

    def send(self, number: signal.Signals) -> None:
        """To the process that runs now, if it still does; returns when it has died."""
        with self._turn:
            assert self._server is not None
            if self._server.process.poll() is None:
                self._server.signal(number)
                self._server.wait()
                self.deaths += 1


def bridge_of(folder: Path, server: Supervised) -> BridgeSetup:
    return BridgeSetup(
        folder=folder, inference=server.address, variables={"BRIDGE_MAX_SERVER_LOSSES": str(MOST), "BRIDGE_WSI_ANALYSIS": MODEL}
    )


def write_inputs(folder: Path) -> None:
    write_classifier(folder / "models", mpp=0.5)
    piece = paint(512, 512, tissue=(0, 0, 512, 512), nuclei=scattered(40, within=(20, 20, 490, 490), apart=25), noise=2.0)
    write_svs(folder / "good.svs", piece, tile=256)


def submit(setup: BridgeSetup, key: str, slide_uri: str) -> None:
    async def send(store: Store) -> None:
        await store.submit(messages.request_message(key=key, slide_uri=slide_uri, analysis=MODEL))

    setup.read(send)


def wait_until(happened: Callable[[], bool], setup: BridgeSetup, *, what: str, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, f"{what}\n{(setup.folder / 'bridge.log').read_text()[-4000:]}"
        time.sleep(0.05)


def job(setup: BridgeSetup, key: str) -> JobRecord:
    return setup.jobs()[key]


def interruptions(setup: BridgeSetup, key: str) -> int:
    with contextlib.closing(sqlite3.connect(setup.folder / "bridge.db")) as database:
        return int(database.execute("SELECT interruptions FROM jobs WHERE key = ?", (key,)).fetchone()[0])


def letters(setup: BridgeSetup) -> list[DeadLetter]:
    async def look(store: Store) -> list[DeadLetter]:
        return list(await store.dead_letters.list())

    return setup.read(look)


@contextmanager
def slides_that(happens: Callable[[], None]) -> Iterator[LocalHttp]:
    """A store of slides, where something happens to the server as soon as it reads one."""

    def answering(_: Asked) -> tuple[int, bytes]:
        happens()
        return 503, b""

    with local_http(answering) as store:
        yield store


def test_a_slide_that_kills_the_server_each_time_ends_in_the_dead_letters_and_others_are_analysed_meanwhile(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    with slides_that(lambda: server.send(signal.SIGKILL)) as store:
        server = Supervised(tmp_path, "--read-roots", f"{tmp_path},{store.url}", "--write-roots", str(tmp_path), "--allow-http")
        setup = bridge_of(tmp_path, server)
        with server.running(), setup.running():
            submit(setup, "deadly", f"{store.url}/deadly.svs")
            wait_until(lambda: server.deaths >= 2, setup, what="the server dies twice")
            submit(setup, "good", str(tmp_path / "good.svs"))
            jobs = setup.wait_for_jobs("succeeded", "failed", count=2, seconds=120)

    assert ("failed", 0) == (jobs["deadly"].state, jobs["deadly"].attempts), jobs["deadly"]
    assert ("succeeded", 0) == (jobs["good"].state, jobs["good"].attempts), jobs["good"]
    assert MOST == server.deaths
    (letter,) = letters(setup)
    assert "deadly" == letter.job_key
    assert letter.reason.startswith(f"{MOST} times in a row the inference server"), letter.reason
    assert "replay it" in letter.reason


def test_a_server_that_drains_or_is_not_there_is_not_held_against_the_slide(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    reads, answered = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        reads.release()
        answered.wait(60)

    with slides_that(hold) as store:
        flags = ("--read-roots", f"{tmp_path},{store.url}", "--allow-http", "--drain-seconds", "0.5")
        server = Supervised(tmp_path, *flags)
        setup = bridge_of(tmp_path, server)
        with setup.running():
            submit(setup, "slow", f"{store.url}/slow.svs")
            wait_until(lambda: "not" in job(setup, "slow").last_error, setup, what="no server is there")
            fence = job(setup, "slow").fence
            wait_until(lambda: job(setup, "slow").fence > fence + MOST, setup, what="it is tried again")
            assert (0, 0) == (interruptions(setup, "slow"), job(setup, "slow").attempts)
            with server.running():
                for _ in range(MOST + 1):
                    assert reads.acquire(timeout=60), "the server reads the slide"
                    server.send(signal.SIGTERM)
                    wait_until(lambda: "shutting down" in job(setup, "slow").last_error, setup, what="it was drained")
                    assert (0, 0) == (interruptions(setup, "slow"), job(setup, "slow").attempts)
                    while reads.acquire(blocking=False):
                        pass
        answered.set()
