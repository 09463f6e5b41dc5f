"""How many tasks the shipped policies ask for, and when alarms rise: their own metric math, worked out."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.support.autoscaling.model import Seen
from benchmarks.support.autoscaling.policies import backlog_of_a_task
from tests.support.deploy.metric_math import worked_out
from tests.support.deploy.terraform.runs import Resource, apply
from tests.support.deploy.terraform.stacks import ML_WORKER, VARIABLES, stack

WAITING, WORKING = "ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"


def of_labs(**figures: float) -> dict[str, float]:
    names = {"waiting": f"{WAITING}/production-ml-worker", "working": f"{WORKING}/production-ml-worker"}
    return {names.get(name, name): value for name, value in figures.items()}


def wanted(example: str, ending: str, tasks: int, figures: dict[str, float]) -> int:
    """The tasks that target tracking asks for, from so many."""
    (policy,) = stack(example).of("aws_appautoscaling_policy", ending)
    return asked_for(policy, tasks, {**figures, "DesiredTaskCount": tasks})


def asked_for(policy: Resource, tasks: int, figures: dict[str, float], earlier: dict[str, float] | None = None) -> int:
    """Target tracking multiplies the tasks that are wanted, whatever is told of them."""
    (tracking,) = policy.values["target_tracking_scaling_policy_configuration"]
    metric = worked_out(metrics_of(policy), figures, earlier)
    return math.ceil(round(tasks * metric / tracking["target_value"], 6))


def metrics_of(policy: Resource) -> list[dict[str, Any]]:
    (tracking,) = policy.values["target_tracking_scaling_policy_configuration"]
    metrics: list[dict[str, Any]] = tracking["customized_metric_specification"][0]["metrics"]
    return metrics


def scaled(folder: Path, **changes: Any) -> Resource:
    """The policy of a service of its own."""
    queue = {"namespace": "AWS/SQS", "dimensions": {"QueueName": "jobs"}}
    variables = {
        "name": "tried",
        "cluster_name": "tried",
        "service_name": "tried",
        "min_capacity": 0,
        "max_capacity": 9,
        "target_backlog": 4,
        "waiting": [{**queue, "name": WAITING}],
        "working": [{**queue, "name": WORKING}],
    }
    (policy,) = apply("modules/queue_scaling", {**variables, **changes}, folder).of("aws_appautoscaling_policy", ".backlog[0]")
    return policy


def alarm(example: str, ending: str, figures: dict[str, float], earlier: dict[str, float] | None = None) -> bool:
    """Whether one moment counts for the alarm. `earlier`: what was told for the minutes before."""
    (found,) = [one.values for one in stack(example).of("aws_cloudwatch_metric_alarm") if one.values["alarm_name"].endswith(ending)]
    value = worked_out(found["metric_query"], figures, earlier)
    return value >= found["threshold"] if found["comparison_operator"].startswith("GreaterThanOrEqual") else value > found["threshold"]


@pytest.mark.parametrize(
    ("tasks", "figures", "expected"),
    [
        (1, of_labs(waiting=0, working=0), 0),
        (1, {}, 0),
        (2, of_labs(waiting=2, working=2), 4),
        (1, of_labs(waiting=1, working=0), 2),
        (4, of_labs(waiting=0, working=3), 3),
        (3, of_labs(waiting=0, working=3), 3),
        (1, of_labs(working=1), 1),
    ],
    ids=[
        "an empty queue needs nobody",
        "a queue that tells nothing is empty",
        "what waits adds tasks",
        "by the target",
        "as many stay as work",
        "all at work is neither too many nor too few",
        "a job is enough to stay",
    ],
)
def test_tasks_follow_what_waits_and_never_fall_below_those_that_work(tasks: int, figures: dict[str, float], expected: int) -> None:
    assert wanted("lab-worker", "scaling.aws_appautoscaling_policy.backlog[0]", tasks, figures) == expected


def test_a_task_of_several_jobs_counts_as_working_for_each_of_its_share() -> None:
    figures = {f"{WAITING}/documents": 0, f"{WORKING}/documents": 9}
    # Four at once: nine jobs keep three tasks busy.
    assert wanted("documents-worker", "backlog[0]", 5, figures) == 3


@pytest.mark.parametrize("hold", [True, False])
def test_policies_reckon_as_the_simulation_does(hold: bool, tmp_path: Path) -> None:
    metrics = metrics_of(scaled(tmp_path, target_backlog=4, concurrency=3, hold_while_working=hold))
    for waiting, working, desired in itertools.product((0, 1, 5, 40), (0, 1, 3, 7, 30), (0, 1, 2, 9)):
        seen = Seen(waiting=waiting, working=working, desired=desired)
        figures = {f"{WAITING}/jobs": waiting, f"{WORKING}/jobs": working, "DesiredTaskCount": desired}
        simulated = backlog_of_a_task(seen, target=4, concurrency=3, hold_while_working=hold)
        assert worked_out(metrics, figures) == pytest.approx(simulated), seen


def test_tasks_that_are_still_starting_are_not_asked_for_once_more() -> None:
    (policy,) = stack("lab-worker").of("aws_appautoscaling_policy", "scaling.aws_appautoscaling_policy.backlog[0]")
    # One runs and three start for two that wait: the four are enough for them.
    assert asked_for(policy, 4, {**of_labs(waiting=2, working=1), "DesiredTaskCount": 4, "RunningTaskCount": 1}) == 4


def test_a_minute_that_is_not_told_yet_is_as_the_one_before() -> None:
    (policy,) = stack("lab-worker").of("aws_appautoscaling_policy", "scaling.aws_appautoscaling_policy.backlog[0]")
    told = {**of_labs(waiting=2, working=2), "DesiredTaskCount": 2}
    assert asked_for(policy, 2, {}, earlier=told) == asked_for(policy, 2, told) == 4


def test_tasks_of_which_nobody_tells_stay_as_many() -> None:
    (policy,) = stack("lab-worker").of("aws_appautoscaling_policy", "scaling.aws_appautoscaling_policy.backlog[0]")
    assert asked_for(policy, 3, of_labs(waiting=90)) == 3
    assert asked_for(policy, 3, {}) == 3


def test_no_server_goes_while_any_job_runs_where_that_is_asked_for(tmp_path: Path) -> None:
    policy = scaled(tmp_path, hold_while_working=True)
    assert asked_for(policy, 5, {f"{WORKING}/jobs": 1, "DesiredTaskCount": 5}) == 5
    assert asked_for(policy, 5, {f"{WORKING}/jobs": 0, "DesiredTaskCount": 5}) == 0


def test_numbers_that_no_policy_can_have_are_told_by_name(tmp_path: Path) -> None:
    wrong = {"target_backlog": 0, "concurrency": 0, "max_capacity": 2, "scale_out_cooldown": -1, "scale_in_cooldown": -1}
    with pytest.raises(AssertionError) as raised:
        scaled(tmp_path, min_capacity=3, **wrong)
    assert [] == [name for name in wrong if f"{name}: expected" not in str(raised.value)]


@pytest.mark.parametrize(("example", "queue"), [("slide-worker", f"{WORKING}/WsiAnalysisWorker"), ("ocr-worker", "filot:ocr:queue/leased")])
def test_gpu_servers_all_stay_while_any_job_runs(example: str, queue: str) -> None:
    figures = {queue if queue.startswith(WORKING) else f"bridge_queue_messages/{queue}": 1.0}
    assert wanted(example, "servers.module.scaling.aws_appautoscaling_policy.backlog[0]", 3, figures) == 3
    assert wanted(example, "servers.module.scaling.aws_appautoscaling_policy.backlog[0]", 3, {}) == 0


def test_both_lists_of_the_card_platform_count() -> None:
    waiting = {"bridge_queue_messages/filot:ocr:gpu:queue/waiting": 30, "bridge_queue_messages/filot:ocr:queue/waiting": 30}
    assert wanted("ocr-worker", "servers.module.scaling.aws_appautoscaling_policy.backlog[0]", 1, waiting) == 3


def test_a_document_that_waits_for_its_first_server_calls_for_one() -> None:
    assert alarm("ocr-worker", "waiting-at-zero", {"bridge_queue_messages/filot:ocr:queue/delayed": 1})
    assert alarm("ocr-worker", "waiting-at-zero", {"bridge_queue_messages/filot:ocr:gpu:queue/leased": 1})
    assert not alarm("ocr-worker", "waiting-at-zero", {"bridge_queue_messages/filot:ocr:queue/delayed": 1, "DesiredTaskCount": 1})


@pytest.mark.parametrize("example", ["slide-worker", "documents-worker"])
def test_services_may_go_to_none_and_an_alarm_adds_the_first_task(example: str) -> None:
    made = stack(example)
    for target in made.of("aws_appautoscaling_target"):
        assert target.values["min_capacity"] == 0
        (policy,) = [
            one for one in made.of("aws_appautoscaling_policy", ".wake[0]") if one.values["resource_id"] == target.values["resource_id"]
        ]
        (step,) = policy.values["step_scaling_policy_configuration"]
        # Where counts fail to come, the first task may be called for beside others, and none of those may go.
        assert (step["adjustment_type"], step["step_adjustment"][0]["scaling_adjustment"]) == ("ChangeInCapacity", 1)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({f"{WAITING}/documents": 1}, True),
        ({f"{WAITING}/documents": 1, "DesiredTaskCount": 0}, True),
        ({f"{WAITING}/documents": 1, "DesiredTaskCount": 1}, False),
        ({f"{WORKING}/documents": 1}, True),
        ({f"{WAITING}/documents": 0, f"{WORKING}/documents": 0}, False),
        ({}, False),
    ],
)
def test_the_first_task_is_called_for_only_while_none_is_wanted(figures: dict[str, float], expected: bool) -> None:
    assert alarm("documents-worker", "documents-waiting-at-zero", figures) is expected


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, False),
        ({f"{WAITING}/documents": 5}, True),
        ({"RunningTaskCount": 1}, True),
        ({"RunningTaskCount": 1, "bridge_jobs_in_flight": 1}, False),
        ({f"{WAITING}/documents": 5, "RunningTaskCount": 1, "bridge_jobs_in_flight": 1}, False),
    ],
)
def test_silence_counts_only_while_there_is_something_to_do(figures: dict[str, float], expected: bool) -> None:
    assert alarm("documents-worker", "documents-silent", figures) is expected


@pytest.mark.parametrize(
    ("example", "ending", "earlier"),
    [
        ("documents-worker", "documents-waiting-at-zero", {f"{WAITING}/documents": 1}),
        ("documents-worker", "documents-backlog", {f"{WAITING}/documents": 101}),
        ("documents-worker", "documents-silent", {"RunningTaskCount": 1}),
        ("ocr-worker", "gpu-idle", {"bridge_queue_messages/filot:ocr:queue/waiting": 3, "lamina_device_utilisation_ratio": 0.01}),
    ],
)
def test_alarms_that_want_every_minute_take_one_that_is_not_told_yet_for_the_one_before(
    example: str, ending: str, earlier: dict[str, float]
) -> None:
    assert alarm(example, ending, {}, earlier)
    assert not alarm(example, ending, {})


def test_a_sign_of_life_is_never_repeated() -> None:
    before = {"RunningTaskCount": 1.0, "bridge_jobs_in_flight": 1.0}
    assert alarm("documents-worker", "documents-silent", {"RunningTaskCount": 1.0}, before)


@pytest.mark.parametrize(
    ("failed", "poison", "ended", "warning", "critical"),
    [
        (0, 0, 100, False, False),
        (6, 0, 100, True, False),
        (11, 0, 100, True, True),
        (0, 6, 100, True, False),
        (3, 0, 5, False, False),
        (0, 0, 0, False, False),
    ],
)
def test_errors_count_once_enough_jobs_have_ended(failed: int, poison: int, ended: int, warning: bool, critical: bool) -> None:
    figures = {"documents.JobsFailed": failed, "documents.MessagesUnreadable": poison, "documents.JobsEnded": ended}
    assert alarm("documents-worker", "errors-warning", figures) is warning
    assert alarm("documents-worker", "errors-critical", figures) is critical


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, False),
        ({"documents.TriesPutOff": 15}, True),
        ({"documents.TriesUnset": 15}, True),
        ({"documents.TriesRefused": 1}, True),
        ({"documents.TriesPutOff": 15, "documents.JobsEnded": 1}, False),
        ({"documents.JobsEnded": 100}, False),
    ],
)
def test_few_jobs_that_are_put_off_are_told_as_long_as_none_ends(figures: dict[str, float], expected: bool) -> None:
    assert alarm("documents-worker", "put-off", figures) is expected


@pytest.mark.parametrize(("minutes", "expected"), [(6, False), (45, True)])
@pytest.mark.parametrize("begun", range(10))
def test_a_cold_start_is_not_told_however_long_the_first_job_takes(begun: int, minutes: int, expected: bool) -> None:
    """A GPU that comes from none takes 6 minutes; CloudWatch's periods begin when they like."""
    (found,) = [
        one.values for one in stack("documents-worker").of("aws_cloudwatch_metric_alarm") if one.values["alarm_name"].endswith("put-off")
    ]
    (length,) = {one["metric"][0]["period"] // 60 for one in found["metric_query"] if one["metric"]}
    told = [{"documents.TriesPutOff": 1.0} if begun <= minute < begun + minutes else {} for minute in range(90)]
    periods = [{name: 1.0 for figures in told[start : start + length] for name in figures} for start in range(0, 90, length)]
    counts = "".join("x" if alarm("documents-worker", "put-off", figures) else "." for figures in periods)
    assert ("x" * found["datapoints_to_alarm"] in counts) is expected
    assert found["datapoints_to_alarm"] == found["evaluation_periods"]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"bridge_queue_messages/filot:ocr:gpu:queue/waiting": 3, "lamina_device_utilisation_ratio": 0.01}, True),
        ({"bridge_queue_messages/filot:ocr:gpu:queue/waiting": 3, "lamina_device_utilisation_ratio": 0.5}, False),
        ({"bridge_queue_messages/filot:ocr:gpu:queue/waiting": 3}, False),
        ({"lamina_device_utilisation_ratio": 0.0}, False),
    ],
)
def test_a_gpu_idles_only_where_there_is_one_and_something_waits(figures: dict[str, float], expected: bool) -> None:
    assert alarm("ocr-worker", "gpu-idle", figures) is expected


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, False),
        ({"lamina_requests_total": 100.0, "lamina_fallbacks_total": 5.0}, False),
        ({"lamina_requests_total": 100.0, "lamina_fallbacks_total": 6.0}, True),
        ({"lamina_requests_total": 19.0, "lamina_fallbacks_total": 19.0}, False),
        ({"documents.JobsEnded": 100.0, "documents.JobsFallenBack": 5.0}, False),
        ({"documents.JobsEnded": 100.0, "documents.JobsFallenBack": 6.0}, True),
        ({"documents.JobsEnded": 19.0, "documents.JobsFallenBack": 19.0}, False),
    ],
)
def test_the_share_of_fallbacks_needs_as_many_requests_or_jobs(figures: dict[str, float], expected: bool) -> None:
    assert alarm("documents-worker", "fallbacks", figures) is expected


@pytest.mark.parametrize("example", ["lab-worker", "ocr-worker"])
def test_dead_letters_of_the_ledger_raise_an_alarm_that_stays_while_they_lie_there(example: str) -> None:
    (letters,) = (one.values for one in stack(example).of("aws_cloudwatch_metric_alarm", ".ledger"))
    assert (letters["metric_name"], letters["statistic"], letters["threshold"]) == ("bridge_dead_letters", "Maximum", 0)
    assert letters["treat_missing_data"] == "ignore"


def test_a_threshold_is_taken_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    variables = dict(VARIABLES["documents-worker"])
    worker = {"name": "documents", "image": variables["bridge_image"], "vpc_id": "vpc-1", "subnet_ids": ["subnet-1"]}
    worker |= {name: variables[name] for name in ("inference_image", "bucket", "database_secret")}
    made = apply("modules/documents_worker", {**worker, "thresholds": {"backlog": 7}}, tmp_path)
    (backlog,) = made.of("aws_cloudwatch_metric_alarm", ".backlog")
    assert backlog.values["threshold"] == 7
    with pytest.raises(AssertionError, match="thresholds: expected error_percent_warning"):
        apply("modules/documents_worker", {**worker, "thresholds": {"backlogs": 7}}, tmp_path)


def test_a_worker_of_rollups_alone_never_goes_to_none(tmp_path: Path) -> None:
    made = apply("modules/ml_worker", ML_WORKER, tmp_path)
    (target,) = made.of("aws_appautoscaling_target")
    assert (target.values["min_capacity"], target.values["max_capacity"]) == (1, 3)
    (service,) = made.of("aws_ecs_service")
    assert service.values["desired_count"] == 1
    # Nor does it grow by a queue that it never reads.
    assert made.of("aws_appautoscaling_policy") == []


def test_a_worker_of_both_kinds_never_goes_to_none_by_itself_either(tmp_path: Path) -> None:
    made = apply("modules/ml_worker", {**ML_WORKER, "worker_mode": "both"}, tmp_path)
    (target,) = made.of("aws_appautoscaling_target")
    assert target.values["min_capacity"] == 1
    (policy,) = made.of("aws_appautoscaling_policy")
    assert policy.values["policy_type"] == "TargetTrackingScaling"


def test_a_worker_that_a_schedule_sends_to_rest_is_woken_by_a_message(tmp_path: Path) -> None:
    made = apply(
        "modules/ml_worker",
        {**ML_WORKER, "worker_mode": "sqs", "enable_scheduled_scaling": True, "min_capacity": 4, "max_capacity": 3},
        tmp_path,
    )
    night, morning = (
        action.values["scalable_target_action"][0]
        for name in ("night", "morning")
        for action in made.of("aws_appautoscaling_scheduled_action", f"_{name}[0]")
    )
    assert [(one["min_capacity"], one["max_capacity"]) for one in (night, morning)] == [("0", "4"), ("4", "4")]
    (wake,) = made.of("aws_appautoscaling_policy", ".wake[0]")
    (zero,) = made.of("aws_cloudwatch_metric_alarm", ".waiting_at_zero[0]")
    assert zero.values["alarm_actions"] == [wake.values["arn"]]
    assert len(made.of("aws_scheduler_schedule")) == 1


def test_rollups_alone_have_no_night(tmp_path: Path) -> None:
    made = apply("modules/ml_worker", {**ML_WORKER, "enable_scheduled_scaling": True}, tmp_path)
    assert made.of("aws_appautoscaling_scheduled_action") == []
