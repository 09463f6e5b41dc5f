"""Variables under the names that other systems have given them."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigurationError
from bridge.settings import load
from bridge.transports.aws import aws_access, object_options, topology, wsi_source


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "BRIDGE_AWS_REGION", "BRIDGE_INFERENCE", "BRIDGE_DATABASE"):
        monkeypatch.delenv(name, raising=False)


def test_the_platforms_variables_are_read_in_any_casing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS__Region": "eu-west-1",
        "AWS__SERVICEURL": "http://localstack:4566",
        "aws__accesskey": "key",
        "AWS__SecretKey": "secret",
        "AWS__Scope": "hive-orders",
        "AWS__S3__BucketName": "uploads",
        "AWS__S3__Region": "eu-central-1",
        "Wsi__InferenceServiceUrl": "http://inference:8001/",
        "ConnectionStrings__DefaultConnection": "Host=db;Database=orders;Username=bridge",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load(sqs_queues=("WsiAnalysisWorker",))

    access = aws_access(settings)
    assert ("eu-west-1", "http://localstack:4566", ("key", "secret")) == (access.region, access.endpoint, access.keys)
    assert ("inference:8001", "uploads") == (settings.inference, settings.wsi_bucket)
    assert "Host=db;Database=orders;Username=bridge" == settings.database
    assert "amazonsqs://localhost/WsiAnalysisWorker" == wsi_source(settings)
    assert "amazonsqs://eu-west-1/hive-orders/WsiAnalysisWorker" == wsi_source(load(sqs_queues=("WsiAnalysisWorker",), aws_endpoint=""))
    assert "eu-central-1" == object_options(settings)["region"]


def test_our_own_variables_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS__Region", "eu-west-1")
    monkeypatch.setenv("BRIDGE_AWS_REGION", "us-west-2")

    assert "us-west-2" == load().aws_region
    assert "ap-south-1" == load(aws_region="ap-south-1").aws_region


def test_an_emulator_gets_keys_that_are_made_up_and_aws_none() -> None:
    assert ("test", "test") == aws_access(load(aws_endpoint="http://localhost:4566")).keys
    assert ("", "") == aws_access(load()).keys


@pytest.mark.parametrize(("ours", "tls"), [("", True), ("false", False)])
def test_an_address_of_https_asks_for_tls_unless_ours_says_otherwise(monkeypatch: pytest.MonkeyPatch, ours: str, tls: bool) -> None:
    monkeypatch.setenv("Wsi__InferenceServiceUrl", "HTTPS://inference:8443/")
    if ours:
        monkeypatch.setenv("BRIDGE_INFERENCE_TLS", ours)

    assert ("inference:8443", tls) == (load().inference, load().inference_tls)


def test_a_bad_value_names_every_variable_that_may_have_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Wsi__InferenceServiceUrl", "http://nowhere")

    with pytest.raises(ConfigurationError, match=r"BRIDGE_INFERENCE: 'nowhere' is not host:port.*Wsi__InferenceServiceUrl"):
        load()


def test_the_topology_is_what_the_settings_need() -> None:
    plain = topology(load(sqs_queues=("urgent", "jobs"), results_queue="answers"))
    assert (["urgent", "jobs"], ["answers"], []) == (list(plain.queues), list(plain.outputs), list(plain.topics))

    platform = topology(load(sqs_queues=("wsi-jobs-in", "WsiAnalysisWorker"), wsi_bucket="uploads"))
    assert {"WsiAnalysisWorker": ["HiveOrders_Api_Shared_Events-WsiAnalysisRequestedEvent"]} == platform.subscriptions
    assert ["wsi-jobs-out", "results"] == list(platform.outputs)
    assert 3 == len(platform.topics)
