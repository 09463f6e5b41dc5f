"""What stores are asked for: addresses, conditions, and signatures as each provider's own rules make them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from inference_server.errors import ContentChanged, Unavailable
from inference_server.storage.storage import Storage
from tests.support.servers.ministack import Ministack

CONTENT = bytes(range(200))
Asked = tuple[str, list[tuple[str, str, dict[str, str]]]]


class _Answering(BaseHTTPRequestHandler):
    """Has one object, by ranges, and keeps what it is asked."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, dict[str, str]]]

    def do_HEAD(self) -> None:
        """Answer; without the bytes where only the object is looked at."""
        self.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        start, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        body = CONTENT[int(start) : int(last) + 1] if last else CONTENT
        self.send_response(206 if last else 200)
        if last:
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(CONTENT)}")
        for name, value in (
            ("Accept-Ranges", "bytes"),
            ("ETag", '"1"'),
            ("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT"),
            ("Content-Length", str(len(body))),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def asked() -> Iterator[Asked]:
    """The server's address, and what it is asked."""
    handler: Any = type("Answering", (_Answering,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


async def read(root: str) -> None:
    """A range of the object, as slides are read."""
    storage = Storage(read_roots=(root,), write_roots=(), allow_http=True)
    found = await storage.open(f"{root}/a%20folder/slide%20%C3%A9+1.svs")
    assert CONTENT[10:30] == await storage.read_range(found, 10, 20)


def check(asked: list[tuple[str, str, dict[str, str]]]) -> None:
    """What all stores are asked: a look at the object, then bytes of it on condition that it is the same."""
    path = "/bucket/a folder/slide é+1.svs"
    assert [("HEAD", path), ("GET", path)] == [(method, unquote(target)) for method, target, _ in asked]
    assert ("bytes=10-29", '"1"') == (asked[1][2]["range"], asked[1][2]["if-match"])


@pytest.mark.parametrize("token", ["", "a-session"])
async def test_s3_and_its_like_are_asked_by_path_and_signed_as_aws_signs(asked: Asked, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    url, requests = asked
    # As of R2 and MinIO, whose region may be anything.
    given = {"AWS_ENDPOINT_URL": url, "AWS_REGION": "auto", "AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-secret"}
    for name, value in {**given, **({"AWS_SESSION_TOKEN": token} if token else {})}.items():
        monkeypatch.setenv(name, value)
    await read("s3://bucket")
    check(requests)
    for method, target, headers in requests:
        scheme, credential, signed, signature = headers["authorization"].replace(",", "").split()
        date = headers["x-amz-date"]
        assert ("AWS4-HMAC-SHA256", f"Credential=an-id/{date[:8]}/auto/s3/aws4_request") == (scheme, credential)
        assert token == headers.get("x-amz-security-token", "")
        names = signed.removeprefix("SignedHeaders=").split(";")
        assert {"host", "x-amz-date", "x-amz-content-sha256", *(["x-amz-security-token"] if token else [])} <= set(names)
        request = AWSRequest(method, f"{url}{target}", headers={name: headers[name] for name in names})
        request.context["timestamp"] = date
        signer = S3SigV4Auth(Credentials("an-id", "a-secret"), "s3", "auto")
        expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        assert f"Signature={expected}" == signature


async def test_azure_is_asked_as_its_shared_key_signs(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    url, requests = asked
    secret = base64.b64encode(b"a secret of azure").decode()
    for name, value in {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": secret, "AZURE_ENDPOINT": url}.items():
        monkeypatch.setenv(name, value)
    await read("az://bucket")
    check(requests)
    for method, target, headers in requests:
        # https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
        told = [headers.get(name, "") for name in ("content-encoding", "content-language")]
        length = headers.get("content-length", "0")
        told += ["" if length == "0" else length, headers.get("content-md5", ""), headers.get("content-type", ""), headers.get("date", "")]
        told += [headers.get(name, "") for name in ("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")]
        own = [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
        text = "\n".join([method, *told, *own, f"/account{urlsplit(target).path}"])
        expected = base64.b64encode(hmac.new(b"a secret of azure", text.encode(), hashlib.sha256).digest()).decode()
        assert f"SharedKey account:{expected}" == headers["authorization"]


async def test_google_is_asked_with_a_token_that_the_account_signed(asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url, requests = asked
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    account = {"type": "service_account", "client_email": "reader@trial", "private_key": pem, "private_key_id": "1"}
    (tmp_path / "account.json").write_text(json.dumps({**account, "gcs_base_url": url}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_BASE_URL", url)
    await read("gs://bucket")
    check(requests)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for _, _, headers in requests:
        claims = jwt.decode(headers["authorization"].removeprefix("Bearer "), certs=public, audience=None)
        assert ("reader@trial", "https://www.googleapis.com/auth/cloud-platform") == (claims["iss"], claims["scope"])


async def test_a_web_server_is_asked_without_any_token(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    url, requests = asked
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    await read(f"{url}/bucket")
    check(requests)
    assert not any("authorization" in headers for _, _, headers in requests)


async def test_an_object_of_s3_is_read_as_it_was_found_or_not_at_all(
    ministack: Ministack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in ministack.environment().items():
        monkeypatch.setenv(name, value)
    s3 = boto3.client("s3", endpoint_url=ministack.endpoint)
    s3.create_bucket(Bucket="slides")
    for name in ("a.bin", "b.bin"):
        s3.put_object(Bucket="slides", Key=f"x/{name}", Body=CONTENT)
    storage = Storage(read_roots=("s3://slides",), write_roots=(), allow_http=True)
    found = await storage.open("s3://slides/x/a.bin")
    # What a list says of an object is as good as what the object's own answers say.
    listed = await storage.list_below(found, "x/", most=10)
    for each in (found, *listed):
        assert CONTENT[10:30] == await storage.read_range(each, 10, 20)
        await storage.download(each, tmp_path / "copy")
        await storage.check_unchanged(each)
        assert CONTENT == (tmp_path / "copy").read_bytes()
    s3.put_object(Bucket="slides", Key="x/a.bin", Body=CONTENT[::-1])
    for reading in (storage.read_range(found, 10, 20), storage.check_unchanged(listed[0]), storage.download(listed[0], tmp_path / "copy")):
        with pytest.raises(ContentChanged, match=r"a\.bin was replaced or removed"):
            await reading


@pytest.mark.parametrize("size", [10, 12_000_000])
async def test_a_bucket_that_is_missing_is_told_where_something_is_to_be_written(
    ministack: Ministack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int
) -> None:
    for name, value in ministack.environment().items():
        monkeypatch.setenv(name, value)
    storage = Storage(read_roots=(), write_roots=("s3://nowhere",), allow_http=True)
    (tmp_path / "made").write_bytes(bytes(size))
    with pytest.raises(Unavailable, match=r"s3://nowhere/a/analysis.json cannot be written: there is no such bucket"):
        await storage.write("s3://nowhere/a/analysis.json", tmp_path / "made")
