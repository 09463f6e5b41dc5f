"""Looks into resources of Kubernetes."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

Resource = Mapping[str, Any]
# What a secret holds in these tests, where it must be more than a word.
_PLAUSIBLE = {"BRIDGE_DATABASE": "postgresql://lamina:secret@database.internal:5432/lamina", "REDIS_ADDRESS": "redis.internal:6379"}


@dataclass(frozen=True)
class Manifests:
    """What an overlay makes."""

    resources: Sequence[Resource]

    def of(self, *kinds: str) -> list[Resource]:
        """The resources of some kinds."""
        return [resource for resource in self.resources if resource["kind"] in kinds]

    def named(self, kind: str, name: str) -> Resource:
        """The one of a kind and name."""
        [found] = [resource for resource in self.of(kind) if resource["metadata"]["name"] == name]
        return found

    def workloads(self) -> list[Resource]:
        """What runs pods."""
        return self.of("Deployment", "StatefulSet")

    def bridges(self) -> list[Resource]:
        """The workloads that run a bridge."""
        return [each for each in self.workloads() if pod_labels(each).get("app.kubernetes.io/name") == "lamina-bridge"]

    def secrets(self) -> dict[str, dict[str, str]]:
        """The keys of each Secret, with plausible values where another program brings them."""
        found = {
            each["metadata"]["name"]: {name: base64.b64decode(value).decode() for name, value in each.get("data", {}).items()}
            for each in self.of("Secret")
        }
        for each in self.of("ExternalSecret"):
            keys = [entry["secretKey"] for entry in each["spec"]["data"]]
            found[each["metadata"]["name"]] = {key: _PLAUSIBLE.get(key, "secret") for key in keys}
        return found

    def environment(self, workload: Resource) -> dict[str, str]:
        """The variables of a workload's program."""
        container = program(workload)
        secrets = self.secrets()
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= secrets[source["secretRef"]["name"]]
        return found | {entry["name"]: entry["value"] for entry in container["env"]}


def pod(workload: Resource) -> Resource:
    """The specification of its pods."""
    specification: Resource = workload["spec"]["template"]["spec"]
    return specification


def pod_labels(workload: Resource) -> Mapping[str, str]:
    """The labels of its pods."""
    labels: Mapping[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def containers(workload: Resource) -> Iterator[Resource]:
    """All its containers, those that run first too."""
    specification = pod(workload)
    yield from (*specification.get("initContainers", ()), *specification["containers"])


def program(workload: Resource) -> Resource:
    """Its one container that runs on."""
    [container] = pod(workload)["containers"]
    found: Resource = container
    return found


def selects(selector: Resource, labels: Mapping[str, str]) -> bool:
    """Whether a selector means pods with these labels."""
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", selector).items())


def only_these_variables(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    """Let settings see what a container would."""
    for name in list(os.environ):
        if not name.startswith(("PYTEST", "PATH", "HOME", "TMP")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
