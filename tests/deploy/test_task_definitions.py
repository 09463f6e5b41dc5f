"""The task definitions of deploy/ecs are such as ECS takes, and name only settings that the programs read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bridge.settings_cards import load_card_worker
from tests.support.deploy.ecs_definitions import container, misfits, problems, settings_of, unknown_settings, unwritable
from tests.support.deploy.loaded_settings import bridge_of, server_of

ROOT = Path(__file__).parents[2]
DEFINITIONS = sorted((ROOT / "deploy" / "ecs").glob("*.json"))
VALUES = {"AWS_REGION": "ap-southeast-2", "AWS_ACCOUNT_ID": "123456789012"}


def rendered(file: Path, **values: str) -> dict[str, Any]:
    put_in = {**VALUES, **values}
    text = re.sub(r"\$\{([A-Z_]+)\}", lambda found: put_in.get(found[1], found[1].lower()), file.read_text(encoding="utf-8"))
    return json.loads(text)


def named(name: str) -> dict[str, Any]:
    return rendered(ROOT / "deploy" / "ecs" / name)


def test_there_is_one_for_each_program_that_is_run() -> None:
    assert [file.stem for file in DEFINITIONS] == ["inference-server", "lab-worker", "ocr-gpu-worker", "wsi-bridge"]


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_ecs_takes_it(file: Path) -> None:
    assert problems(rendered(file)) == ""


def test_a_wrong_name_in_one_would_be_noticed() -> None:
    definition = named("wsi-bridge.json")
    definition["containerDefinitions"][0]["stopTimeOut"] = "120"
    assert "stopTimeOut" in problems(definition)


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_its_containers_fit_and_find_what_they_name(file: Path) -> None:
    assert misfits(rendered(file)) == []


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_its_settings_are_read_by_the_programs(file: Path) -> None:
    names = [name for one in rendered(file)["containerDefinitions"] if one["name"] != "files" for name in settings_of(one)]
    assert names
    assert unknown_settings(names) == []


def test_where_a_server_has_a_gpu_the_cpu_answers_if_that_fails() -> None:
    servers = [settings_of(one) for file in DEFINITIONS for one in rendered(file)["containerDefinitions"]]
    on_gpu = [settings for settings in servers if settings.get("INFERENCE_DEVICE", "cpu") != "cpu"]
    assert ["cpu", "cpu"] == [settings.get("INFERENCE_FALLBACK") for settings in on_gpu]


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_no_secret_stands_in_it_and_nothing_runs_as_root_or_writes_to_its_image(file: Path) -> None:
    for one in rendered(file)["containerDefinitions"]:
        plain = [setting["name"] for setting in one.get("environment", ())]
        assert [] == [
            name for name in plain if re.search(r"PASSWORD|SECRET|KEY$|KEY_ID|TOKEN$|DATABASE", name) and not name.endswith("TLS_KEY")
        ]
        assert one["readonlyRootFilesystem"]
        assert one["name"] == "files" or one["user"] == "10001"


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_no_folder_of_the_machine_is_written_to(file: Path) -> None:
    """Docker makes such a folder root's, whom no program runs as; a volume of Docker's takes its owner from the image."""
    assert [] == [volume["name"] for volume in rendered(file)["volumes"] if volume.get("host", {}).get("sourcePath")]
    for image in ("Dockerfile.gpu", "Dockerfile.cpu"):
        text = (ROOT / image).read_text(encoding="utf-8")
        assert "VOLUME /var/lib/lamina/engines" in text
        assert re.search(r"install --directory --owner=10001 .*/var/lib/lamina/engines", text)


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_what_the_programs_write_to_can_be_written(file: Path) -> None:
    definition = rendered(file)
    assert unwritable(definition) == []
    for one in definition["containerDefinitions"]:
        one["mountPoints"] = []
    assert unwritable(definition)


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_a_bridge_stops_before_the_server_that_it_asks_and_drains_within_its_time(file: Path) -> None:
    bridges = [one for one in rendered(file)["containerDefinitions"] if one["name"] in {"bridge", "ml-worker"}]
    for one in bridges:
        assert float(settings_of(one)["BRIDGE_DRAIN_SECONDS"]) < one["stopTimeout"]
        if len(rendered(file)["containerDefinitions"]) > 1:
            assert {"containerName": "inference", "condition": "HEALTHY"} in one["dependsOn"]


def test_the_ocr_workers_is_as_the_one_that_it_replaces() -> None:
    definition = named("ocr-gpu-worker.json")
    assert (definition["family"], definition["networkMode"], definition["requiresCompatibilities"]) == (
        "filot-ocr-gpu-worker",
        "awsvpc",
        ["EC2"],
    )
    assert (definition["cpu"], definition["memory"]) == ("2048", "8192")
    server, bridge = container(definition, "inference"), container(definition, "bridge")
    assert server["resourceRequirements"] == [{"type": "GPU", "value": "1"}]
    assert server["linuxParameters"]["sharedMemorySize"] == 2048
    assert bridge["portMappings"][0]["containerPort"] == 8080
    assert bridge["logConfiguration"]["options"]["awslogs-group"] == "/ecs/filot-ocr-gpu-worker"
    # ECS starts no task while a secret that it names is missing: no other than the platform has.
    assert {one["valueFrom"].rpartition("filot/")[2] for one in bridge["secrets"]} == {
        "database-url",
        "redis-url",
        "redis-password",
        "cf-r2-endpoint",
        "cf-r2-access-key",
        "cf-r2-secret-key",
        "cf-r2-bucket",
        "buli2-api-url",
        "buli2-callback-url",
    }


def test_the_ocr_workers_placement_takes_the_instances_of_all_its_forerunners() -> None:
    expression = named("ocr-gpu-worker.json")["placementConstraints"][0]["expression"]
    pattern = expression.rpartition("=~ ")[2]
    taken = [
        name for name in ("g4dn.xlarge", "g5.2xlarge", "g6.xlarge", "g5g.xlarge", "p4d.24xlarge", "m5.large") if re.match(pattern, name)
    ]
    assert taken == ["g4dn.xlarge", "g5.2xlarge", "g6.xlarge"]


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_the_programs_start_with_its_settings(file: Path) -> None:
    values = {"ML_WORKER_MODE": "both", "INFERENCE_ADDRESS": "inference:8001"}
    for one in rendered(file, **values)["containerDefinitions"]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            if one["name"] in {"bridge", "ml-worker"}:
                assert bridge_of(settings_of(one), monkeypatch).http == "0.0.0.0:8080"
            elif one["name"] == "inference":
                assert server_of(settings_of(one), monkeypatch).http == "127.0.0.1:8002"


def test_the_ocr_workers_settings_make_a_card_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge_of(settings_of(container(named("ocr-gpu-worker.json"), "bridge")), monkeypatch)
    assert load_card_worker().served
