"""What lies in deploy/cloudrun: it fits the schemas, and the bridge understands its variables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.settings import Settings, load
from bridge.settings_consensus import load_consensus
from bridge.transports.checks import check_one_source, check_pushes
from tests.support.deploy.deploy_tools import deploy_python
from tests.support.deploy.manifests import only_these_variables

CLOUDRUN = Path(__file__).parents[2] / "deploy" / "cloudrun"
# After SIGTERM Cloud Run waits so long, in seconds; and what the bridge needs beside its drain.
KILLED_AFTER, TO_END = 10, 3


def _read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CLOUDRUN / f"{name}.yaml").read_text(encoding="utf-8")))


def _settings(resource: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    [container] = resource["spec"]["template"]["spec"]["containers"]
    only_these_variables(monkeypatch, {entry["name"]: entry.get("value", "sk-secret") for entry in container["env"]})
    return load()


def test_both_are_in_the_forms_of_their_kinds() -> None:
    """Containers are those of a pod, whose schema is at hand; the few fields around them are Knative's and Google's."""
    service, pool = _read("push"), _read("worker")
    assert ("serving.knative.dev/v1", "Service") == (service["apiVersion"], service["kind"])
    assert ("run.googleapis.com/v1", "WorkerPool") == (pool["apiVersion"], pool["kind"])
    specifications = [each["spec"]["template"]["spec"] for each in (service, pool)]
    assert {"serviceAccountName", "containerConcurrency", "timeoutSeconds", "containers"} == set(specifications[0])
    assert {"serviceAccountName", "containers"} == set(specifications[1])
    around = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}
    pods = [{**around, "spec": {"containers": each["containers"]}} for each in specifications]
    assert [] == deploy_python(Path(__file__).with_name("schemas.py"), pods)
    assert "1" == pool["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"]


@pytest.mark.parametrize("name", ["push", "worker"])
def test_runs_are_worked_on_and_kept_in_cloud_sql(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(_read(name), monkeypatch)
    assert load_consensus().served
    assert settings.database == "cloudsql://lamina-consensus%40my-project.iam@my-project:europe-west1:consensus/consensus_engine"
    assert settings.drain_seconds + TO_END <= KILLED_AFTER
    assert settings.concurrency == 10


def test_the_worker_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(_read("worker"), monkeypatch)
    assert ("consensus-engine-jobs-sub",) == settings.pubsub_subscriptions
    assert not settings.pubsub_push_audience


def test_the_service_is_pushed_to_and_takes_no_other_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    service = _read("push")
    settings = _settings(service, monkeypatch)
    assert () == settings.pubsub_subscriptions
    audiences = json.loads(service["metadata"]["annotations"]["run.googleapis.com/custom-audiences"])
    assert [settings.pubsub_push_audience] == audiences
    assert settings.pubsub_push_account
    assert service["metadata"]["annotations"]["run.googleapis.com/ingress"] == "internal"
    template = service["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert ("false", "1") == (annotations["run.googleapis.com/cpu-throttling"], annotations["autoscaling.knative.dev/minScale"])
    [container] = template["spec"]["containers"]
    assert settings.http == f"0.0.0.0:{container['ports'][0]['containerPort']}"
    check_one_source(settings)
    check_pushes(settings)
