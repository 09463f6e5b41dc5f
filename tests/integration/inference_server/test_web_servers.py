"""Files of web servers: nothing outside the roots is asked for, and servers that do badly are told from those that do well."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import uvloop

from inference_server.errors import AccessDenied, ContentChanged, InferenceError, InvalidInput, InvalidSlide, NotFound, Unavailable
from inference_server.storage.storage import Storage
from inference_server.storage.web import requests as web
from inference_server.storage.web import store as web_store
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import SlideLimits
from tests.support.servers.certificates import Authority
from tests.support.servers.local_http import Asked
from tests.support.servers.web_server import Answer, WebServer, web_server
from tests.support.slides.painted import paint, write_svs

Meddling = Callable[[Asked, Answer], object]

CONTENT = bytes(range(256)) * 1024
SECRET = b"keys of the cloud"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried as often as ever, and sooner; and connections are kept however long it is between two questions."""
    monkeypatch.setattr(web_store, "_WAITS", tuple(wait / 100 for wait in web_store._WAITS))
    monkeypatch.setattr(web._LIMITS, "keepalive_expiry", 600.0)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server({"/data/a.svs": CONTENT, "/data/b.svs": CONTENT[::-1], "/secret": SECRET}) as server:
        yield server


@pytest.fixture
def inside() -> Iterator[WebServer]:
    """A server that nobody allowed."""
    with web_server({"/secret": SECRET}) as server:
        yield server


def storage_of(server: WebServer, *more: str) -> Storage:
    return Storage(read_roots=(f"{server.url}/data", *more), write_roots=(f"{server.url}/data", *more))


async def read_all_ways(storage: Storage, uri: str, tmp_path: Path) -> bytes:
    """In parts, as a whole and as a copy, which must be the same."""
    found = await storage.open(uri)
    parts = await storage.read_ranges(found, [0, 100_000], [100_000, found.size_bytes])
    whole = await storage.read(uri, most_bytes=1 << 24)
    await storage.download(found, tmp_path / "copy")
    await storage.check_unchanged(found)
    assert whole == b"".join(bytes(part) for part in parts) == (tmp_path / "copy").read_bytes()
    return whole


def redirecting(location: str, *, status: int = 302, when: Callable[[Asked], bool] = lambda asked: True) -> Meddling:
    """Sends those who ask for a.svs elsewhere."""

    def meddle(asked: Asked, answer: Answer) -> None:
        if asked.path.startswith("/data/a.svs") and when(asked):
            answer.status, answer.headers, answer.body = status, {"Location": location}, b"elsewhere"

    return meddle


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["{inside}/secret?signature=abc", "{server}/secret", "/secret", "../secret", "//{inside_host}/secret"])
async def test_a_redirect_out_of_the_roots_is_not_followed(server: WebServer, inside: WebServer, status: int, place: str) -> None:
    location = place.format(inside=inside.url, server=server.url, inside_host=inside.url.removeprefix("http://"))
    server.meddle = redirecting(location, status=status)
    with pytest.raises(AccessDenied, match=r"a\.svs is sent on to http://127\.0\.0\.1:\d+, .*INFERENCE_READ_ROOTS") as denied:
        await storage_of(server).read(f"{server.url}/data/a.svs", most_bytes=100)
    assert "abc" not in str(denied.value)
    assert not inside.asked
    assert "/secret" not in {asked.path for asked in server.asked}


PLACES = [
    "http://127.0.0.1@{host}/secret",
    "{server}/data/../secret",
    "{server}/data/%2e%2e/secret",
    "{server}\\@{host}/data/x",
    "s3://data/x",
]


@pytest.mark.parametrize("place", [*PLACES, "file:///etc/passwd", "http://[broken/data", "{server}:99999/data/x", "{server}/data//x", ""])
async def test_a_redirect_to_what_can_be_read_in_two_ways_is_not_followed(server: WebServer, inside: WebServer, place: str) -> None:
    server.meddle = redirecting(place.format(server=server.url, host=inside.url.removeprefix("http://")))
    with pytest.raises(InferenceError) as denied:
        await storage_of(server).read(f"{server.url}/data/a.svs", most_bytes=100)
    assert not isinstance(denied.value, Unavailable)
    assert not inside.asked
    assert {"/data/a.svs"} == {asked.path for asked in server.asked}


async def test_a_redirect_of_later_requests_alone_is_not_followed(server: WebServer, inside: WebServer, tmp_path: Path) -> None:
    storage = storage_of(server)
    found = await storage.open(f"{server.url}/data/a.svs")
    server.meddle = redirecting(f"{inside.url}/secret", when=lambda asked: asked.method == "GET")
    for reading in (
        lambda: storage.read_range(found, 0, 10),
        lambda: storage.download(found, tmp_path / "copy"),
        lambda: storage.read(found.uri, most_bytes=1 << 20),
    ):
        with pytest.raises(AccessDenied):
            await reading()
    assert not inside.asked


async def test_a_redirect_of_what_is_written_is_not_followed(server: WebServer, inside: WebServer) -> None:
    for status in (301, 303, 307, 308):
        server.meddle = redirecting(f"{inside.url}/taken", status=status)
        with pytest.raises(AccessDenied, match="INFERENCE_WRITE_ROOTS"):
            await storage_of(server).write(f"{server.url}/data/a.svs", b"of a patient")
    assert not inside.asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["{server}/data/b.svs", "b.svs", "/data/x/../b.svs?signed=1", "{other}/more/b.svs", "{server}//data/b.svs"]
)
async def test_a_redirect_within_the_roots_is_followed(server: WebServer, status: int, location: str, tmp_path: Path) -> None:
    with web_server({"/more/b.svs": CONTENT[::-1]}) as other:
        server.files["/data/b.svs?signed=1"] = CONTENT[::-1]
        server.meddle = redirecting(location.format(server=server.url, other=other.url), status=status)
        storage = storage_of(server, f"{other.url}/more")
        assert CONTENT[::-1] == await read_all_ways(storage, f"{server.url}/data/a.svs", tmp_path)


async def test_a_circle_of_redirects_ends(server: WebServer) -> None:
    server.meddle = redirecting("/data/a.svs")
    with pytest.raises(InvalidInput, match="is sent on more than 5 times"):
        await storage_of(server).open(f"{server.url}/data/a.svs")
    assert len(server.asked) < 20


async def test_what_is_written_is_there_and_may_be_sent_on_within_the_roots(server: WebServer, tmp_path: Path) -> None:
    storage, large = storage_of(server), tmp_path / "large"
    large.write_bytes(CONTENT * 8)
    server.meddle = lambda asked, answer: answer.headers.update({"Content-Encoding": "gzip"}) if asked.method == "PUT" else None
    await storage.write(f"{server.url}/data/new.json", b"{}")
    await storage.write(f"{server.url}/data/large", large)
    server.meddle = redirecting("/data/sent-on", status=307)
    await storage.write(f"{server.url}/data/a.svs", b"more")
    assert (b"{}", CONTENT * 8, b"more") == tuple(server.files[f"/data/{name}"] for name in ("new.json", "large", "sent-on"))


def without_ranges(says: str) -> Meddling:
    """`says`: what it tells of ranges."""

    def meddle(asked: Asked, answer: Answer) -> None:
        answer.headers["Accept-Ranges"] = says

    return meddle


def without_head(asked: Asked, answer: Answer) -> None:
    if asked.method == "HEAD":
        answer.status, answer.headers = 405, {"Allow": "GET"}


def without_length_of_head(asked: Asked, answer: Answer) -> None:
    if asked.method == "HEAD":
        answer.headers["Content-Length"] = ""


def with_empty_head(asked: Asked, answer: Answer) -> None:
    if asked.method == "HEAD":
        answer.headers["Content-Length"] = "0"


def with_unknown_total(asked: Asked, answer: Answer) -> None:
    if "Content-Range" in answer.headers:
        answer.headers["Content-Range"] = answer.headers["Content-Range"].split("/")[0] + "/*"


def in_chunks(asked: Asked, answer: Answer) -> None:
    if asked.method == "GET":
        answer.body = (
            b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (answer.body[:100], answer.body[100:]) if part) + b"0\r\n\r\n"
        )
        answer.headers["Transfer-Encoding"] = "chunked"


def without_state(asked: Asked, answer: Answer) -> None:
    if asked.method == "GET":
        answer.headers.pop("ETag", None)
        answer.headers.pop("Last-Modified", None)


def with_odd_state(asked: Asked, answer: Answer) -> None:
    answer.headers |= {"ETag": '"é"', "Last-Modified": "Mon, 01 Jan 0001 00:00:00 -0000"}


def with_no_date(asked: Asked, answer: Answer) -> None:
    answer.headers |= {"ETag": "", "Last-Modified": "yesterday"}


KEEPING_TO_LESS = [
    with_odd_state,
    with_no_date,
    without_head,
    without_length_of_head,
    with_empty_head,
    with_unknown_total,
    in_chunks,
    without_state,
]


@pytest.mark.parametrize("meddle", KEEPING_TO_LESS)
async def test_servers_that_keep_to_less_of_http_are_read(server: WebServer, meddle: Meddling, tmp_path: Path) -> None:
    server.meddle = meddle
    assert CONTENT == await read_all_ways(storage_of(server), f"{server.url}/data/a.svs", tmp_path)


@pytest.mark.parametrize("meddle", KEEPING_TO_LESS)
async def test_an_empty_file_is_one(server: WebServer, meddle: Meddling) -> None:
    server.meddle, server.files["/data/a.svs"] = meddle, b""
    assert b"" == await storage_of(server).read(f"{server.url}/data/a.svs", most_bytes=100)


@pytest.mark.parametrize("says", ["none", "bytes", ""])
async def test_a_file_of_a_server_without_ranges_is_read_whole_and_says_so(server: WebServer, says: str, tmp_path: Path) -> None:
    server.meddle, server.sends_parts = without_ranges(says), False
    storage = storage_of(server)
    assert CONTENT == await storage.read(f"{server.url}/data/a.svs", most_bytes=1 << 20)
    found = await storage.open(f"{server.url}/data/a.svs")
    assert CONTENT[:100] == await storage.read_range(found, 0, 100)
    assert not found.comes_in_parts
    with pytest.raises(InvalidInput, match=r"sends whole files alone.* Switch its range requests on"):
        await storage.read_range(found, 100, 100)
    await storage.download(found, tmp_path / "copy")
    assert CONTENT == (tmp_path / "copy").read_bytes()


@pytest.mark.parametrize("says", ["none", "bytes", ""])
async def test_a_slide_of_a_server_without_ranges_is_read_from_a_copy(server: WebServer, says: str, tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", paint(700, 500, tissue=(50, 50, 650, 450)))
    server.files["/data/slide.svs"] = path.read_bytes()
    server.meddle, server.sends_parts = without_ranges(says), False
    storage, uri = storage_of(server, str(tmp_path)), f"{server.url}/data/slide.svs"
    staging = Staging(storage, most_bytes=1 << 30, folder=tmp_path / "staging")
    async with open_slide(storage, str(path), SlideLimits(), staging) as local, open_slide(storage, uri, SlideLimits(), staging) as remote:
        assert local.facts.levels == remote.facts.levels
        read = [await reader.read_tiles(0, [(0, 0), (1, 1)]) for reader in (local, remote)]
        np.testing.assert_array_equal(*read)
        assert type(local) is type(remote)
    with pytest.raises(InvalidSlide, match="must be copied to local disk"):
        async with open_slide(storage, uri, SlideLimits(), Staging(storage, most_bytes=0)):
            pass


async def test_a_copy_is_read_from_a_folder_that_is_named_from_where_the_server_stands(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server.files["/data/slide.svs"] = write_svs(tmp_path / "slide.svs", paint(700, 500, tissue=(50, 50, 650, 450))).read_bytes()
    server.meddle, server.sends_parts = without_ranges("none"), False
    storage = storage_of(server)
    staging = Staging(storage, most_bytes=1 << 30, folder=Path(".lamina/staging"))
    async with open_slide(storage, f"{server.url}/data/slide.svs", SlideLimits(), staging) as reader:
        assert (700, 500) == (reader.facts.width, reader.facts.height)


async def test_a_file_whose_size_nobody_tells_is_refused_with_the_way_out(server: WebServer) -> None:
    def meddle(asked: Asked, answer: Answer) -> None:
        without_ranges("")(asked, answer)
        in_chunks(asked, answer)
        without_length_of_head(asked, answer)

    server.meddle, server.sends_parts = meddle, False
    with pytest.raises(InvalidInput, match="does not tell how large it is; have it send Content-Length"):
        await storage_of(server).open(f"{server.url}/data/a.svs")


async def test_what_fails_for_a_moment_is_asked_for_again(server: WebServer, tmp_path: Path) -> None:
    seen: set[tuple[str, str]] = set()

    def meddle(asked: Asked, answer: Answer) -> None:
        if (key := (asked.method, asked.headers.get("range", ""))) not in seen:
            seen.add(key)
            answer.status = 503

    server.meddle = meddle
    assert CONTENT == await read_all_ways(storage_of(server), f"{server.url}/data/a.svs", tmp_path)


def failing(status: int) -> Meddling:
    def meddle(asked: Asked, answer: Answer) -> None:
        answer.status, answer.body = status, b"inner words"

    return meddle


FAILURES = [
    (401, AccessDenied, "may not read"),
    (403, AccessDenied, "may not read"),
    (404, NotFound, "does not exist"),
    (410, NotFound, "does not exist"),
    (400, InvalidInput, "answers HTTP 400"),
    (300, InvalidInput, "answers HTTP 300"),
    (500, Unavailable, r"\(HTTP 500\); try again"),
    (429, Unavailable, r"\(HTTP 429\); try again"),
]


@pytest.mark.parametrize(("status", "kind", "text"), FAILURES)
async def test_what_a_server_answers_is_told_as_what_it_is(server: WebServer, status: int, kind: type[InferenceError], text: str) -> None:
    server.meddle = failing(status)
    with pytest.raises(kind, match=text) as failed:
        await storage_of(server).open(f"{server.url}/data/a.svs")
    assert "inner" not in str(failed.value)


def other_range(asked: Asked, answer: Answer) -> None:
    if answer.status == 206:
        answer.headers["Content-Range"] = f"bytes 0-{len(answer.body) - 1}/{len(CONTENT)}"


def several_ranges(asked: Asked, answer: Answer) -> None:
    if answer.status == 206:
        del answer.headers["Content-Range"]
        answer.headers["Content-Type"] = "multipart/byteranges; boundary=x"


def compressed(asked: Asked, answer: Answer) -> None:
    answer.headers["Content-Encoding"], answer.body = "gzip", gzip.compress(answer.body)


def cut_short(asked: Asked, answer: Answer) -> None:
    if asked.method == "GET":
        answer.headers["Content-Length"] = str(len(answer.body))
        answer.body = answer.body[:-1]


def told_short(asked: Asked, answer: Answer) -> None:
    if asked.method == "GET":
        answer.body = answer.body[:-1]


def too_long(asked: Asked, answer: Answer) -> None:
    if asked.method == "GET":
        answer.body += b"more"


def no_http(asked: Asked, answer: Answer) -> None:
    answer.headers["Broken\r\nHeader"] = "x"


def endless_head(asked: Asked, answer: Answer) -> None:
    answer.headers |= {f"X-{number}": "x" * 1000 for number in range(1000)}


BROKEN = [
    (other_range, InvalidInput, "sends other parts than are asked for"),
    (several_ranges, InvalidInput, "sends other parts than are asked for"),
    (compressed, InvalidInput, r"sends it compressed \(gzip\)"),
    (cut_short, Unavailable, r"was read \(its answer is cut short, or no HTTP\); try again"),
    (told_short, Unavailable, r"was read \(its answer has more or less bytes than it says\); try again"),
    (too_long, Unavailable, r"was read \(its answer has more or less bytes than it says\); try again"),
    (no_http, Unavailable, "cut short, or no HTTP"),
    (endless_head, Unavailable, "cut short, or no HTTP"),
    (failing(416), Unavailable, "it has no such bytes"),
    (failing(412), ContentChanged, "was replaced or removed"),
]


@pytest.mark.parametrize(("meddle", "kind", "text"), BROKEN)
async def test_answers_that_are_not_what_was_asked_for_are_not_taken_for_the_file(
    server: WebServer, meddle: Meddling, kind: type[InferenceError], text: str
) -> None:
    storage = storage_of(server)
    found = await storage.open(f"{server.url}/data/a.svs")
    server.meddle = meddle
    with pytest.raises(kind, match=text):
        await storage.read_range(found, 100, 100)


async def test_a_compressed_file_is_refused_when_it_is_opened(server: WebServer) -> None:
    server.meddle = compressed
    with pytest.raises(InvalidInput, match=r"sends it compressed \(gzip\) though it was asked not to"):
        await storage_of(server).open(f"{server.url}/data/a.svs")
    assert {"identity"} == {asked.headers["accept-encoding"] for asked in server.asked}


@pytest.mark.parametrize("content", [CONTENT[:100], CONTENT + b"more", CONTENT[::-1]])
async def test_a_file_that_is_replaced_is_told_by_size_or_tag(server: WebServer, content: bytes, tmp_path: Path) -> None:
    storage = storage_of(server)
    found = await storage.open(f"{server.url}/data/a.svs")
    server.files["/data/a.svs"] = content
    # Not all servers keep to conditions.
    server.answer = lambda asked: WebServer.answer(
        server, replace(asked, headers={name: value for name, value in asked.headers.items() if name != "if-match"})
    )
    for reading in (
        lambda: storage.read_range(found, 10, 10),
        lambda: storage.read_range(found, 1000, 10),
        lambda: storage.download(found, tmp_path / "copy"),
        lambda: storage.check_unchanged(found),
    ):
        with pytest.raises(ContentChanged):
            await reading()


def silent(asked: Asked, answer: Answer) -> None:
    answer.wait = 60


def dripping(asked: Asked, answer: Answer) -> None:
    answer.drip = 0.2


@pytest.mark.parametrize(
    ("meddle", "silence", "answer", "text"),
    [(silent, 0.3, 60.0, "does not answer in time"), (dripping, 60.0, 1.0, "it takes more than 1 s")],
)
async def test_a_server_that_takes_for_ever_does_not_hold_a_reader_for_ever(
    server: WebServer, meddle: Meddling, silence: float, answer: float, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_of(server)
    found = await storage.open(f"{server.url}/data/a.svs")
    monkeypatch.setattr(web, "SILENT_SECONDS", silence)
    monkeypatch.setattr(web_store, "_ANSWER_SECONDS", answer)
    server.meddle = meddle
    for reading in (lambda: storage.open(found.uri), lambda: storage.read_range(found, 0, 100), lambda: storage.write(found.uri, b"")):
        with pytest.raises(Unavailable, match=text):
            await asyncio.wait_for(reading(), 100)


async def test_a_copy_that_takes_for_ever_fails_and_is_not_called_off(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_store, "_LEAST_BYTES_A_SECOND", 1 << 30)
    server.sends_parts = False
    server.meddle = lambda asked, answer: (without_ranges("none")(asked, answer), setattr(answer, "drip_of_body", 0.01))
    storage = storage_of(server)
    found = await storage.open(f"{server.url}/data/a.svs")
    monkeypatch.setattr(web_store, "_ANSWER_SECONDS", 1.0)
    # Where the time ends: while the copy is written, or while it is waited for.
    for writing in (0.3, 0.0):
        copying = asyncio.create_task(storage.download(found, tmp_path / "copy", moved=partial(time.sleep, writing)))
        await asyncio.wait([copying], timeout=60)
        assert not copying.cancelled()
        assert isinstance(copying.exception(), Unavailable)
        assert "was copied (it takes more than 1 s); try again" in str(copying.exception())


async def test_a_reader_that_is_called_off_lets_go_at_once(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SILENT_SECONDS", 600.0)
    server.meddle = silent
    opening = asyncio.create_task(storage_of(server).open(f"{server.url}/data/a.svs"))
    await asyncio.wait([opening], timeout=0.3)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(opening, 60)


@pytest.mark.parametrize("name", ["a b%41.svs", "100%.svs", "é+&=;,'()!$~.svs", "a%3Fb%23c.svs", "%2B%25.svs"])
async def test_names_reach_the_server_as_they_are_meant(server: WebServer, name: str) -> None:
    server.answer = lambda asked: WebServer.answer(server, replace(asked, path=unquote(asked.path)))
    server.files[f"/data/{unquote(name)}"] = b"found"
    assert b"found" == await storage_of(server).read(f"{server.url}/data/{name}", most_bytes=100)


async def test_a_server_of_ipv6_is_read() -> None:
    with web_server({"/data/a.svs": CONTENT}, host="::1") as server:
        assert CONTENT == await storage_of(server).read(f"{server.url}/data/a.svs", most_bytes=1 << 20)


async def test_a_host_that_is_not_there_is_told() -> None:
    with web_server() as server:
        storage = storage_of(server, "http://no-such-host.invalid")
    with pytest.raises(Unavailable, match=r"\(Connection refused\); try again"):
        await storage.open(f"{server.url}/data/a.svs")
    with pytest.raises(Unavailable, match="the name of its host leads nowhere"):
        await storage.open("http://no-such-host.invalid/a.svs")


async def test_one_connection_serves_who_asks_one_after_the_other(server: WebServer, tmp_path: Path) -> None:
    server.meddle = redirecting("b.svs")
    storage = storage_of(server)
    await read_all_ways(storage, f"{server.url}/data/a.svs", tmp_path)
    await storage.write(f"{server.url}/data/new", b"new")
    with pytest.raises(NotFound):
        await storage.open(f"{server.url}/data/absent")
    # Two parts are read at a time.
    assert len(server.connections) <= 2 < 10 < len(server.asked)


async def test_connections_are_kept_and_may_be_closed_by_the_server(server: WebServer) -> None:
    storage = storage_of(server)
    found = await storage.open(f"{server.url}/data/a.svs")
    for number in range(20):
        server.meddle = closing if number % 3 == 0 else lambda asked, answer: None
        assert CONTENT[number : number + 9] == await storage.read_range(found, number, 9)
    assert len(server.connections) < 10


def closing(asked: Asked, answer: Answer) -> None:
    """Without a word of it."""
    answer.ends_connection = True


async def test_folders_are_made_where_a_server_of_webdav_lacks_them(server: WebServer) -> None:
    made: list[str] = []

    def meddle(asked: Asked, answer: Answer) -> None:
        if asked.method == "MKCOL":
            made.append(asked.path)
            answer.status = 201
        elif asked.method == "PUT" and len(made) < 2:
            answer.status = 409

    server.meddle = meddle
    await storage_of(server).write(f"{server.url}/data/new/deep/report.json", b"{}")
    assert (["/data/", "/data/new/", "/data/new/deep/"], b"{}") == (made, server.files["/data/new/deep/report.json"])


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """One with a certificate that this process trusts."""
    authority = Authority()
    (tmp_path / "authority.crt").write_bytes(authority.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.crt"))
    with web_server({"/data/a.svs": CONTENT * 20}, tls=authority.issue("server").write(tmp_path, "server")) as server:
        yield server


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:{port}", "http://some%40one:pass%3Aword@127.0.0.1:{port}"])
def test_a_server_of_tls_is_read_by_a_proxy_too(
    tls_server: WebServer, tmp_path: Path, loop: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reading() -> None:
        async with tunnels() as (port, heads):
            if proxy:
                monkeypatch.setenv("HTTPS_PROXY", proxy.format(port=port))
            assert CONTENT * 20 == await read_all_ways(storage_of(tls_server), f"{tls_server.url}/data/a.svs", tmp_path)
            assert bool(proxy) == bool(heads)
            assert all(head.startswith(f"CONNECT {tls_server.url.removeprefix('https://')} HTTP/1.1\r\n") for head in heads)
            signed = base64.b64encode(b"some@one:pass:word").decode()
            assert ("pass" in proxy) == any(f"\r\nProxy-Authorization: Basic {signed}\r\n" in head for head in heads)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(reading())


@contextlib.asynccontextmanager
async def tunnels() -> AsyncIterator[tuple[int, list[str]]]:
    """The port of a proxy for TLS, and what it was asked."""
    heads: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        host, _, port = heads[-1].split()[1].rpartition(":")
        there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()


async def test_a_proxy_is_asked_in_the_place_of_a_server(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.files["http://far.invalid/data/a.svs"] = b"far"
    storage = Storage(read_roots=("http://far.invalid/data", f"{server.url}/data"), write_roots=())
    assert b"far" == await storage.read("http://far.invalid/data/a.svs", most_bytes=100)
    assert {"far.invalid"} == {asked.headers["host"] for asked in server.asked}
    assert CONTENT == await storage.read(f"{server.url}/data/a.svs", most_bytes=1 << 20)


async def test_a_certificate_that_nobody_vouches_for_is_told(tls_server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Unavailable, match="its certificate is not trusted"):
        await storage_of(tls_server).open(f"{tls_server.url}/data/a.svs")
