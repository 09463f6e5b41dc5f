"""Wrong values are told by the variable's name, all at once, before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy.terraform.runs import apply
from tests.support.deploy.terraform.stacks import ML_WORKER

# Of each module: what is right, and what is not.
WRONG: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "bridge_service": (
        {"vpc_id": "vpc-1", "image": "image", "environment": {}, "waiting": [], "working": [], "cpu": 512},
        {
            "name": "slides.worker",
            "subnet_ids": [],
            "memory": 5120,
            "secrets": {"BRIDGE_DATABASE": "postgresql://platform"},
            "files": {"ca.crt": "-----BEGIN"},
            "concurrency": 0,
            "capacity_provider": "FARGATE_CHEAP",
        },
    ),
    "gpu_inference": (
        {"vpc_id": "vpc-1", "image": "image", "client_security_group_ids": {}, "waiting": [], "working": []},
        {
            "name": "ecs-slides",
            "subnet_ids": [],
            "access": {"certificate": "certificate.pem", "key": "key.pem", "tokens": "tokens"},
            "instance_types": [],
            "spot_percent": 101,
            "idle_ratio": 5,
        },
    ),
    "documents_worker": (
        {
            "name": "tried",
            "vpc_id": "vpc-1",
            "subnet_ids": ["subnet-1"],
            "bucket": "scans",
            "image": "image",
            "inference_image": "image",
            "database_secret": "arn:aws:secretsmanager:eu-west-1:1:secret:d",
        },
        {"documents_prefix": "scans", "results_prefix": "", "memory": 2048},
    ),
    "wsi_worker": (
        {
            "vpc_id": "vpc-1",
            "subnet_ids": ["subnet-1"],
            "bucket": "uploads",
            "image": "image",
            "database_secret": "arn:aws:secretsmanager:eu-west-1:1:secret:d",
        },
        {"topic_kms_key": "alias/topics", "inference_address": "", "disk_gib": 8},
    ),
    "ml_worker": (
        ML_WORKER,
        {
            "private_subnet_ids": [],
            "execution_role_arn": "execution",
            "task_role_arn": "arn:aws:iam::123456789012:user/task",
            "api_role_arn": "",
            "ssm_parameter_prefix": "zivohealth/production/",
            "db_port": 0,
            "target_queue_depth": 0,
            "worker_mode": "all",
            "max_receive_count": 2000,
        },
    ),
    "sqs_queue": ({}, {"name": "jobs.fifo"}),
    "pubsub_cloudrun": (
        {"project": "p", "region": "europe-west1", "topic": "jobs", "image": "image", "delivery": "push"},
        {"name": "Worker", "create_subscription": False},
    ),
    "eks_gpu_nodes": ({"cluster_name": "lamina", "subnet_ids": ["subnet-1"]}, {"max_size": 0, "disk_gib": 8, "capacity_type": "CHEAP"}),
}


@pytest.mark.parametrize("module", WRONG)
def test_every_wrong_value_is_told_by_its_name_with_what_was_expected(module: str, tmp_path: Path) -> None:
    right, wrong = WRONG[module]
    with pytest.raises(AssertionError) as raised:
        apply(f"modules/{module}", {**right, **wrong}, tmp_path)
    told = " ".join(str(raised.value).replace("│", " ").split())
    assert [] == [name for name in wrong if f"{name}: " not in told]
