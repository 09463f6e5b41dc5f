"""As whom AWS is called: by keys, as a role, as a container, by a web identity. A server in between tells whose signature came."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs
from uuid import uuid4

import pytest

from bridge.aws.access import Aws, AwsAccess
from bridge.errors import ConfigurationError
from bridge.results import ResultStore
from bridge.settings import load
from bridge.transports.aws import aws_access, object_options, open_aws
from tests.support.servers.local_http import Asked, LocalHttp, local_http, passed_on
from tests.support.servers.ministack import Ministack

ROLE = "arn:aws:iam::000000000000:role/bridge"


class Between:
    """Passes everything on to the emulator, but for what a test answers itself."""

    def __init__(self, ministack: Ministack) -> None:
        self._endpoint = ministack.endpoint
        # Keys that STS lends, in order; when there are none, the emulator's.
        self.lent: list[str] = []
        # Less than what is left when credentials are renewed.
        self.lent_seconds = 60

    def __call__(self, asked: Asked) -> tuple[int, bytes, Mapping[str, str]]:
        form = parse_qs(asked.body.decode(errors="replace"))
        action = form.get("Action", [""])[0]
        if action.startswith("AssumeRole") and self.lent:
            return 200, _lent(action, self.lent.pop(0), self.lent_seconds), {}
        return passed_on(self._endpoint, asked)


def _lent(action: str, key: str, seconds: int) -> bytes:
    until = (datetime.now(tz=UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>'
        f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token-of-{key}</SessionToken>"
        f"<Expiration>{until}</Expiration></Credentials></{action}Result></{action}Response>"
    ).encode()


def _signers(between: LocalHttp, operation: str) -> list[str]:
    """Whose keys signed the calls of an operation."""
    found = []
    for asked in between.asked:
        name = asked.headers.get("x-amz-target", "") or asked.body.decode(errors="replace")
        signer = re.search(r"Credential=([^/]+)/", asked.headers.get("authorization", ""))
        if operation in name and signer:
            found.append(signer[1])
    return found


@pytest.fixture
def between(ministack: Ministack) -> Iterator[tuple[LocalHttp, Between]]:
    answering = Between(ministack)
    with local_http(answering) as served:
        yield served, answering


@pytest.fixture(autouse=True)
def nothing_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without credentials of its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


async def test_keys_that_are_set_sign_and_their_session_token_goes_along(between: tuple[LocalHttp, Between]) -> None:
    served, _ = between
    async with Aws(AwsAccess(endpoint=served.url, access_key="AKIDSET", secret_key="s", session_token="lent")) as aws:
        await aws.call("sqs", "list_queues")

    assert ["AKIDSET"] == _signers(served, "ListQueues")
    assert "lent" == served.asked[-1].headers["x-amz-security-token"]


async def test_a_role_is_taken_on_with_the_external_id_and_renewed_before_it_runs_out(between: tuple[LocalHttp, Between]) -> None:
    served, answering = between
    answering.lent = ["ASIAFIRST", "ASIASECOND", "ASIATHIRD", "ASIAFOURTH"]
    access = AwsAccess(
        endpoint=served.url, access_key="AKIDSET", secret_key="s", role_arn=ROLE, role_external_id="agreed", role_seconds=900
    )
    async with Aws(access) as aws:
        await aws.call("sqs", "list_queues")
        await aws.call("sqs", "list_queues")

    asked = [parse_qs(each.body.decode()) for each in served.asked if b"Action=AssumeRole" in each.body]
    assert {("agreed", ROLE, "900", "lamina-bridge")} == {
        (each["ExternalId"][0], each["RoleArn"][0], each["DurationSeconds"][0], each["RoleSessionName"][0]) for each in asked
    }
    assert {"AKIDSET"} == set(_signers(served, "Action=AssumeRole"))
    first, second = _signers(served, "ListQueues")
    assert first.startswith("ASIA")
    assert first != second, "what runs out in a moment is renewed before each call"
    assert f"token-of-{second}" == served.asked[-1].headers["x-amz-security-token"]


async def test_objects_are_reached_as_the_role_too(between: tuple[LocalHttp, Between]) -> None:
    served, answering = between
    answering.lent, answering.lent_seconds = ["ASIAROLE"], 3600
    settings = load(aws_endpoint=served.url, aws_access_key="AKIDSET", aws_secret_key="s", aws_role_arn=ROLE)
    async with open_aws(settings) as aws:
        bucket = f"bucket-{uuid4()}"
        await aws.call("s3", "create_bucket", Bucket=bucket)
        place = ResultStore(f"s3://{bucket}", allow_http=True, s3=object_options(settings), s3_credentials=aws.credentials)
        await place.folder_at("a").write("one.txt", b"content")
        assert b"content" == await place.folder_at("a").read("one.txt")

    puts = [asked for asked in served.asked if asked.path.startswith(f"/{bucket}/a/one.txt")]
    assert {"ASIAROLE"} == {re.search("Credential=([^/]+)/", asked.headers["authorization"])[1] for asked in puts}  # type: ignore[index]
    assert {"token-of-ASIAROLE"} == {asked.headers["x-amz-security-token"] for asked in puts}


async def test_a_role_of_the_emulators_own_sts_works(between: tuple[LocalHttp, Between]) -> None:
    served, _ = between
    async with Aws(AwsAccess(endpoint=served.url, access_key="AKIDSET", secret_key="s", role_arn=ROLE)) as aws:
        await aws.call("sqs", "list_queues")

    [signer] = _signers(served, "ListQueues")
    assert "AKIDSET" != signer


async def test_a_container_is_asked_for_its_credentials(between: tuple[LocalHttp, Between], monkeypatch: pytest.MonkeyPatch) -> None:
    served, _ = between
    until = (datetime.now(tz=UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    lent = {"AccessKeyId": "ASIACONTAINER", "SecretAccessKey": "s", "Token": "t", "Expiration": until, "RoleArn": ROLE}
    with local_http(lambda _: (200, json.dumps(lent).encode())) as agent:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod-token")
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
        async with Aws(AwsAccess()) as aws:
            await aws.call("sqs", "list_queues")

    assert ["ASIACONTAINER"] == _signers(served, "ListQueues")
    assert ("/credentials", "pod-token") == (agent.asked[0].path, agent.asked[0].headers["authorization"])


async def test_a_web_identity_takes_on_its_role_and_from_there_another(
    between: tuple[LocalHttp, Between], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served, answering = between
    answering.lent, answering.lent_seconds = ["ASIAPOD", "ASIAROLE"], 3600
    token = tmp_path / "token"
    token.write_text("signed-by-the-cluster")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/pod")
    monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
    async with Aws(AwsAccess(role_arn=ROLE)) as aws:
        await aws.call("sqs", "list_queues")

    identity = next(parse_qs(each.body.decode()) for each in served.asked if b"Action=AssumeRoleWithWebIdentity" in each.body)
    assert ("signed-by-the-cluster", "arn:aws:iam::000000000000:role/pod") == (identity["WebIdentityToken"][0], identity["RoleArn"][0])
    assert ["ASIAPOD"] == _signers(served, "Action=AssumeRole&")
    assert ["ASIAROLE"] == _signers(served, "ListQueues")


async def test_without_any_credentials_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    async with Aws(AwsAccess()) as aws:
        with pytest.raises(ConfigurationError, match="set BRIDGE_AWS_\\* or the usual AWS_\\* variables, or give the machine a role"):
            await aws.call("sqs", "list_queues")


async def test_a_role_that_is_refused_is_told_with_its_name(ministack: Ministack) -> None:
    refusal = (
        b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code>'
        b"<Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"
    )
    with local_http(lambda _: (403, refusal)) as sts:
        async with Aws(AwsAccess(endpoint=sts.url, access_key="AKIDSET", secret_key="s3cret", role_arn=ROLE)) as aws:
            with pytest.raises(ConfigurationError, match=f"assume_role {ROLE}.*not authorized") as refused:
                await aws.call("sqs", "list_queues")

    assert "s3cret" not in str(refused.value)


def test_the_settings_lead_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROLE_ARN": ROLE, "ROLE_EXTERNAL_ID": "agreed", "ROLE_SECONDS": "900", "SESSION_TOKEN": "lent"}.items():
        monkeypatch.setenv(f"BRIDGE_AWS_{name}", value)
    access = aws_access(load())

    assert (ROLE, "agreed", 900, "lent") == (access.role_arn, access.role_external_id, access.role_seconds, access.session_token)
