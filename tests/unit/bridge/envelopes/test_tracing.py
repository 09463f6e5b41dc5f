from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.envelopes import tracing
from bridge.job import Delivery

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = {"traceparent": PARENT}


def _delivery(body: Any = b"{}", **attributes: str) -> Delivery:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(source="sqs", queue="jobs", message_id="1", receipt="1", body=encoded, attributes=attributes)


@pytest.mark.parametrize(
    "delivery",
    [
        _delivery(traceparent=PARENT),
        _delivery(TraceParent=PARENT),
        _delivery(**{"MT-Activity-Id": PARENT}),
        _delivery(googclient_traceparent=PARENT),
        _delivery(googclient_OpenTelemetryTraceContext=PARENT),
        _delivery(googclient_OpenTelemetryTraceContext=json.dumps({"traceId": PARENT[3:35], "spanId": PARENT[36:52], "traceFlags": 1})),
        _delivery({"messageId": "1", "message": {}, "headers": {"MT-Activity-Id": PARENT}}),
        _delivery({"messageId": "1", "message": {}, "Headers": {"traceparent": PARENT}}),
        _delivery({"system": "labs", "key": "1", "request": {}, "traceparent": PARENT}),
        _delivery({"TopicArn": "a", "Message": "{}", "MessageAttributes": {"traceparent": {"Type": "String", "Value": PARENT}}}),
        _delivery({"TopicArn": "a", "Message": json.dumps({"message": {}, "headers": {"MT-Activity-Id": PARENT}})}),
        _delivery({"traceparent": PARENT}, traceparent="nonsense"),
    ],
)
def test_a_trace_is_found_wherever_its_sender_has_put_it(delivery: Delivery) -> None:
    assert TRACE == tracing.read(delivery)


def test_the_state_comes_along() -> None:
    state = {**TRACE, "tracestate": "vendor=1"}
    assert state == tracing.read(_delivery(**state))
    assert state == tracing.read(_delivery(googclient_traceparent=PARENT, googclient_tracestate="vendor=1"))
    assert state == tracing.read(_delivery({"key": "1", **state}))
    assert TRACE == tracing.read(_delivery(traceparent=PARENT, tracestate="not\nright"))


@pytest.mark.parametrize(
    "delivery",
    [
        _delivery(),
        _delivery(b"\xff traceparent"),
        _delivery([PARENT, "traceparent"]),
        _delivery({"request": {"traceparent": PARENT}}),
        _delivery({"headers": {"traceparent": 7}, "traceparent": None}),
        _delivery(traceparent="ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        _delivery(traceparent="00-00000000000000000000000000000000-b7ad6b7169203331-01"),
        _delivery(traceparent="00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"),
        _delivery(traceparent=PARENT.upper()),
        _delivery(**{"MT-Activity-Id": "|7d2f.1."}),
        _delivery(googclient_OpenTelemetryTraceContext="{}"),
    ],
)
def test_what_is_no_trace_is_none_and_breaks_nothing(delivery: Delivery) -> None:
    assert {} == tracing.read(delivery)


def test_masstransit_is_told_under_its_own_name() -> None:
    assert {"MT-Activity-Id": PARENT, "traceparent": PARENT} == tracing.headers(TRACE)
    assert {} == tracing.headers({})
