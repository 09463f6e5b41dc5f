"""What a person says of a name that nobody knew: by the command line, to every inference server, for good."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.inference.client import InferenceClient
from bridge.inference.labs import Alias, LabTest, MatchStatus
from bridge.platforms.alias_feed import AliasFeed
from bridge.records.lab_reviews import LabReviews
from bridge.settings import load
from bridge.store import open_store
from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.models.built_models import built_models

pytestmark = pytest.mark.timeout(180)
NAME = "Tes manis ajaib"
FIRST, SECOND = "127.0.0.1", "127.0.0.2"
FLAGS = ("--services", "labs", "--engine", "onnxruntime:float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab-reviews")


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two replicas, each with a disk of its own, on one port of two addresses."""
    first_disk = folder / "first"
    shutil.copytree(built_models("all_minilm_l6_v2") / "all_minilm_l6_v2", first_disk / "all_minilm_l6_v2")
    with running_server(first_disk, folder, *FLAGS) as first:
        first.wait_for("catalogue_ready", seconds=100)
        address = f"{SECOND}:{first.grpc.rpartition(':')[2]}"
        with running_server(_another_disk(folder, "second"), folder, *FLAGS, "--listen", address) as second:
            yield first, second


def _another_disk(folder: Path, name: str) -> Path:
    """One with the same models, and the same vectors of the catalogue, that was never told a name."""
    shutil.copytree(folder / "first", folder / name, ignore=shutil.ignore_patterns("aliases.jsonl"))
    return folder / name


@pytest.fixture
def setup(servers: tuple[ServerProcess, ServerProcess], tmp_path: Path) -> BridgeSetup:
    variables = {"BRIDGE_LAB_ALIAS_SECONDS": "0.5", "BRIDGE_HTTP": "off"}
    return BridgeSetup(folder=tmp_path, inference=servers[0].grpc, variables=variables)


def found(setup: BridgeSetup, key: str, name: str = NAME) -> dict[str, Any]:
    """What becomes of one test in a job of its own."""
    (setup.folder / f"{key}.json").write_text(json.dumps([{"name": name}]))
    setup.call("submit", "labs", f"{key}.json", "--key", key)
    job = setup.wait_for_jobs("succeeded", count=len(setup.jobs()), seconds=60)[key]
    return dict((job.result or {})["tests"][0])


def test_a_name_that_nobody_knew_is_listed_corrected_and_known_from_then_on(setup: BridgeSetup) -> None:
    with setup.running():
        assert found(setup, "before")["status"] != "matched"
        [waiting] = json.loads(setup.call("labs", "review", "list", "--json"))
        assert (waiting["name"], waiting["seen"], waiting["state"]) == (NAME, 1, "open")
        assert NAME in setup.call("labs", "review", "list")

        said = setup.call("labs", "review", "correct", waiting["id"][:5], "2345-7", "--by", "ana")

        assert "2345-7; 1 inference server told" in said
        after = found(setup, "after")
        assert (after["status"], after["loinc_code"]) == ("matched", "2345-7")
        assert "no name is open" in setup.call("labs", "review", "list")
        [decided] = json.loads(setup.call("labs", "review", "list", "--state", "corrected", "--json"))
        assert (decided["decided_by"], decided["code"]) == ("ana", "2345-7")


def test_the_first_candidate_is_accepted_by_its_id_alone(setup: BridgeSetup) -> None:
    with setup.running():
        open_before = found(setup, "before", "Glukosa aneh sekali")
        [waiting] = json.loads(setup.call("labs", "review", "list", "--json"))
        setup.call("labs", "review", "accept", waiting["id"])
        after = found(setup, "after", "Glukosa aneh sekali")

    assert open_before["status"] != "matched"
    assert (after["status"], after["loinc_code"]) == ("matched", waiting["candidates"][0]["code"])


@pytest.mark.parametrize(("code", "why"), [("718-8", "no LOINC code"), ("99999-5", "the catalogue has no code")])
def test_a_code_that_is_none_is_told_and_not_kept(setup: BridgeSetup, code: str, why: str) -> None:
    with setup.running():
        found(setup, "before", "Tes entah apa")
        [waiting] = json.loads(setup.call("labs", "review", "list", "--json"))
        process = setup.start("labs", "review", "correct", waiting["id"], code)
        _, errors = process.communicate(timeout=60)

        assert process.returncode == 2
        assert why in errors
        assert 1 == len(json.loads(setup.call("labs", "review", "list", "--json")))


async def test_every_replica_behind_a_name_is_told_and_one_that_lost_its_disk_again(
    servers: tuple[ServerProcess, ServerProcess], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(servers[0].grpc.rpartition(":")[2])
    resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in (FIRST, SECOND)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
    aliases = [Alias(name="Tes rahasia", code="718-7"), Alias(name="Tes salah", code="99999-5"), Alias(name="Tes lain", code="2345-7")]
    async with open_store(load(database=str(tmp_path / "bridge.db"))) as store:
        feed = AliasFeed(LabReviews(store.database), f"inference.test:{port}", every_seconds=0.1)

        assert await feed.tell(aliases) == 2
        for address in (FIRST, SECOND):
            codes = await _codes(f"{address}:{port}", "Tes rahasia", "Tes lain")
            assert codes == ["718-7", "2345-7"], "one bad name keeps no other from it"
        kept = folder / "second" / "_catalogue" / "aliases.jsonl"
        before = kept.stat().st_mtime_ns
        await feed.tell(aliases)
        assert before == kept.stat().st_mtime_ns, "what is known is not written again"


async def _codes(address: str, *names: str) -> list[str]:
    tests = [LabTest(id=str(number), name=name) for number, name in enumerate(names)]
    async with InferenceClient(address) as client:
        answer = await client.classify_lab_tests(tests, request_id="test")
    assert all(each.status is MatchStatus.MATCHED for each in answer.tests)
    return [each.candidates[0].code for each in answer.tests]


@pytest.mark.usefixtures("servers")
async def test_a_bridge_that_runs_tells_a_replica_that_came_back_without_its_disk(folder: Path, tmp_path: Path) -> None:
    models = _another_disk(folder, "third")
    setup: BridgeSetup
    with running_server(models, folder, *FLAGS) as server:
        address = server.grpc
        setup = BridgeSetup(folder=tmp_path, inference=address, variables={"BRIDGE_LAB_ALIAS_SECONDS": "0.3", "BRIDGE_HTTP": "off"})
        with setup.running():
            await asyncio.to_thread(found, setup, "before")
            [waiting] = json.loads(await asyncio.to_thread(setup.call, "labs", "review", "list", "--json"))
            await asyncio.to_thread(setup.call, "labs", "review", "correct", waiting["id"], "2345-7")
    (models / "_catalogue" / "aliases.jsonl").unlink()
    with setup.running(), running_server(models, folder, *FLAGS, "--listen", address):
        until = time.monotonic() + 60
        while not (models / "_catalogue" / "aliases.jsonl").exists():
            assert time.monotonic() < until, "nobody told it"
            await asyncio.sleep(0.1)
        assert await _codes(address, NAME) == ["2345-7"]
