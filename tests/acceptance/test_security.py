"""The real server and the bridge's client, with TLS, client certificates and tokens between them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import BridgeError, OverloadError
from bridge.inference.client import InferenceClient
from bridge.inference.credentials import ServerTrust
from bridge.inference.labs import LabTest
from bridge.inference.policies import RetryPolicy, Timeouts, Watchfulness
from tests.support.inference_server.fuzzing import write_repository
from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.servers.certificates import Authority

LABS, SLIDES = "token-for-laboratories", "token-for-the-slides"
TESTS = [LabTest(id="a", name="Hemoglobin", value="13.5", unit="g/dL")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, authority = tmp_path_factory.mktemp("security"), Authority()
    authority.issue("server").write(folder, "server")
    authority.issue("bridge").write(folder, "bridge")
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "tokens").write_text(f"labs {LABS} labs\nslides {SLIDES} slides\n")
    write_repository(folder / "models")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    flags = ["--tls-certificate", "server.crt", "--tls-key", "server.key", "--tls-client-ca", "ca.crt", "--tokens-file", "tokens"]
    # As a container would listen; the test calls it on this machine.
    with running_server(folder / "models", folder, *flags, "--listen", "0.0.0.0:0") as process:
        process.wait_for("ready")
        yield process


@pytest.fixture
def trust(folder: Path) -> ServerTrust:
    return ServerTrust(tls=True, ca=folder / "ca.crt", certificate=folder / "bridge.crt", key=folder / "bridge.key", token=LABS)


def client(server: ServerProcess, trust: ServerTrust) -> InferenceClient:
    address = f"127.0.0.1:{server.grpc.rpartition(':')[2]}"
    return InferenceClient(
        address, trust=trust, timeouts=Timeouts(labs=60), watchfulness=Watchfulness(answer_seconds=30), retries=RetryPolicy(attempts=1)
    )


async def test_the_two_programs_talk_over_mutual_tls_with_a_token(server: ServerProcess, trust: ServerTrust) -> None:
    async with client(server, trust) as calling:
        assert await calling.server_ready()
        with pytest.raises(BridgeError) as caught:
            await calling.classify_lab_tests(TESTS, request_id="r")
    # It was let in: the server has no model for it.
    assert "the server lacks its catalogue of lab tests or the model for it" in str(caught.value)
    assert await asyncio.wait_for(_logged_client(server, "r"), 60) == "labs"


async def _logged_client(server: ServerProcess, request_id: str) -> str:
    """The caller of a request, as the log knows it; the line comes after the answer."""
    while True:
        for event in server.events():
            if event["event"] == "call" and event["request_id"] == request_id:
                return str(event["client"])
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("token", "told"), [("", "does not take our token"), (f"{LABS}x", "does not take our token"), (SLIDES, "permission labs")]
)
async def test_a_wrong_token_makes_jobs_wait_and_says_why(server: ServerProcess, trust: ServerTrust, token: str, told: str) -> None:
    async with client(server, replace(trust, token=token)) as calling:
        with pytest.raises(OverloadError, match=told):
            await calling.classify_lab_tests(TESTS, request_id="r-2")
        assert await calling.server_ready()


async def test_without_a_certificate_there_is_no_server(server: ServerProcess, trust: ServerTrust) -> None:
    async with client(server, replace(trust, certificate=None, key=None)) as calling:
        assert not await calling.server_ready()


def test_no_token_is_in_the_servers_log(server: ServerProcess) -> None:
    log = str(server.events())
    assert [token for token in (LABS, SLIDES) if token in log] == []


def test_a_server_open_to_other_machines_does_not_start_unless_told_to(folder: Path) -> None:
    command = [sys.executable, "-m", "inference_server", "serve", "--listen", "0.0.0.0:0", "--http", "127.0.0.1:0", "--models", "models"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, "INFERENCE_INSECURE=true" in ended.stderr, "Traceback" in ended.stderr) == (2, True, False)
    with running_server(folder / "models", folder, "--listen", "0.0.0.0:0", "--insecure") as process:
        assert process.grpc.startswith("0.0.0.0:")
