"""The alerts of Google Cloud: their own PromQL is played through, and their metrics are made of what the bridge writes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.bridge.step_lines import written
from tests.support.deploy.alerts import ALERTS
from tests.support.deploy.promql import asked
from tests.support.deploy.promtool import promtool
from tests.support.deploy.terraform.runs import Stack, apply
from tests.support.deploy.terraform.stacks import stack

# What Google Cloud tells of subscriptions and services, in the names of PromQL.
_UNDELIVERED = "pubsub_googleapis_com:subscription_num_undelivered_messages"
_OLDEST = "pubsub_googleapis_com:subscription_oldest_unacked_message_age"
_INSTANCES = "run_googleapis_com:container_instance_count"
JOBS, MILLISECONDS, EXITS = (
    f"logging_googleapis_com:user_consensus_worker_{name}" for name in ("jobs", "job_milliseconds_bucket", "exits")
)
QUEUE, DEAD = "consensus-engine-jobs-sub", "consensus-engine-jobs-dead-letter-sub"
# For how long nothing happened before, and the minute that is looked at.
_MINUTES = 30
PUSHED = {
    "project": "project",
    "region": "europe-west1",
    "name": "consensus-worker",
    "topic": "consensus-engine-jobs",
    "image": "image",
    "delivery": "push",
    "min_instances": 0,
}


def queries(made: Stack) -> dict[str, dict[str, Any]]:
    """The condition of each alert, by its name."""
    found = {}
    for one in made.of("google_monitoring_alert_policy"):
        (condition,) = one.values["conditions"]
        name = re.search(r'\["(.+)"\]$', one.address)
        assert name
        (found[name[1]],) = condition["condition_prometheus_query_language"]
    return found


def jobs(**rates: int) -> dict[str, str]:
    """So many a minute: done, failed, unreadable, fallen back."""
    labels = {
        "done": 'outcome="succeeded",fallback=""',
        "failed": 'outcome="failed",fallback=""',
        "unreadable": 'outcome="",fallback=""',
        "spared": 'outcome="succeeded",fallback="tesseract"',
    }
    return {f'{JOBS}{{monitored_resource="cloud_run_revision",{labels[kind]}}}': f"0+{rate}x{_MINUTES}" for kind, rate in rates.items()}


def waiting(number: int, subscription: str = QUEUE) -> dict[str, str]:
    return {f'{_UNDELIVERED}{{monitored_resource="pubsub_subscription",subscription_id="{subscription}"}}': f"{number}x{_MINUTES}"}


def age(seconds: int) -> dict[str, str]:
    return {f'{_OLDEST}{{monitored_resource="pubsub_subscription",subscription_id="{QUEUE}"}}': f"{seconds}x{_MINUTES}"}


def took(milliseconds: int) -> dict[str, str]:
    """A job a minute of at most so long."""
    labels = 'monitored_resource="cloud_run_revision"'
    return {
        f'{MILLISECONDS}{{{labels},le="{bound}"}}': f"0+{int(milliseconds <= bound)}x{_MINUTES}" for bound in (10_000, 300_000, 900_000)
    } | {f'{MILLISECONDS}{{{labels},le="+Inf"}}': f"0+1x{_MINUTES}"}


def exits(rate: str) -> dict[str, str]:
    return {f'{EXITS}{{monitored_resource="cloud_run_revision"}}': rate}


def instances(values: str = f"1x{_MINUTES}") -> dict[str, str]:
    return {f'{_INSTANCES}{{monitored_resource="cloud_run_revision",service_name="consensus-worker"}}': values}


# What happens, and the alerts that rise then.
SEEN: list[tuple[dict[str, str], set[str]]] = [
    (instances() | jobs(done=50, failed=0) | waiting(3) | age(20) | took(5_000) | exits(f"0x{_MINUTES}"), set()),
    (instances() | jobs(done=94, failed=6), {"errors-warning", "given-up"}),
    (instances() | jobs(done=80, failed=10, unreadable=10), {"errors-warning", "errors-critical", "given-up"}),
    (instances() | jobs(done=0, unreadable=1), {"errors-warning", "errors-critical", "given-up"}),
    (instances() | waiting(101), {"backlog"}),
    (instances() | age(601), {"oldest"}),
    (instances() | took(400_000), {"slow"}),
    (instances() | waiting(1, DEAD), {"dead-letters"}),
    (instances(f"1x20 _x{_MINUTES - 20}"), {"silent"}),
    (instances() | exits(f"0x20 0+1x{_MINUTES - 20}"), {"restarts"}),
    (instances() | jobs(done=94, spared=6), {"fallbacks"}),
    (instances() | jobs(done=95, spared=5), set()),
]
OF_ONE_THAT_MAY_REST: list[tuple[dict[str, str], set[str]]] = [
    (waiting(0), set()),
    (waiting(1), {"silent"}),
    (waiting(1) | instances(), set()),
]


def played(found: Mapping[str, Mapping[str, Any]], seen: list[tuple[dict[str, str], set[str]]], folder: Path) -> str:
    """What promtool says of alerts that rise otherwise; empty for nothing."""
    rules = [{"alert": name, "expr": one["query"], "for": one["duration"]} for name, one in found.items()]
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "google", "rules": rules}]}))
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in happened.items()],
            "alert_rule_test": [
                {"eval_time": f"{_MINUTES}m", "alertname": name, "exp_alerts": [{"exp_labels": labels_of(one)}] if name in rising else []}
                for name, one in found.items()
            ],
        }
        for happened, rising in seen
    ]
    (folder / "tests.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": tests}))
    done = subprocess.run([promtool(), "test", "rules", "tests.yml"], cwd=folder, capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def labels_of(alert: Mapping[str, Any]) -> dict[str, str]:
    """What is absent is told with the labels that it was asked for by."""
    if not alert["query"].startswith("absent_over_time"):
        return {}
    return {"monitored_resource": "cloud_run_revision", "service_name": "consensus-worker"}


def test_each_alert_rises_when_it_should_and_at_no_other_time(tmp_path: Path) -> None:
    assert played(queries(stack("consensus-worker")), SEEN, tmp_path) == ""


def test_a_service_that_may_rest_is_silent_by_right_while_nothing_waits(tmp_path: Path) -> None:
    made = apply("modules/pubsub_cloudrun", {**PUSHED, "subscription": QUEUE, "thresholds": {"backlog": 7}}, tmp_path)
    found = queries(made)
    assert found["backlog"]["query"].endswith("> 7")
    assert played({"silent": found["silent"]}, OF_ONE_THAT_MAY_REST, tmp_path) == ""


def test_wrong_values_are_told_by_name(tmp_path: Path) -> None:
    wrong = {
        "thresholds": {"backlogs": 7},
        "max_instances": 0,
        "ack_deadline_seconds": 5,
        "cloud_sql_instance": "platform",
        "delivery": "pop",
    }
    with pytest.raises(AssertionError) as raised:
        apply("modules/pubsub_cloudrun", {**PUSHED, **wrong}, tmp_path)
    assert [] == [name for name in wrong if f"{name}: expected" not in str(raised.value)]


def test_alerts_read_metrics_that_something_tells_and_name_their_section() -> None:
    made = stack("consensus-worker")
    ours = {re.sub(r"\W", "_", one.values["name"]) for one in made.of("google_logging_metric")}
    told = {_UNDELIVERED, _OLDEST, _INSTANCES} | {f"logging_googleapis_com:user_{name}" for name in ours}
    read = {each.sample.removesuffix("_bucket") for one in queries(made).values() for each in asked(one["query"])}
    assert read == told
    sections = {one.values["documentation"][0]["content"].rpartition("#")[2] for one in made.of("google_monitoring_alert_policy")}
    # A GPU is not to be had there, nor a worker that has cases for people.
    assert sections == {name.lower() for name in ALERTS} - {"laminagpuidle", "laminaescalations"}


def fits(text: str, line: Mapping[str, Any]) -> bool:
    """Whether a filter of Cloud Logging finds a line of ours: fields that are equal to a word, or to one of several."""
    wanted = re.findall(r'jsonPayload\.(\w+)=(\(.+?\)|".+?")', text)
    assert wanted
    return all(str(line.get(field)) in re.findall(r'"(\w+)"', words) for field, words in wanted)


def test_metrics_are_made_of_the_lines_that_the_bridge_writes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = written(capsys)
    made = {one.values["name"].rpartition("/")[2]: one.values for one in stack("consensus-worker").of("google_logging_metric")}
    found = {name: [step for step, line in lines.items() if fits(made[name]["filter"], line)] for name in ("jobs", "job_milliseconds")}
    committed = ["a job with a result", "a job that another program did", "a job that failed"]
    assert found == {"jobs": [*committed, "a message that cannot be read"], "job_milliseconds": committed}
    fields = {extracted[len("EXTRACT(jsonPayload.") : -1] for extracted in made["jobs"]["label_extractors"].values()}
    assert fields == {"outcome", "fallback"} <= lines["a job that another program did"].keys()
    assert made["job_milliseconds"]["value_extractor"] == "EXTRACT(jsonPayload.job_ms)"
    assert all("job_ms" in lines[step] for step in committed)
