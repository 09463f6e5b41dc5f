"""Checks task definitions of ECS against AWS' own description of what it takes, and their settings against the programs' own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from bridge import settings as bridge_settings
from bridge import settings_cards, settings_consensus, settings_labs
from inference_server import settings as server_settings
from scripts.try_image import instructions

_ROOT = Path(__file__).parents[3]
# Read by what the programs are made of, or by a worker's implied settings.
_OTHERS = {
    "AWS_REGION",
    "TMPDIR",
    "AOT_CONFIG_CONTENT",
    "POSTGRES_SERVER",
    "POSTGRES_PORT",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "POSTGRES_DB",
    "ML_WORKER_BATCH_SIZE",
    "ML_WORKER_WAIT_TIME",
    "ML_WORKER_VISIBILITY_TIMEOUT",
    "DATABASE_URL",
    "REDIS_URL",
    "REDIS_PASSWORD",
    "OCR_GPU_QUEUE_KEY",
    "OCR_GPU_CONCURRENCY",
    "OCR_GPU_POLL_INTERVAL",
    "PUBSUB_TOPIC",
    "PUBSUB_SUBSCRIPTION",
    "WORKER_MAX_CONCURRENCY",
    "USE_CLOUD_SQL_CONNECTOR",
    "DB_INSTANCE_CONNECTION_NAME",
    "DB_NAME",
    "DB_USER",
    "DB_PASSWORD",
    "DB_IAM_AUTH",
}
# Of the platforms; they mean nothing to us, and stay so that a worker can be put back.
_UNUSED = {"BULI2_CALLBACK_URL", "ENV"}


def problems(definition: Mapping[str, Any]) -> str:
    """What RegisterTaskDefinition would refuse; empty for nothing."""
    operation = botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition")
    report: str = ParamValidator().validate(dict(definition), operation.input_shape).generate_report()
    return report


def unknown_settings(names: Iterable[str]) -> list[str]:
    """Those that no program reads."""
    return sorted(set(names) - known_settings())


def known_settings() -> set[str]:
    """Every variable that one of the programs reads."""
    others = {name for names in bridge_settings._NAMES_OF_OTHERS.values() for name in names}
    workers = (settings_cards.CardWorkerSettings, settings_labs.LabWorkerSettings, settings_consensus.ConsensusSettings)
    return (
        {f"{bridge_settings.PREFIX}{name.upper()}" for name in bridge_settings.Settings.model_fields}
        | {f"{server_settings.PREFIX}{name.upper()}" for name in server_settings.Settings.model_fields}
        | {name.upper() for worker in workers for name in worker.model_fields}
        | others
        | _OTHERS
        | _UNUSED
    )


def container(definition: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One container, by its name."""
    found: Mapping[str, Any] = next(one for one in definition["containerDefinitions"] if one["name"] == name)
    return found


def settings_of(container: Mapping[str, Any]) -> dict[str, str]:
    """Its settings, and where its secrets lie."""
    plain = {one["name"]: one["value"] for one in container.get("environment", ())}
    return plain | {one["name"]: one["valueFrom"] for one in container.get("secrets", ())}


def misfits(definition: Mapping[str, Any]) -> list[str]:
    """What AWS would take and yet cannot be run: volumes and containers that are not there, more memory than the task has."""
    containers = definition["containerDefinitions"]
    names = {one["name"] for one in containers}
    volumes = {one["name"] for one in definition.get("volumes", ())}
    found = [
        f"{one['name']} mounts {mount['sourceVolume']}"
        for one in containers
        for mount in one.get("mountPoints", ())
        if mount["sourceVolume"] not in volumes
    ]
    found += [
        f"{one['name']} waits for {other['containerName']}"
        for one in containers
        for other in one.get("dependsOn", ())
        if other["containerName"] not in names
    ]
    used = sum(one.get("memory", 0) for one in containers)
    if definition.get("memory") and used > int(definition["memory"]):
        found.append(f"containers may use {used} MiB of {definition['memory']}")
    found += [f"{one['name']} may stop for {one['stopTimeout']} s; ECS waits 120" for one in containers if one.get("stopTimeout", 0) > 120]
    return found


# What a program writes to, by the variables that name it: of the server, and of both.
_WRITTEN = {"inference": ("INFERENCE_ENGINE_CACHE", "INFERENCE_STAGING", "TMPDIR"), "bridge": ("TMPDIR",), "ml-worker": ("TMPDIR",)}


def unwritable(definition: Mapping[str, Any]) -> list[str]:
    """Settings of containers whose root is read-only that name a folder which no volume holds, as `container: SETTING=folder`."""
    found = []
    for one in definition["containerDefinitions"]:
        settings = {"TMPDIR": "/tmp", **_image_settings(one["image"]), **settings_of(one)}
        mounts = [mount["containerPath"] for mount in one.get("mountPoints", ()) if not mount["readOnly"]]
        mounts += [mount["containerPath"] for mount in (one.get("linuxParameters") or {}).get("tmpfs", ())]
        for name in _WRITTEN.get(one["name"], ()):
            if not any(Path(settings[name]).is_relative_to(mount) for mount in mounts):
                found.append(f"{one['name']}: {name}={settings[name]}")
    return found


def _image_settings(image: str) -> dict[str, str]:
    """What an image of ours sets by itself."""
    file = _ROOT / ("Dockerfile.cpu" if "inference" in image else "Dockerfile.bridge")
    lines = [rest for kind, rest in instructions(file.read_text(encoding="utf-8")) if kind == "ENV"]
    return dict(word.split("=", 1) for line in lines for word in line.split())
