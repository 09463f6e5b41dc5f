"""Where results are written: a real folder."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from bridge.errors import BridgeError, ConfigurationError, OverloadError, PermanentError, TransientError
from bridge.results import ResultStore
from bridge.served import result_store
from bridge.settings import load
from tests.support.ports import free_port
from tests.support.servers.local_http import local_http
from tests.support.servers.ministack import Ministack
from tests.support.servers.sqs import aws_of
from tests.support.servers.web_server import web_server

LARGE = 300_000_000


async def test_a_file_lies_under_its_kind_job_and_fence(tmp_path: Path) -> None:
    store = ResultStore(str(tmp_path / "new" / "results"))
    location = await store.folder("labs", "job-1", 4).write("labs.json", b"{}")
    assert location == str(tmp_path / "new/results/labs/job-1/4/labs.json")
    assert Path(location).read_bytes() == b"{}"


async def test_a_file_is_copied_from_disk_and_read_back(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 20_000_000)
    folder = ResultStore(str(tmp_path / "results")).folder("slides", "job-1", 1)
    await folder.write("heatmap.png", tmp_path / "source")
    assert await folder.read("heatmap.png") == b"x" * 20_000_000


async def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert await ResultStore(str(tmp_path)).folder("labs", "job-1", 1).read("labs.json") is None


async def test_writing_again_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    folder = ResultStore(str(tmp_path)).folder("labs", "job-1", 1)
    await folder.write("labs.json", b"old")
    await folder.write("labs.json", b"new")
    assert {path.name: path.read_bytes() for path in Path(folder.location).iterdir()} == {"labs.json": b"new"}


@pytest.mark.parametrize("key", ["../../etc/passwd", "..", ".", "a/b", "a%2Fb", "tes darah #1", "é" * 200, "a\nb"])
async def test_no_key_leads_out_of_the_results(tmp_path: Path, key: str) -> None:
    store = ResultStore(str(tmp_path / "results"))
    location = Path(await store.folder("labs", key, 1).write("labs.json", b"{}"))
    assert location.read_bytes() == b"{}"
    assert (tmp_path / "results/labs", "1") == (location.parents[2], location.parent.name)


async def test_results_go_to_an_s3_without_tls_where_the_endpoint_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server() as server:
        for name, value in {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
            monkeypatch.setenv(name, value)
        folder = result_store(load(results="s3://bucket/results")).folder("labs", "job-1", 1)
        assert await folder.write("labs.json", b"{}") == "s3://bucket/results/labs/job-1/1/labs.json"
        assert server.files == {"/bucket/results/labs/job-1/1/labs.json": b"{}"}
        assert await folder.read("labs.json") == b"{}"


def test_two_keys_never_share_a_folder(tmp_path: Path) -> None:
    store = ResultStore(str(tmp_path))
    keys = ["a/b", "a_b", "a b", "a%b", ".a_b", "x" * 150 + "1", "x" * 150 + "2"]
    assert len({store.folder("labs", key, 1).location for key in keys}) == len(keys)


def test_a_url_prefix_names_its_objects(tmp_path: Path) -> None:
    store = ResultStore("s3://bucket/some/results/")
    assert store.folder("slides", "job-1", 2).location == "s3://bucket/some/results/slides/job-1/2"


@pytest.mark.parametrize("kind", ["disk", "s3"])
async def test_files_of_all_tries_are_listed_and_all_but_one_are_removed(tmp_path: Path, ministack: Ministack, kind: str) -> None:
    async with aws_of(ministack) as aws:
        await aws.call("s3", "create_bucket", Bucket=(bucket := f"bucket-{uuid4()}"))
    keys = {"region": "us-east-1", "endpoint": ministack.endpoint, "access_key_id": "test", "secret_access_key": "test"}
    store = ResultStore(str(tmp_path)) if kind == "disk" else ResultStore(f"s3://{bucket}/some/results", allow_http=True, s3=keys)
    for key, fence, name in [("a/b", 2, "saved/1.part"), ("a/b", 10, "one.json"), ("a/b/c", 1, "one.json"), ("a", 1, "one.json")]:
        await store.folder("slides", key, fence).write(name, b"1")
    tries = store.tries("slides", "a/b")

    assert ["10/one.json", "2/saved/1.part"] == await tries.names()
    await tries.clear("", but="10/one.json")
    assert ["10/one.json"] == await tries.names()
    assert (["1/one.json"], []) == (await store.tries("slides", "a").names(), await store.tries("slides", "none").names())


async def test_a_folder_is_emptied_by_several_at_the_same_time(tmp_path: Path) -> None:
    folder = ResultStore(str(tmp_path)).folder("slides", "job-1", 1)
    for name in ("kept", *map(str, range(64))):
        await folder.write(name, b"1")
    await asyncio.gather(*(folder.clear("", but="kept") for _ in range(4)))
    assert ["kept"] == await folder.names()
    await asyncio.gather(*(folder.clear("") for _ in range(4)))
    assert [] == await folder.names()


@pytest.mark.parametrize("root", ["", "ftp://host/results", "s3://"])
def test_a_place_that_cannot_be_opened_names_the_setting(root: str) -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_RESULTS"):
        ResultStore(root)


async def test_a_folder_that_cannot_be_written_is_transient(tmp_path: Path) -> None:
    store = ResultStore(str(tmp_path / "results"))
    (tmp_path / "results/labs").write_text("a file where a folder was expected")
    with pytest.raises(TransientError, match="could not be written"):
        await store.folder("labs", "job-1", 1).write("labs.json", b"{}")


async def test_an_error_that_says_nothing_is_told_by_its_name(tmp_path: Path) -> None:
    def cut_off() -> Iterator[bytes]:
        yield b"{"
        raise TimeoutError

    with pytest.raises(TransientError, match="could not be written: TimeoutError"):
        await ResultStore(str(tmp_path)).folder("labs", "job-1", 1).write("labs.json", cut_off())  # type: ignore[arg-type]


# Argument: a folder. Fills the disk that it mounts there.
_FILL = """
import asyncio, sys
from bridge.results import ResultStore
from bridge.served import result_store
from bridge.settings import load
asyncio.run(ResultStore(sys.argv[1]).folder("labs", "job-1", 1).write("labs.json", b"x" * 200_000))
"""
_SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k none "$0" && exec "$@"']


def test_a_disk_that_is_full_is_no_failure_of_the_job(tmp_path: Path) -> None:
    if subprocess.run([*_SMALL_DISK, tmp_path, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no disk may be mounted here")

    ended = subprocess.run(
        [*_SMALL_DISK, tmp_path, sys.executable, "-c", _FILL, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )

    assert "bridge.errors.OverloadError" in ended.stderr
    assert "labs.json could not be written: Generic LocalFileSystem error: Unable to copy data to file: No space left" in ended.stderr


@contextmanager
def endless_object(*, told: int) -> Iterator[tuple[str, list[int]]]:
    """A store whose objects have so many bytes by their heads, and never end; its address, and how much it got rid of."""
    sent = [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(told))
            self.send_header("Last-Modified", "Sat, 28 Nov 2026 00:00:00 GMT")
            self.end_headers()
            try:
                while sent[0] < told:
                    sent[0] += self.wfile.write(b"x" * 100_000)
            except OSError:
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


async def test_of_an_object_that_is_too_large_no_more_than_its_head_is_fetched() -> None:
    with endless_object(told=LARGE) as (address, sent):
        with pytest.raises(PermanentError, match=f"the object card has {LARGE} bytes; at most 1000000 are read"):
            await ResultStore(address).read("card", most_bytes=1_000_000)
        assert sent[0] < LARGE / 10, "what the network held"


async def test_an_object_of_the_largest_size_is_read_and_one_that_is_missing_is_none(tmp_path: Path) -> None:
    (tmp_path / "card").write_bytes(b"x" * 3_000_000)
    store = ResultStore(str(tmp_path))
    assert b"x" * 3_000_000 == await store.read("card", most_bytes=3_000_000)
    assert await store.read("nothing", most_bytes=1) is None
    with pytest.raises(PermanentError, match="has 3000000 bytes"):
        await store.read("card", most_bytes=2_999_999)


@pytest.mark.parametrize("key", ["", "/", "//"])
async def test_a_key_that_is_empty_is_no_objects_and_its_store_is_not_asked(key: str) -> None:
    """What S3 answers there is a list of everything."""
    with local_http(lambda _: (200, b"<ListBucketResult/>")) as store:
        for call in (s3_at(store.url).read(key, most_bytes=100), s3_at(store.url).holds(key)):
            with pytest.raises(PermanentError, match="no object can have the key"):
                await call
        assert [] == store.asked


def s3_at(endpoint: str) -> ResultStore:
    keys = {"region": "auto", "endpoint": endpoint, "access_key_id": "key", "secret_access_key": "secret"}
    return ResultStore("s3://cards", allow_http=True, s3=keys, set_by="CARD_BUCKET")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "Unauthorized", ConfigurationError),
        (403, "InvalidAccessKeyId", ConfigurationError),
        (403, "SignatureDoesNotMatch", ConfigurationError),
        (403, "RequestTimeTooSkewed", ConfigurationError),
        (400, "ExpiredToken", ConfigurationError),
        (404, "NoSuchBucket", ConfigurationError),
        # Of this object perhaps, or of one that is not there.
        (403, "AccessDenied", TransientError),
        (500, "InternalError", TransientError),
        (503, "SlowDown", OverloadError),
        (507, "InsufficientStorage", OverloadError),
    ],
)
async def test_what_a_store_answers_about_all_objects_is_not_laid_upon_one(status: int, code: str, kind: type[BridgeError]) -> None:
    answer = f"<Error><Code>{code}</Code></Error>".encode()
    with local_http(lambda _: (status, answer)) as store, pytest.raises(BridgeError, match=r"cards/one\.png could not be read") as raised:
        await s3_at(store.url).read("one.png", most_bytes=100)

    assert kind is type(raised.value)
    assert ("CARD_BUCKET" in str(raised.value)) is (kind is ConfigurationError)
    assert "secret" not in str(raised.value)


async def test_an_object_that_the_bucket_has_not_is_none() -> None:
    with local_http(lambda _: (404, b"<Error><Code>NoSuchKey</Code></Error>")) as store:
        assert await s3_at(store.url).read("one.png", most_bytes=100) is None


CALLS: Mapping[str, Callable[[ResultStore], Awaitable[object]]] = {
    "read": lambda store: store.read("one.png", most_bytes=100),
    "look for": lambda store: store.holds("one.png"),
    "read back": lambda store: store.folder("slides", "job", 1).read("one.png"),
    "write": lambda store: store.folder("slides", "job", 1).write("one.png", b"1"),
    "copy": lambda store: store.folder("slides", "job", 1).copy("one.png", store.folder("slides", "job", 2)),
    "list": lambda store: store.tries("slides", "job").names(),
    "clear": lambda store: store.folder("slides", "job", 1).clear("saved"),
}


async def test_a_store_that_is_out_of_reach_is_no_failure_of_the_job() -> None:
    store = s3_at(f"http://127.0.0.1:{free_port()}")

    raised = await asyncio.gather(*(call(store) for call in CALLS.values()), return_exceptions=True)

    assert dict.fromkeys(CALLS, OverloadError) == dict(zip(CALLS, map(type, raised), strict=True))


@pytest.mark.parametrize(("status", "code"), [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (404, "NoSuchBucket")])
@pytest.mark.parametrize("call", CALLS)
async def test_a_store_that_does_not_know_our_keys_or_bucket_is_no_failure_of_the_job(call: str, status: int, code: str) -> None:
    answer = f"<Error><Code>{code}</Code></Error>".encode()
    with local_http(lambda _: (status, answer)) as store, pytest.raises(ConfigurationError, match="set CARD_BUCKET right"):
        await CALLS[call](s3_at(store.url))


async def test_an_object_is_looked_for_by_two_requests_at_most() -> None:
    with local_http(lambda _: (404, b"<Error><Code>NoSuchKey</Code></Error>")) as store:
        assert not await s3_at(store.url).holds("one.png")
        assert ["HEAD", "GET"] == [asked.method for asked in store.asked]
    with local_http(lambda _: (200, b"1", {"Last-Modified": "Sat, 28 Nov 2026 00:00:00 GMT"})) as store:
        assert await s3_at(store.url).holds("one.png")
        assert ["HEAD"] == [asked.method for asked in store.asked]


async def test_an_object_that_may_not_be_looked_for_is_a_failure_of_the_try() -> None:
    with local_http(lambda _: (403, b"<Error><Code>AccessDenied</Code></Error>")) as store, pytest.raises(TransientError, match="403"):
        await s3_at(store.url).holds("one.png")


async def test_a_folder_of_this_machine_that_is_missing_holds_nothing(tmp_path: Path) -> None:
    store = ResultStore(str(tmp_path / "results"))
    one, other = store.folder("slides", "job", 1), store.folder("slides", "job", 2)
    (tmp_path / "results").rmdir()

    await one.copy("one.png", other)

    assert (False, None, None) == (await store.holds("one.png"), await store.read("one.png", most_bytes=1), await one.read("one.png"))
