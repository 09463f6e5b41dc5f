"""The examples of deploy/terraform as they are applied, each once for a test process."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.deploy.terraform.runs import ROOT, Stack, apply

_CACHE = ROOT.parents[1] / ".cache" / "terraform" / "stacks"
_ACCOUNT = "123456789012"
_REGION = "eu-west-1"
_NETWORK = {
    "region": _REGION,
    "vpc_id": "vpc-1",
    "subnet_ids": ["subnet-1", "subnet-2"],
    "alarm_topic_arns": [f"arn:aws:sns:{_REGION}:{_ACCOUNT}:alarms"],
}
_REGISTRY = f"{_ACCOUNT}.dkr.ecr.{_REGION}.amazonaws.com"
_IMAGES = {
    "bridge_image": f"{_REGISTRY}/lamina-bridge@sha256:{'0' * 64}",
    "inference_image": f"{_REGISTRY}/lamina-inference@sha256:{'0' * 64}",
}
# One of each kind that ECS takes: a secret, a part of a secret, a parameter.
_ACCESS = {
    "certificate": f"arn:aws:secretsmanager:{_REGION}:{_ACCOUNT}:secret:certificate-AbCdEf",
    "key": f"arn:aws:secretsmanager:{_REGION}:{_ACCOUNT}:secret:key-AbCdEf",
    "tokens": f"arn:aws:ssm:{_REGION}:{_ACCOUNT}:parameter/lamina/tokens",
    "ca": f"arn:aws:secretsmanager:{_REGION}:{_ACCOUNT}:secret:ca-AbCdEf",
    "token": f"arn:aws:secretsmanager:{_REGION}:{_ACCOUNT}:secret:token-AbCdEf:token::",
}
_DATABASE = f"arn:aws:secretsmanager:{_REGION}:{_ACCOUNT}:secret:database-AbCdEf"
_ROLES = {name: f"arn:aws:iam::{_ACCOUNT}:role/platform/{name}" for name in ("execution", "task", "api")}

VARIABLES: Mapping[str, Mapping[str, Any]] = {
    "lab-worker": {**_NETWORK, "registry": _REGISTRY, "image_tag": "1.2.3", "database_host": "db.internal", "roles": _ROLES},
    "slide-worker": {**_NETWORK, **_IMAGES, "bucket": "uploads", "database_secret": _DATABASE, "access": _ACCESS},
    "ocr-worker": {**_NETWORK, **_IMAGES, "access": _ACCESS},
    "documents-worker": {**_NETWORK, **_IMAGES, "bucket": "scans", "database_secret": _DATABASE},
    "consensus-worker": {
        "project": "project",
        "bridge_image": f"europe-docker.pkg.dev/project/lamina/bridge@sha256:{'0' * 64}",
        "cloud_sql_instance": "project:europe-west1:platform",
    },
}
# Of the module that takes the lab platform's place, with its defaults.
ML_WORKER: Mapping[str, Any] = {
    "environment": "test",
    "vpc_id": "vpc-1",
    "private_subnet_ids": _NETWORK["subnet_ids"],
    "ecr_repository_url": _REGISTRY,
    "execution_role_arn": _ROLES["execution"],
    "task_role_arn": _ROLES["task"],
    "api_role_arn": _ROLES["api"],
    "db_host": "db",
    "db_name": "labs",
}
ON_ECS = tuple(name for name in VARIABLES if name != "consensus-worker")


@functools.cache
def stack(example: str) -> Stack:
    """An example of deploy/terraform/examples, applied with values that a user might give; once for all test processes."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    kept = _CACHE / f"{example}-{_digest()}.pickle"
    with (_CACHE / f".{example}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            with tempfile.TemporaryDirectory() as folder:
                made = apply(f"examples/{example}", VARIABLES[example], Path(folder))
            kept.write_bytes(pickle.dumps(made))
    found: Stack = pickle.loads(kept.read_bytes())
    return found


@functools.cache
def _digest() -> str:
    """Of all that an apply hangs on."""
    files = sorted([*ROOT.rglob("*.tf"), *Path(__file__).parent.glob("*.p*")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
