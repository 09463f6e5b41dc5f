"""The modules of deploy/terraform, run by Terraform itself over a provider that makes nothing; their result is looked at as AWS would."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy.ecs_definitions import misfits, problems, settings_of, unknown_settings, unwritable
from tests.support.deploy.loaded_settings import bridge_of, server_of
from tests.support.deploy.overlays import built
from tests.support.deploy.terraform.runs import ROOT, Stack, apply, terraform, validate
from tests.support.deploy.terraform.stacks import ML_WORKER, ON_ECS, VARIABLES, stack

_WORKER = {
    "image": "registry/bridge",
    "vpc_id": "vpc-1",
    "subnet_ids": ["subnet-1"],
    "database_secret": "arn:aws:ssm:eu-west-1:1:parameter/d",
}
# Those that have queues of SQS, by themselves: what they tell is seen.
MODULES: dict[str, dict[str, Any]] = {
    "ml_worker": dict(ML_WORKER),
    "wsi_worker": {**_WORKER, "name": "slides", "bucket": "uploads", "inference_address": "servers:8001"},
    "documents_worker": {**_WORKER, "name": "documents", "bucket": "scans", "inference_image": "registry/inference"},
}
SOURCES = {name: Path(__file__).parents[2] / name for name in ("bridge", "inference_server")}


def task_definitions(made: Stack) -> dict[str, dict[str, Any]]:
    """By address, as ECS is asked for them."""
    return {
        one.address: {
            "family": one.values["family"],
            "networkMode": one.values["network_mode"],
            "requiresCompatibilities": one.values["requires_compatibilities"],
            "cpu": one.values["cpu"],
            "memory": one.values["memory"],
            "containerDefinitions": one.json("container_definitions"),
            "volumes": [{"name": volume["name"]} for volume in one.values["volume"]],
        }
        for one in made.of("aws_ecs_task_definition")
    }


def statements(made: Stack, ending: str) -> list[dict[str, Any]]:
    return [statement for one in made.of("aws_iam_role_policy", ending) for statement in one.json("policy")["Statement"]]


def allowed(rights: list[dict[str, Any]]) -> set[str]:
    return {action for one in rights if one["Effect"] == "Allow" for action in one["Action"]}


def test_every_file_is_in_terraforms_own_form() -> None:
    done = subprocess.run([terraform(), "fmt", "-check", "-recursive", ROOT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_module_is_tried_here() -> None:
    sources = {
        folder: re.findall(r'source\s+= "(?:../)+(?:modules/)?(\w+)"', "".join(map(Path.read_text, folder.glob("*.tf"))))
        for folder in ROOT.glob("*/*")
    }
    tried = {name for folder, names in sources.items() for name in names} | {"eks_gpu_nodes"}
    assert sorted(tried) == sorted(folder.name for folder in (ROOT / "modules").iterdir())


def test_a_wrong_argument_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    module = tmp_path / "deploy" / "modules" / "wrong"
    module.mkdir(parents=True)
    text = 'resource "aws_sqs_queue" "jobs" {\n  nome = "jobs"\n}\n'
    (module / "main.tf").write_text(text)
    assert 'An argument named "nome" is not expected here' in validate(ROOT / "modules" / "wrong", tmp_path)


@pytest.mark.parametrize("example", VARIABLES)
def test_every_example_can_be_applied(example: str) -> None:
    assert len(stack(example).resources) > 10


def test_there_is_an_example_for_each_worker() -> None:
    assert sorted(VARIABLES) == sorted(folder.name for folder in (ROOT / "examples").iterdir())


def test_gpu_nodes_for_kubernetes_start_at_none_and_take_only_what_wants_a_gpu(tmp_path: Path) -> None:
    made = apply("modules/eks_gpu_nodes", {"cluster_name": "lamina", "subnet_ids": ["subnet-1"]}, tmp_path)
    (nodes,) = made.of("aws_eks_node_group")
    assert nodes.values["scaling_config"] == [{"min_size": 0, "max_size": 4, "desired_size": 0}]
    assert nodes.values["taint"] == [{"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}]
    assert nodes.values["ami_type"] == "AL2023_x86_64_NVIDIA"


def test_the_cluster_autoscaler_knows_gpu_nodes_before_there_is_one(tmp_path: Path) -> None:
    made = apply("modules/eks_gpu_nodes", {"cluster_name": "lamina", "subnet_ids": ["subnet-1"]}, tmp_path)
    (nodes,) = made.of("aws_eks_node_group")
    told = {}
    for one in made.of("aws_autoscaling_group_tag"):
        assert one.values["autoscaling_group_name"] == made.outputs["autoscaling_group_name"]
        (tag,) = one.values["tag"]
        told[tag["key"].removeprefix("k8s.io/cluster-autoscaler/node-template/")] = tag["value"]
    labels = {name.removeprefix("label/"): value for name, value in told.items() if name.startswith("label/")}
    assert labels == nodes.values["labels"]
    # What servers tolerate and what they ask for, beside what a type of instance tells by itself.
    pod = built("eks-gpu").named("Deployment", "lamina-inference")["spec"]["template"]["spec"]
    (taint,) = nodes.values["taint"]
    assert told[f"taint/{taint['key']}"] == f"{taint['value']}:NoSchedule"
    assert taint["key"] in {one["key"] for one in pod["tolerations"]}
    asked = {name for container in pod["containers"] for kind in container["resources"].values() for name in kind}
    assert asked - {"cpu", "memory"} == {name.removeprefix("resources/") for name in told if name.startswith("resources/")}
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert set(nodes.values["instance_types"]) <= set(term["matchExpressions"][0]["values"])


@pytest.mark.parametrize("example", ON_ECS)
def test_task_definitions_are_such_as_ecs_takes(example: str) -> None:
    found = task_definitions(stack(example))
    assert found
    assert {
        address: problems({key: value for key, value in one.items() if value is not None}) for address, one in found.items()
    } == dict.fromkeys(found, "")
    assert {address: misfits(one) for address, one in found.items()} == {address: [] for address in found}


@pytest.mark.parametrize("example", ON_ECS)
def test_what_the_programs_write_to_can_be_written(example: str) -> None:
    found = task_definitions(stack(example))
    assert {address: unwritable(one) for address, one in found.items()} == {address: [] for address in found}


def test_a_slide_server_in_a_bridges_task_has_a_disk_for_copies_of_slides(tmp_path: Path) -> None:
    server = {"image": "registry/inference", "memory": 4096}
    given = {**MODULES["wsi_worker"], "inference_address": "", "inference": server, "cpu": 4096, "memory": 8192, "disk_gib": 60}
    made = apply("modules/wsi_worker", given, tmp_path)
    (definition,) = task_definitions(made).values()
    assert unwritable(definition) == []
    (settings,) = (settings_of(one) for one in definition["containerDefinitions"] if one["name"] == "inference")
    (task,) = made.of("aws_ecs_task_definition")
    (disk,) = task.values["ephemeral_storage"]
    assert int(settings["INFERENCE_MAX_STAGED_BYTES"]) == (disk["size_in_gib"] - 8) * 2**30
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert server_of(settings, monkeypatch).max_staged_bytes == 52 * 2**30


@pytest.mark.parametrize("example", ON_ECS)
def test_settings_in_them_are_read_by_the_programs(example: str) -> None:
    for definition in task_definitions(stack(example)).values():
        names = [name for one in definition["containerDefinitions"] if one["name"] != "files" for name in settings_of(one)]
        assert unknown_settings(names) == []


SOURCES_OF_JOBS = {
    "lab-worker": ("sqs_queues", ("https://sqs.eu-west-1.amazonaws.com/123456789012/production-ml-worker",)),
    "slide-worker": ("sqs_queues", ("WsiAnalysisWorker", "wsi-jobs-in")),
    "documents-worker": ("sqs_queues", ("documents",)),
    "ocr-worker": ("redis_queues", ("filot:ocr:gpu:queue", "filot:ocr:queue")),
}


@pytest.mark.parametrize("example", ON_ECS)
def test_the_programs_start_with_them(example: str) -> None:
    """Each in an environment of its own, so that none helps another."""
    seen = 0
    for definition in task_definitions(stack(example)).values():
        for one in definition["containerDefinitions"]:
            with pytest.MonkeyPatch.context() as monkeypatch:
                if one["name"] in {"bridge", "ml-worker"}:
                    loaded = bridge_of(settings_of(one), monkeypatch)
                    name, expected = SOURCES_OF_JOBS[example]
                    assert getattr(loaded, name) == expected
                    assert loaded.drain_seconds < one["stopTimeout"]
                    seen += 1
                elif one["name"] == "inference":
                    server = server_of(settings_of(one), monkeypatch)
                    assert server.grace_seconds + server.drain_seconds <= 120
                    seen += 1
    assert seen == 2


def test_the_bridge_starts_with_those_of_cloud_run() -> None:
    (service,) = stack("consensus-worker").of("google_cloud_run_v2_service")
    plain = {one["name"]: one["value"] or "a secret" for one in service.values["template"][0]["containers"][0]["env"]}
    with pytest.MonkeyPatch.context() as monkeypatch:
        loaded = bridge_of(plain, monkeypatch)
    assert loaded.pubsub_subscriptions == ("consensus-engine-jobs-sub",)
    # As in deploy/cloudrun: Cloud Run kills after ten.
    assert loaded.drain_seconds == 7
    assert loaded.database.startswith("cloudsql://consensus-worker%40project.iam@project:europe-west1:platform/")


def test_settings_of_the_service_on_cloud_run_are_read_by_the_bridge() -> None:
    (service,) = stack("consensus-worker").of("google_cloud_run_v2_service")
    names = [one["name"] for one in service.values["template"][0]["containers"][0]["env"]]
    assert "OPENAI_API_KEY" in names
    assert unknown_settings(names) == []


@pytest.mark.parametrize("module", ["ml_worker", "documents_worker"])
def test_servers_in_a_bridges_task_take_settings_of_the_users(module: str, tmp_path: Path) -> None:
    place = {"INFERENCE_OTLP_ENDPOINT": "http://collector.internal:4317"}
    made = apply(f"modules/{module}", {**MODULES[module], "inference_environment": place}, tmp_path)
    (definition,) = task_definitions(made).values()
    (server,) = (one for one in definition["containerDefinitions"] if one["name"] == "inference")
    assert place.items() <= settings_of(server).items()
    assert "INFERENCE_SERVICES" in settings_of(server)


@pytest.mark.parametrize("example", ["ocr-worker", "slide-worker"])
def test_where_a_server_has_a_gpu_the_cpu_answers_if_that_fails(example: str) -> None:
    containers = [one for definition in task_definitions(stack(example)).values() for one in definition["containerDefinitions"]]
    (server,) = (settings_of(one) for one in containers if one["name"] == "inference")
    assert ("cuda:0", "cpu") == (server["INFERENCE_DEVICE"], server.get("INFERENCE_FALLBACK"))


@pytest.mark.parametrize("example", ON_ECS)
def test_bridges_may_protect_their_tasks_and_renew_their_leases(example: str) -> None:
    made = stack(example)
    rights = statements(made, ".worker[0]") + statements(made, ".task") + statements(made, ".work[0]")
    assert "ecs:UpdateTaskProtection" in allowed(rights)
    assert example == "ocr-worker" or {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"} <= allowed(rights)


@pytest.mark.parametrize("example", ON_ECS)
def test_no_right_is_for_everything(example: str) -> None:
    given = [one for one in statements(stack(example), "") if one["Effect"] == "Allow"]
    assert given
    for one in given:
        assert "*" not in one["Resource"], one
        assert not any(action == "*" or action.endswith(":*") for action in one["Action"]), one


@pytest.mark.parametrize(
    ("module", "dead", "queues"),
    [
        ("ml_worker", {"test-ml-worker-dlq"}, {"test-ml-worker"}),
        (
            "wsi_worker",
            {f"{queue}_{ending}" for queue in ("WsiAnalysisWorker", "wsi-jobs-in") for ending in ("error", "skipped")},
            {"WsiAnalysisWorker", "wsi-jobs-in"},
        ),
        ("documents_worker", {"documents_error", "documents_skipped"}, {"documents"}),
    ],
)
def test_people_may_replay_dead_letters_and_tasks_may_not(module: str, dead: set[str], queues: set[str], tmp_path: Path) -> None:
    made = apply(f"modules/{module}", MODULES[module], tmp_path)
    letters, again = json.loads(made.outputs["operator_policy"])["Statement"]
    assert {arn.rpartition(":")[2] for arn in letters["Resource"]} == dead
    assert {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"} <= set(letters["Action"])
    assert {arn.rpartition(":")[2] for arn in again["Resource"]} == queues
    assert "sqs:SendMessage" in again["Action"]
    for one in statements(made, ""):
        if "sqs:ReceiveMessage" in one["Action"]:
            assert not set(letters["Resource"]) & set(one["Resource"])


def test_the_bridge_may_use_a_customers_key_of_the_topics(tmp_path: Path) -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/topics"
    made = apply("modules/wsi_worker", {**MODULES["wsi_worker"], "topic_kms_key": key}, tmp_path)
    (found,) = (one for one in statements(made, ".work[0]") if one["Sid"] == "TopicKey")
    assert (found["Resource"], found["Action"]) == ([key], ["kms:Decrypt", "kms:GenerateDataKey"])
    assert {one.values["kms_master_key_id"] for one in made.of("aws_sns_topic")} == {key}
    assert "TopicKey" not in {one.get("Sid") for one in statements(stack("slide-worker"), "")}


def test_the_lab_workers_rights_are_written_into_the_roles_that_are_given() -> None:
    made = stack("lab-worker")
    assert {one.values["role"] for one in made.of("aws_iam_role_policy")} == {"task", "execution"}
    assert allowed(statements(made, ".execution[0]")) == {"ssm:GetParameters", "logs:CreateLogStream", "logs:PutLogEvents"}


@pytest.mark.parametrize("example", ["lab-worker", "documents-worker", "slide-worker"])
def test_every_queue_is_reached_by_tls_alone(example: str) -> None:
    made = stack(example)
    refused = {
        (one["Resource"], one["Condition"]["Bool"]["aws:SecureTransport"])
        for policy in made.of("aws_sqs_queue_policy")
        for one in policy.json("policy")["Statement"]
        if one["Effect"] == "Deny"
    }
    assert refused == {(queue.values["arn"], "false") for queue in made.of("aws_sqs_queue")}
    # A second policy of one queue would take the first one's place.
    assert len(made.of("aws_sqs_queue_policy")) == len(refused)


def test_dead_letters_of_the_lab_worker_are_not_counted_once_a_minute() -> None:
    (alarm,) = stack("lab-worker").of("aws_cloudwatch_metric_alarm", ".dlq_messages")
    assert (alarm.values["statistic"], alarm.values["threshold"]) == ("Maximum", 1)


def test_the_lab_workers_queues_are_those_of_the_replaced_stack() -> None:
    made = stack("lab-worker")
    (queue,) = made.of("aws_sqs_queue", ".ml_worker")
    (dead,) = made.of("aws_sqs_queue", ".ml_worker_dlq")
    told = ("name", "max_message_size", "message_retention_seconds", "receive_wait_time_seconds", "visibility_timeout_seconds")
    assert [queue.values[name] for name in told] == ["production-ml-worker", 262_144, 345_600, 20, 300]
    # But for the replaced stack's 3 receipts: the bridge's receipts are no failures.
    assert queue.json("redrive_policy")["maxReceiveCount"] == 1000
    assert (dead.values["name"], dead.values["message_retention_seconds"]) == ("production-ml-worker-dlq", 1_209_600)
    assert {one.values["name"] for one in made.of("aws_ssm_parameter")} == {
        "/zivohealth/production/ml_worker/queue_url",
        "/zivohealth/production/ml_worker/enabled",
    }
    (service,) = made.of("aws_ecs_service")
    assert [(one["capacity_provider"], one["weight"]) for one in service.values["capacity_provider_strategy"]] == [("FARGATE_SPOT", 100)]


@pytest.mark.parametrize("example", ["slide-worker", "documents-worker"])
def test_queues_whose_services_may_go_to_none_are_kept_awake_by_a_tag_that_they_have(example: str) -> None:
    made = stack(example)
    queues = {one.values["url"]: one.values for one in made.of("aws_sqs_queue", ".jobs")}
    schedules = made.of("aws_scheduler_schedule")
    assert len(queues) == len(schedules)
    for schedule in schedules:
        (target,) = schedule.values["target"]
        asked = json.loads(target["input"])
        assert asked["Tags"] == queues[asked["QueueUrl"]]["tags"]
        assert target["arn"].endswith(":sqs:tagQueue")


def test_a_secrets_key_is_no_part_of_the_right_to_read_it() -> None:
    (reads,) = [
        one
        for one in statements(stack("slide-worker"), "bridge.aws_iam_role_policy.secrets")
        if "secretsmanager:GetSecretValue" in one["Action"]
    ]
    assert sorted(arn.rpartition(":")[2] for arn in reads["Resource"]) == ["ca-AbCdEf", "database-AbCdEf", "token-AbCdEf"]


@pytest.mark.parametrize("example", ON_ECS)
def test_metrics_that_reach_cloudwatch_are_kept_by_the_programs(example: str) -> None:
    kept = "".join(file.read_text(encoding="utf-8") for folder in SOURCES.values() for file in folder.rglob("*.py"))
    collectors = [
        settings_of(one)["AOT_CONFIG_CONTENT"]
        for definition in task_definitions(stack(example)).values()
        for one in definition["containerDefinitions"]
        if one["name"] == "collector"
    ]
    assert collectors
    for text in collectors:
        names = re.findall(r"\^(\w+?)(?:_total)?\$", text)
        assert len(names) == 10
        assert [] == [name for name in names if f'"{name}"' not in kept]


@pytest.mark.parametrize("example", ON_ECS)
def test_alarms_read_metrics_that_something_tells(example: str) -> None:
    made = stack(example)
    collected = {name for text in map(str, task_definitions(made).values()) for name in re.findall(r"\^(\w+)\$", text)}
    filtered = {one.values["metric_transformation"][0]["name"] for one in made.of("aws_cloudwatch_log_metric_filter")}
    told = {"Lamina": collected | filtered, "ECS/ContainerInsights": {"RunningTaskCount", "DesiredTaskCount"}}
    told["AWS/SQS"] = {"ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"}
    read = [metric for one in made.of("aws_cloudwatch_metric_alarm") for metric in metrics_of(one.values)]
    assert len(read) > 10
    assert [] == [metric for metric in read if metric[1] not in told[metric[0]]]


def metrics_of(alarm: dict[str, Any]) -> list[tuple[str, str]]:
    single = [(alarm["namespace"], alarm["metric_name"])] if alarm.get("metric_name") else []
    return single + [
        (one["metric"][0]["namespace"], one["metric"][0]["metric_name"]) for one in alarm.get("metric_query", ()) if one["metric"]
    ]


@pytest.mark.parametrize("example", ON_ECS)
def test_every_alert_has_its_alarm(example: str) -> None:
    names = " ".join(one.values["alarm_name"] for one in stack(example).of("aws_cloudwatch_metric_alarm"))
    wanted = ["errors-warning", "errors-critical", "backlog", "put-off", "slow", "given-up", "dead-letters", "silent", "restarts"]
    wanted += ["fallbacks"]
    wanted += ["gpu-idle"] if example in {"slide-worker", "ocr-worker"} else []
    assert [] == [name for name in wanted if name not in names]


@pytest.mark.parametrize("example", ON_ECS)
def test_alarms_for_people_are_told_to_the_topic_and_the_one_that_wakes_is_not(example: str) -> None:
    for alarm in stack(example).of("aws_cloudwatch_metric_alarm"):
        (action,) = alarm.values["alarm_actions"]
        assert action.endswith(":alarms") is not alarm.values["alarm_name"].endswith("waiting-at-zero")


def test_pushes_reach_the_service_with_a_token_for_what_it_expects(tmp_path: Path) -> None:
    variables = {
        "project": "project",
        "region": "europe-west1",
        "name": "pushed-worker",
        "topic": "jobs",
        "image": "image",
        "delivery": "push",
    }
    made = apply("modules/pubsub_cloudrun", variables, tmp_path)
    (subscription,) = made.of("google_pubsub_subscription", ".jobs[0]")
    (service,) = made.of("google_cloud_run_v2_service")
    settings = {one["name"]: one["value"] for one in service.values["template"][0]["containers"][0]["env"]}
    token = subscription.values["push_config"][0]["oidc_token"][0]
    assert token["audience"] == settings["BRIDGE_PUBSUB_PUSH_AUDIENCE"]
    assert service.values["custom_audiences"] == [settings["BRIDGE_PUBSUB_PUSH_AUDIENCE"]]
    assert token["service_account_email"] == settings["BRIDGE_PUBSUB_PUSH_ACCOUNT"]
    assert [one.values["role"] for one in made.of("google_cloud_run_v2_service_iam_member")] == ["roles/run.invoker"]
    assert made.of("google_pubsub_subscription_iam_member", ".receives") == []


def test_beside_the_platforms_own_stack_nothing_of_pubsub_is_made_twice(tmp_path: Path) -> None:
    """Google refuses a topic or a subscription whose name is taken, so that nothing at all would come up."""
    given = {
        "project": "project",
        "region": "europe-west1",
        "image": "image",
        "cloud_sql_instance": "project:europe-west1:platform",
        "openai_key_secret": "key",
        "create_topic": False,
        "create_subscription": False,
    }
    made = apply("modules/consensus_worker", given, tmp_path)
    assert [*made.of("google_pubsub_topic"), *made.of("google_pubsub_subscription")] == []
    (right,) = made.of("google_pubsub_subscription_iam_member")
    assert (right.values["subscription"], right.values["role"]) == ("consensus-engine-jobs-sub", "roles/pubsub.subscriber")
    assert made.outputs["subscription"] == "projects/project/subscriptions/consensus-engine-jobs-sub"
