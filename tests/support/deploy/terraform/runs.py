"""Runs Terraform on modules of deploy/terraform, over a provider that makes nothing. Skips where Terraform is not installed."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

from tests.support.deploy.terraform.schemas import schemas

ROOT = Path(__file__).parents[4] / "deploy" / "terraform"
_PROVIDER = Path(__file__).parent / "provider.py"
_SECONDS = 90


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One that was made."""

    # module.worker.module.bridge.aws_ecs_service.bridge
    address: str
    type: str
    values: Mapping[str, Any]

    def json(self, name: str) -> Any:
        """An attribute that holds JSON."""
        return json.loads(self.values[name])


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What an apply came to."""

    resources: tuple[Resource, ...]
    outputs: Mapping[str, Any]

    def of(self, kind: str, ending: str = "") -> list[Resource]:
        """The resources of a type, whose address ends so."""
        return [one for one in self.resources if one.type == kind and one.address.endswith(ending)]


def terraform() -> str:
    """The program. No registry of packages has it, so that tests skip without it everywhere."""
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("terraform is not installed; what can be checked without it is")
    return program


def validate(module: Path, folder: Path) -> str:
    """What Terraform finds wrong with a module of ours; empty for nothing. `folder`: an empty one."""
    environment = _environment(folder)
    copied = _copied(folder) / module.relative_to(ROOT)
    _terraform("get", cwd=copied, environment=environment)
    done = subprocess.run(
        [terraform(), "validate", "-no-color", "-json"], cwd=copied, env=environment, capture_output=True, text=True, timeout=_SECONDS
    )
    told = json.loads(done.stdout)
    return "\n".join(f"{one['summary']}: {one['detail']}" for one in told["diagnostics"] if one["severity"] == "error")


def planned_after(before: str, module: str, variables: Mapping[str, Any], folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Apply a module's text, put one of ours in its place, and plan; each resource's change, by its address."""
    environment = _environment(folder)
    root = _copied(folder) / "examples" / "moved"
    (root / "before").mkdir(parents=True)
    (root / "before" / "main.tf").write_text(before)
    _called(root, "./before", {})
    _terraform("get", cwd=root, environment=environment)
    _terraform("apply", "-auto-approve", "-input=false", cwd=root, environment=environment)
    _called(root, f"../../modules/{module}", variables)
    _terraform("get", cwd=root, environment=environment)
    _terraform("plan", "-input=false", "-out=plan", cwd=root, environment=environment)
    told = json.loads(_terraform("show", "-json", "plan", cwd=root, environment=environment))
    return {one["address"]: {**one["change"], "moved": one.get("previous_address")} for one in told["resource_changes"]}


def _called(root: Path, source: str, variables: Mapping[str, Any]) -> None:
    content = {"module": {"worker": {"source": source, **variables}}}
    (root / "main.tf.json").write_text(json.dumps(content))


def apply(source: str, variables: Mapping[str, Any], folder: Path) -> Stack:
    """Apply one of our folders, such as examples/lab-worker or modules/eks_gpu_nodes. Raises `AssertionError` with what went wrong."""
    environment = _environment(folder)
    root = _copied(folder) / source
    (root / "terraform.tfvars.json").write_text(json.dumps(variables))
    _terraform("get", cwd=root, environment=environment)
    _terraform("apply", "-no-color", "-auto-approve", "-input=false", cwd=root, environment=environment)
    told = json.loads(_terraform("show", "-json", cwd=root, environment=environment))["values"]
    outputs = {name: output["value"] for name, output in told.get("outputs", {}).items()}
    return Stack(resources=tuple(_resources(told["root_module"])), outputs=outputs)


def _resources(module: Mapping[str, Any]) -> Iterator[Resource]:
    for one in module.get("resources", ()):
        if one["mode"] == "managed":
            yield Resource(address=one["address"], type=one["type"], values=one["values"])
    for child in module.get("child_modules", ()):
        yield from _resources(child)


def _copied(folder: Path) -> Path:
    copy = folder / "deploy"
    if not copy.exists():
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    return copy


def _environment(folder: Path) -> dict[str, str]:
    """Terraform finds our providers in the place of the real ones, and asks nobody for newer versions."""
    terraform()
    (folder / "terraform.rc").touch()
    return {
        **os.environ,
        "TF_CLI_CONFIG_FILE": str(folder / "terraform.rc"),
        "TF_REATTACH_PROVIDERS": _running_providers(),
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
    }


@functools.cache
def _running_providers() -> str:
    """Our providers, which run until the tests end, as Terraform wants to be told of them."""
    with NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(schemas(_types())))
        file.flush()
        process = subprocess.Popen([sys.executable, str(_PROVIDER), file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
    atexit.register(process.communicate)
    attached = {"Protocol": "grpc", "ProtocolVersion": 5, "Pid": process.pid, "Test": True}
    addresses = {name: {"Network": "tcp", "String": f"127.0.0.1:{port}"} for name, port in ports.items()}
    return json.dumps({f"registry.terraform.io/hashicorp/{name}": {**attached, "Addr": addr} for name, addr in addresses.items()})


def _types() -> Iterator[str]:
    for file in ROOT.rglob("*.tf"):
        for kind, name in re.findall(r'^(resource|data) "(\w+)"', file.read_text(encoding="utf-8"), re.MULTILINE):
            yield f"data.{name}" if kind == "data" else name


def _terraform(*words: str, cwd: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run([terraform(), *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, f"terraform {words[0]} in {cwd.name} failed:\n{done.stderr}"
    return done.stdout
