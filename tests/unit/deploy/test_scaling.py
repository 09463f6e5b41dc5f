"""The modules and manifests ship the numbers that the simulation chose."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
SHIPPED = tomllib.loads((DEPLOY / "scaling.toml").read_text(encoding="utf-8"))
# What triggers of KEDA call the length for each pod.
LENGTHS = ("queueLength", "listLength", "value", "targetQueryValue", "threshold")


def module_numbers(folder: Path) -> dict[str, float]:
    """The numbers that a module of Terraform has by default, and those that it hands to the policy as they are."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.tf")))
    handed = {name: float(number) for name, number in re.findall(r"^\s+(\w+)\s*=\s*([\d.]+)\s*$", text, re.MULTILINE)}
    variables = re.findall(r'variable "(\w+)" \{(.*?)^\}', text, re.MULTILINE | re.DOTALL)
    defaults = {name: re.search(r"^\s+default\s*=\s*([\d.]+|true|false)\s*$", body, re.MULTILINE) for name, body in variables}
    return {**handed, **{name: float(json.loads(found[1])) for name, found in defaults.items() if found}}


def scaled_object_numbers(file: Path) -> dict[str, float]:
    """The numbers of a scaled object, with the length of its first trigger."""
    [scaled] = [each for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each["kind"] == "ScaledObject"]
    spec: dict[str, Any] = scaled["spec"]
    metadata = spec["triggers"][0]["metadata"]
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    length = next(metadata[name] for name in LENGTHS if name in metadata)
    names = ("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod")
    return {
        **{name: float(spec[name]) for name in names},
        "stabilizationWindowSeconds": float(down["stabilizationWindowSeconds"]),
        "length": float(length),
    }


@pytest.mark.parametrize("name", SHIPPED["ecs"])
def test_a_module_of_terraform_has_the_numbers_that_were_chosen(name: str) -> None:
    folder = DEPLOY / "terraform" / "modules" / name
    if not folder.exists():
        pytest.skip(f"there is no module {name} yet")
    numbers = module_numbers(folder)
    assert SHIPPED["ecs"][name] == {key: numbers.get(key) for key in SHIPPED["ecs"][name]}


@pytest.mark.parametrize("name", SHIPPED["keda"])
def test_a_scaled_object_has_the_numbers_that_were_chosen(name: str) -> None:
    file = DEPLOY / "kubernetes" / name / "autoscaling.yaml"
    if not file.exists():
        pytest.skip(f"there is no {file.name} of {name} yet")
    assert SHIPPED["keda"][name] == scaled_object_numbers(file)
