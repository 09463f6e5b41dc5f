"""What is said of an S3 that refuses, is set up wrongly, or sends other bytes than were asked for; obstore's own client asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_server.errors import AccessDenied, ContentChanged, InvalidInput, StorageUnavailable
from inference_server.storage.storage import Storage
from tests.support.servers.certificates import Authority
from tests.support.servers.local_http import Asked
from tests.support.servers.web_server import Answer, WebServer, web_server

CONTENT = bytes(range(256)) * 40
URI, ROOT = "s3://bucket/a.svs", "s3://bucket/"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    with web_server() as server:
        server.files["/bucket/a.svs"] = CONTENT
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield server


def storage(*, allow_http: bool = True) -> Storage:
    return Storage(read_roots=(ROOT, "az://"), write_roots=(ROOT,), allow_http=allow_http)


def sends(server: WebServer, status: int, body: bytes = b"") -> None:
    def meddle(asked: Asked, answer: Answer) -> None:
        answer.status, answer.headers, answer.body = status, {}, body

    server.meddle = meddle


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (301, "the bucket lies elsewhere: AWS_REGION or AWS_ENDPOINT_URL is not the bucket's"),
        (400, "HTTP 400: credentials that have expired, or an AWS_REGION that is not the bucket's"),
        (503, "HTTP 503"),
    ],
)
async def test_what_a_store_refuses_by_is_told(store: WebServer, status: int, said: str) -> None:
    sends(store, status)
    with pytest.raises(StorageUnavailable) as told:
        await storage().open(URI)
    assert f"storage did not answer for {URI} ({said}); try again." == str(told.value).replace("it says that ", "")


async def test_the_name_that_a_store_gives_to_what_was_wrong_is_told_and_no_more_of_its_text(store: WebServer) -> None:
    found = await storage().open(URI)
    sends(store, 400, b"<Error><Code>ExpiredToken</Code><Token>secret</Token></Error>")
    with pytest.raises(StorageUnavailable, match=r"\(HTTP 400 ExpiredToken: renew ") as told:
        await storage().read_range(found, 0, 10)
    assert "secret" not in str(told.value)


async def test_missing_credentials_are_no_reason_to_try_again(store: WebServer) -> None:
    sends(store, 401)
    with pytest.raises(AccessDenied, match=r"the server may not read s3://bucket/a\.svs"):
        await storage().open(URI)


async def test_a_store_without_tls_that_may_not_be_asked_is_told(store: WebServer) -> None:
    with pytest.raises(StorageUnavailable, match="its address is http, which INFERENCE_ALLOW_HTTP does not allow"):
        await storage(allow_http=False).open(URI)


async def test_a_store_whose_account_is_not_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(InvalidInput, match="AZURE_STORAGE_ACCOUNT_NAME is not set"):
        await Storage(read_roots=("az://bucket/",), write_roots=()).open("az://bucket/a.svs")


async def test_a_store_whose_certificate_nobody_vouches_for_is_told(
    store: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server(tls=Authority().issue("server").write(tmp_path, "server")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(StorageUnavailable, match="its certificate is not trusted"):
            await storage().open(URI)


async def test_a_store_whose_name_leads_nowhere_is_told(store: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
    with pytest.raises(StorageUnavailable, match="the name of its host leads nowhere"):
        await storage().open(URI)


@pytest.mark.parametrize("kept", [0, 95])
async def test_fewer_bytes_than_were_asked_for_are_no_answer(store: WebServer, kept: int) -> None:
    """As a proxy sends them that is content with the part that it has: its length is the body's, its range what was asked for."""
    found = await storage().open(URI)

    def meddle(asked: Asked, answer: Answer) -> None:
        if asked.method == "GET":
            answer.body = answer.body[:kept]

    store.meddle = meddle
    with pytest.raises(StorageUnavailable, match="its answer has more or less bytes than were asked for"):
        await storage().read_ranges(found, [100, 5000], [200, 5100])


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "RequestTimeTooSkewed"])
async def test_keys_that_are_refused_say_nothing_of_the_object_and_are_waited_for(store: WebServer, code: str) -> None:
    """To HEAD a store says 403 alone, so that it is asked once more; the other refusals are of the object, and for good."""
    found = await storage().open(URI)
    sends(store, 403, f"<Error><Code>{code}</Code><Message>secret</Message></Error>".encode())
    said = rf"\(HTTP 403 {code}: renew the server's credentials, or set its clock\)"
    for asked in (storage().open(URI), storage().write(URI, b"new"), storage().read_range(found, 0, 10)):
        with pytest.raises(StorageUnavailable, match=said) as told:
            await asked
        assert "secret" not in str(told.value)
    sends(store, 403, b"<Error><Code>AccessDenied</Code></Error>")
    for refused in (storage().open(URI), storage().write(URI, b"new")):
        with pytest.raises(AccessDenied):
            await refused


async def test_an_object_that_was_removed_since_it_was_found_has_changed(store: WebServer, tmp_path: Path) -> None:
    found = await storage().open(URI)
    del store.files["/bucket/a.svs"]
    with pytest.raises(ContentChanged, match="was replaced or removed while it was read"):
        await storage().read_range(found, 0, 10)
    with pytest.raises(ContentChanged, match="was replaced or removed while it was read"):
        await storage().download(found, tmp_path / "copy")
