"""Golden messages of MassTransit, written from its documents."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.envelopes import masstransit
from bridge.envelopes.masstransit import SentEnvelope
from bridge.errors import PoisonError

URN = "urn:message:HiveOrders.Api.Shared.Events:WsiAnalysisRequestedEvent"
EVENT = {
    "jobId": "7f1de0a4-58a5-4f53-9d7b-0d5dd47c5b0e",
    "uploadId": "b5a4c7f6-6b0a-4b57-8d3a-0f3c7f3f8f11",
    "tenantId": 7,
    "requestedByUserId": "auth0|1",
    "s3Key": "wsi/auth0_1/0123456789abcdef0123456789abcdef/slide.svs",
}
GOLDEN: dict[str, Any] = {
    "messageId": "00c60000-5d1b-0015-2f6c-08dd2b1f3a5c",
    "requestId": None,
    "correlationId": None,
    "conversationId": "00c60000-5d1b-0015-3377-08dd2b1f3a5c",
    "initiatorId": None,
    "sourceAddress": "amazonsqs://eu-west-1/API_bus_xyz?durable=false&autodelete=true",
    "destinationAddress": "amazonsqs://eu-west-1/HiveOrders_Api_Shared_Events-WsiAnalysisRequestedEvent?type=topic",
    "responseAddress": None,
    "faultAddress": None,
    "messageType": [URN],
    "message": EVENT,
    "expirationTime": None,
    "sentTime": "2026-03-01T10:11:12.1314151Z",
    "headers": {},
    "host": {"machineName": "api-1", "processName": "HiveOrders.Api", "massTransitVersion": "8.3.4.0"},
}
LOWERED = {name.lower(): value for name, value in EVENT.items()}


def _bytes(content: Any) -> bytes:
    return json.dumps(content).encode()


def _without(*names: str, **more: Any) -> dict[str, Any]:
    return {**{name: value for name, value in GOLDEN.items() if name not in names}, **more}


def _wrapped(content: Any) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "MessageId": "sns", "Message": json.dumps(content)}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(GOLDEN, id="as MassTransit sends it"),
        pytest.param({name[:1].upper() + name[1:]: value for name, value in GOLDEN.items()}, id="names in Pascal case"),
        pytest.param({name.upper(): value for name, value in GOLDEN.items()}, id="names in capitals"),
        pytest.param(_without("message", message={name.capitalize(): value for name, value in EVENT.items()}), id="event cased otherwise"),
        pytest.param(_without("message", payload=EVENT), id="event under payload"),
        pytest.param(_without("messageType", messageType=URN), id="one type, no list"),
        pytest.param(_without("host", "headers", "sentTime", "requestId"), id="only what is needed"),
        pytest.param(_wrapped(GOLDEN), id="wrapped by SNS"),
    ],
)
def test_every_form_of_a_message_is_read_as_the_same(content: dict[str, Any]) -> None:
    read = masstransit.read(_bytes(content))

    assert (GOLDEN["messageId"], GOLDEN["conversationId"]) == (read.message_id, read.conversation_id)
    assert LOWERED == read.event
    assert read.is_of(URN)
    assert not read.is_of(URN.replace("Requested", "Completed"))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<xml/>", "not JSON"),
        (b"[]", "no JSON object"),
        (_bytes(_without("message")), "no event under `message`"),
        (_bytes(_without("message", message="text")), "no event under `message`"),
        (_bytes(_without("messageType", messageType=5)), "no list of names"),
        (_bytes({**_wrapped(GOLDEN), "Message": "plain text"}), "not JSON"),
    ],
)
def test_what_is_no_message_is_told_with_what_was_expected(body: bytes, told: str) -> None:
    with pytest.raises(PoisonError, match=f"{told}.*expected"):
        masstransit.read(body)


def test_a_message_is_known_by_its_content_type_or_its_names() -> None:
    assert masstransit.is_enveloped(b"broken", {"Content-Type": masstransit.CONTENT_TYPE})
    assert masstransit.is_enveloped(_bytes(GOLDEN), {})
    assert masstransit.is_enveloped(_bytes(_wrapped(GOLDEN)), {})
    assert not masstransit.is_enveloped(_bytes(EVENT), {})
    assert not masstransit.is_enveloped(b'{"system": "wsi", "key": "k", "request": {}}', {})
    assert not masstransit.is_enveloped(b"broken", {})


def test_a_message_is_written_in_the_strict_form() -> None:
    sent = SentEnvelope(
        message_id="0f1e2d3c-0000-5000-8000-000000000001",
        conversation_id="00c60000-5d1b-0015-3377-08dd2b1f3a5c",
        initiator_id="",
        source="amazonsqs://eu-west-1/WsiAnalysisWorker",
        destination="amazonsqs://eu-west-1/T?type=topic",
        type="urn:message:A:B",
        event={"jobId": "j"},
    )
    written = json.loads(masstransit.write(sent, sent_at=datetime(2026, 3, 1, 10, 11, 12, 131415, tzinfo=UTC)))

    host = written.pop("host")
    assert {
        "messageId": "0f1e2d3c-0000-5000-8000-000000000001",
        "requestId": None,
        "correlationId": None,
        "conversationId": "00c60000-5d1b-0015-3377-08dd2b1f3a5c",
        "initiatorId": None,
        "sourceAddress": "amazonsqs://eu-west-1/WsiAnalysisWorker",
        "destinationAddress": "amazonsqs://eu-west-1/T?type=topic",
        "responseAddress": None,
        "faultAddress": None,
        "messageType": ["urn:message:A:B"],
        "message": {"jobId": "j"},
        "expirationTime": None,
        "sentTime": "2026-03-01T10:11:12.131Z",
        "headers": {},
    } == written
    assert "lamina" == host["machineName"]


def test_a_republished_message_differs_in_its_id_alone_and_twice_is_once() -> None:
    message_id, body = masstransit.republished(_bytes(GOLDEN))

    assert {**GOLDEN, "messageId": message_id} == json.loads(body)
    assert GOLDEN["messageId"] != message_id
    assert (message_id, body) == masstransit.republished(_bytes(GOLDEN))


def test_a_fault_names_the_message_and_why_it_failed() -> None:
    fault = json.loads(
        masstransit.fault(masstransit.read(_bytes(GOLDEN)), message_id="f", source="queue:q", destination="queue:f", reason="x" * 600)
    )

    assert ["urn:message:MassTransit:Fault[[HiveOrders.Api.Shared.Events:WsiAnalysisRequestedEvent]]"] == fault["messageType"]
    assert (GOLDEN["messageId"], [URN], LOWERED) == (
        fault["message"]["faultedMessageId"],
        fault["message"]["faultMessageTypes"],
        fault["message"]["message"],
    )
    assert 512 == len(fault["message"]["exceptions"][0]["message"])


def test_the_headers_of_an_error_are_one_line_and_bounded() -> None:
    told = masstransit.error_attributes("why\nnot " + "x" * 600, queue="q")

    assert ("fault", "why not x", 512) == (told["MT-Reason"], told["MT-Fault-Message"][:9], len(told["MT-Fault-Message"]))
