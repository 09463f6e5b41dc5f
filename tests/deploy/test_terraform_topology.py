"""What Terraform makes of SQS and SNS is made on an emulator of AWS; then the bridge itself finds nothing missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support.deploy.ecs_definitions import settings_of
from tests.support.deploy.terraform.runs import Stack
from tests.support.deploy.terraform.stacks import stack
from tests.support.servers.ministack import Ministack

# The emulator's own.
ACCOUNT, REGION = "000000000000", "us-east-1"
DOCS = Path(__file__).parents[2] / "docs"
ATTRIBUTES = {
    "message_retention_seconds": "MessageRetentionPeriod",
    "visibility_timeout_seconds": "VisibilityTimeout",
    "receive_wait_time_seconds": "ReceiveMessageWaitTimeSeconds",
    "redrive_policy": "RedrivePolicy",
}


def here(value: Any) -> Any:
    """A value as it would be in the emulator's account."""
    return json.loads(json.dumps(value).replace("123456789012", ACCOUNT).replace("eu-west-1", REGION))


def make(made: Stack, ministack: Ministack) -> None:
    """Make the queues, topics, policies and subscriptions of a stack, in the order in which they need each other."""
    sqs, sns = (client(service, ministack) for service in ("sqs", "sns"))
    queues = sorted(made.of("aws_sqs_queue"), key=lambda one: bool(one.values["redrive_policy"]))
    urls = {}
    for one in queues:
        values = here(one.values)
        attributes = {ours: str(values[name]) for name, ours in ATTRIBUTES.items() if values[name]}
        urls[values["url"]] = sqs.create_queue(QueueName=values["name"], Attributes=attributes)["QueueUrl"]
    for one in made.of("aws_sns_topic"):
        sns.create_topic(Name=one.values["name"])
    for one in made.of("aws_sqs_queue_policy"):
        values = here(one.values)
        sqs.set_queue_attributes(QueueUrl=urls[values["queue_url"]], Attributes={"Policy": values["policy"]})
    for one in made.of("aws_sns_topic_subscription"):
        values = here(one.values)
        raw = {"RawMessageDelivery": str(values["raw_message_delivery"]).lower()}
        sns.subscribe(TopicArn=values["topic_arn"], Protocol=values["protocol"], Endpoint=values["endpoint"], Attributes=raw)


def client(service: str, ministack: Ministack) -> Any:
    return boto3.client(
        service, endpoint_url=ministack.endpoint, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )


def bridge_settings(made: Stack) -> dict[str, str]:
    """As the bridge's container has them, but for what is secret."""
    definitions = [one.json("container_definitions") for one in made.of("aws_ecs_task_definition", ".bridge")]
    (bridge,) = [one for definition in definitions for one in definition if one["name"] == "bridge"]
    secrets = {one["name"] for one in bridge["secrets"]}
    return {name: value for name, value in here(settings_of(bridge)).items() if name not in secrets and "_TLS" not in name}


@pytest.mark.parametrize("example", ["slide-worker", "documents-worker"])
def test_the_bridge_finds_nothing_missing_of_what_terraform_has_made(example: str, ministack: Ministack) -> None:
    made = stack(example)
    make(made, ministack)
    environment = {"PATH": os.environ["PATH"], **ministack.environment(), **bridge_settings(made), "AWS__Region": REGION}
    command = [sys.executable, "-m", "bridge", "topology", "apply", "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "nothing is missing"), done.stderr


def test_a_request_to_the_platforms_topic_reaches_the_workers_queue(ministack: Ministack) -> None:
    made = stack("slide-worker")
    make(made, ministack)
    topic = next(one for one in made.of("aws_sns_topic") if "Requested" in one.values["name"])
    client("sns", ministack).publish(TopicArn=here(topic.values["arn"]), Message="a request")
    sqs = client("sqs", ministack)
    url = sqs.get_queue_url(QueueName="WsiAnalysisWorker")["QueueUrl"]
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "a request"


def test_the_lab_workers_parameters_and_queue_are_what_the_platforms_service_reads(ministack: Ministack) -> None:
    made = stack("lab-worker")
    make(made, ministack)
    ssm = client("ssm", ministack)
    for one in made.of("aws_ssm_parameter"):
        ssm.put_parameter(Name=one.values["name"], Value=here(one.values["value"]), Type=one.values["type"], Overwrite=True)
    names = ["/zivohealth/production/ml_worker/queue_url", "/zivohealth/production/ml_worker/enabled"]
    read = {one["Name"]: one["Value"] for one in ssm.get_parameters(Names=names)["Parameters"]}
    assert read[names[1]] == "true"
    sqs = client("sqs", ministack)
    url = sqs.get_queue_url(QueueName=read[names[0]].rpartition("/")[2])["QueueUrl"]
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy", "VisibilityTimeout"])["Attributes"]
    assert told["VisibilityTimeout"] == "300"
    assert json.loads(told["RedrivePolicy"]) == {
        "deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:production-ml-worker-dlq",
        "maxReceiveCount": 1000,
    }


def test_queues_of_the_platform_are_taken_into_the_state_at_the_addresses_that_are_told() -> None:
    told = re.findall(r"^terraform import .*'(.+)' \$queues/(\w+)$", (DOCS / "deploy-aws.md").read_text(encoding="utf-8"), re.MULTILINE)
    names = {one.address: one.values["name"] for one in stack("slide-worker").of("aws_sqs_queue")}
    assert dict(told) == {address: name for address, name in names.items() if name.startswith("WsiAnalysisWorker")}


def test_the_command_of_the_migrations_page_raises_the_receipts_and_keeps_the_dead_letter_queue(ministack: Ministack) -> None:
    page = (DOCS / "migration" / "lab-worker.md").read_text(encoding="utf-8")
    found = re.search(r"--attributes \\\n\s+'(.+)'", page)
    assert found
    sqs = client("sqs", ministack)
    sqs.create_queue(QueueName="production-ml-worker-dlq")
    url = sqs.create_queue(QueueName="raised-ml-worker")["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes=here(json.loads(found[1])))
    policy = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"])
    assert policy["deadLetterTargetArn"] == f"arn:aws:sqs:{REGION}:{ACCOUNT}:production-ml-worker-dlq"
    assert int(policy["maxReceiveCount"]) == 1000
