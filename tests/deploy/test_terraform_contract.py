"""The module ml_worker has what the stack that it replaces has. Its file is read without Terraform."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import hcl2
import pytest

from tests.support.deploy.terraform.runs import planned_after
from tests.support.deploy.terraform.stacks import ML_WORKER as ARGUMENTS

ROOT = Path(__file__).parents[2] / "deploy" / "terraform"
ML_WORKER = ROOT / "modules" / "ml_worker"
REQUIRED = object()
# As the platform's own module has them.
VARIABLES = {
    **dict.fromkeys(
        (
            "environment",
            "vpc_id",
            "private_subnet_ids",
            "ecr_repository_url",
            "execution_role_arn",
            "task_role_arn",
            "api_role_arn",
            "db_host",
            "db_name",
        ),
        REQUIRED,
    ),
    "aws_region": "us-east-1",
    "image_tag": "latest",
    "db_port": 5432,
    "ssm_parameter_prefix": "/zivohealth/production",
    "min_capacity": 0,
    "max_capacity": 3,
    "target_queue_depth": 0.5,
    "enable_scheduled_scaling": False,
    "worker_mode": "aggregation",
}
OUTPUTS = {
    "sqs_queue_url",
    "sqs_queue_arn",
    "sqs_dlq_url",
    "sqs_dlq_arn",
    "ecs_cluster_name",
    "ecs_cluster_arn",
    "ecs_service_name",
    "ecs_task_definition_arn",
    "cloudwatch_log_group",
    "security_group_id",
}
# Their addresses, by which state is moved; `moved` blocks stand for those that lie elsewhere now.
RESOURCES = {
    "aws_sqs_queue.ml_worker",
    "aws_sqs_queue.ml_worker_dlq",
    "aws_sqs_queue_policy.ml_worker",
    "aws_cloudwatch_metric_alarm.queue_depth_high",
    "aws_cloudwatch_metric_alarm.dlq_messages",
    "aws_ecs_cluster.ml_worker",
    "aws_ecs_cluster_capacity_providers.ml_worker",
    "aws_cloudwatch_log_group.ml_worker",
    "aws_ecs_task_definition.ml_worker",
    "aws_ecs_service.ml_worker",
    "aws_security_group.ml_worker",
    "aws_appautoscaling_target.ml_worker",
    "aws_appautoscaling_policy.ml_worker_scale_up",
    "aws_appautoscaling_scheduled_action.ml_worker_scale_down_night",
    "aws_appautoscaling_scheduled_action.ml_worker_scale_up_morning",
}


@functools.cache
def parsed(file: Path) -> dict[str, Any]:
    return hcl2.loads(file.read_text(encoding="utf-8"))


def unquoted(value: Any) -> Any:
    return value.strip('"') if isinstance(value, str) else value


def blocks(kind: str, *files: Path) -> dict[str, Any]:
    """The blocks of a kind, by their labels with a dot between."""
    found: dict[str, Any] = {}
    for file in files:
        for block in parsed(file).get(kind, ()):
            name, content = next(iter((key, value) for key, value in block.items() if not key.startswith("__")))
            if kind == "resource":
                label, content = next(iter((key, value) for key, value in content.items() if not key.startswith("__")))
                name = f"{unquoted(name)}.{unquoted(label)}"
            found[unquoted(name)] = content
    return found


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.tf")), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_of_terraform_can_be_read(file: Path) -> None:
    assert parsed(file)


def test_the_lab_worker_takes_the_variables_that_the_replaced_stack_takes() -> None:
    found = blocks("variable", ML_WORKER / "variables.tf")
    assert {name: unquoted(told.get("default", REQUIRED)) for name, told in found.items()} == VARIABLES


def test_whatever_else_the_lab_worker_takes_may_be_left_out() -> None:
    more = blocks("variable", *(file for file in ML_WORKER.glob("*.tf") if file.name != "variables.tf"))
    assert [] == [name for name, told in more.items() if "default" not in told]


def test_the_lab_worker_tells_the_outputs_that_the_replaced_stack_tells() -> None:
    assert set(blocks("output", ML_WORKER / "outputs.tf")) == OUTPUTS


def test_the_lab_worker_has_the_resources_of_the_replaced_stack_at_their_addresses() -> None:
    here = set(blocks("resource", *ML_WORKER.glob("*.tf")))
    moved = set(re.findall(r"from = (\S+)", (ML_WORKER / "scaling.tf").read_text(encoding="utf-8")))
    assert sorted(RESOURCES - here - moved) == []
    assert not here & moved


# What lies in the state of that stack: each resource with what its provider wants at the least.
REPLACED = """
resource "aws_sqs_queue" "ml_worker" { name = "test-ml-worker" }
resource "aws_sqs_queue" "ml_worker_dlq" { name = "test-ml-worker-dlq" }
resource "aws_sqs_queue_policy" "ml_worker" {
  queue_url = aws_sqs_queue.ml_worker.id
  policy    = "{}"
}
resource "aws_ecs_cluster" "ml_worker" { name = "test-ml-worker-cluster" }
resource "aws_cloudwatch_log_group" "ml_worker" { name = "/ecs/test-ml-worker" }
resource "aws_ecs_task_definition" "ml_worker" {
  family                = "test-ml-worker"
  container_definitions = "[]"
}
resource "aws_ecs_service" "ml_worker" {
  name    = "test-ml-worker"
  cluster = aws_ecs_cluster.ml_worker.id
}
resource "aws_security_group" "ml_worker" { name_prefix = "test-ml-worker-" }
resource "aws_appautoscaling_target" "ml_worker" {
  min_capacity       = 0
  max_capacity       = 3
  resource_id        = "service/test-ml-worker-cluster/test-ml-worker"
  scalable_dimension = "ecs:service:DesiredCount"
  service_namespace  = "ecs"
}
resource "aws_appautoscaling_policy" "ml_worker_scale_up" {
  name               = "test-ml-worker-scale-up"
  policy_type        = "TargetTrackingScaling"
  resource_id        = aws_appautoscaling_target.ml_worker.resource_id
  scalable_dimension = aws_appautoscaling_target.ml_worker.scalable_dimension
  service_namespace  = aws_appautoscaling_target.ml_worker.service_namespace
}
"""


def test_the_state_of_the_replaced_stack_is_taken_over_and_nothing_is_destroyed(tmp_path: Path) -> None:
    changes = planned_after(REPLACED, "ml_worker", {**ARGUMENTS, "worker_mode": "sqs"}, tmp_path)
    assert [] == [address for address, change in changes.items() if "delete" in change["actions"]]
    kept = {address for address, change in changes.items() if "create" not in change["actions"]}
    assert {
        f"module.worker.{kind}.ml_worker" for kind in ("aws_sqs_queue", "aws_ecs_cluster", "aws_ecs_service", "aws_security_group")
    } <= kept
    assert (
        changes["module.worker.module.scaling.aws_appautoscaling_target.service"]["moved"]
        == "module.worker.aws_appautoscaling_target.ml_worker"
    )
    assert "module.worker.module.scaling.aws_appautoscaling_policy.backlog[0]" in kept


def test_the_workers_mode_is_checked() -> None:
    mode = (ML_WORKER / "variables.tf").read_text(encoding="utf-8").partition('variable "worker_mode"')[2]
    assert 'contains(["sqs", "aggregation", "both"], var.worker_mode)' in mode


@pytest.mark.parametrize("module", sorted((ROOT / "modules").iterdir()), ids=lambda module: module.name)
def test_every_variable_and_output_says_what_it_is(module: Path) -> None:
    files = list(module.glob("*.tf"))
    told = {**blocks("variable", *files), **blocks("output", *files)}
    assert [] == [name for name, content in told.items() if not content.get("description")]
