from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bridge.envelopes import masstransit, native
from bridge.errors import PermanentError, PoisonError
from bridge.job import Delivery
from bridge.systems.wsi import platform_messages
from bridge.systems.wsi.platform_messages import AnswerNames

MESSAGE = "00c60000-5d1b-0015-2f6c-08dd2b1f3a5c"
CONVERSATION = "00c60000-5d1b-0015-3377-08dd2b1f3a5c"
JOB = "7f1de0a4-58a5-4f53-9d7b-0d5dd47c5b0e"
EVENT = {
    "jobId": JOB,
    "uploadId": "b5a4c7f6-6b0a-4b57-8d3a-0f3c7f3f8f11",
    "tenantId": 7,
    "requestedByUserId": "u",
    "s3Key": "wsi/u/x/a b.svs",
}


def delivery(content: Any, **attributes: str) -> Delivery:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Delivery(source="sqs", queue="q", message_id="m", receipt="r", body=body, attributes=attributes)


def enveloped(event: Any = EVENT, **changes: Any) -> Delivery:
    return delivery(
        {"messageId": MESSAGE, "conversationId": CONVERSATION, "messageType": [platform_messages.REQUESTED], "message": event, **changes}
    )


def test_two_deliveries_of_a_request_are_one_job_however_its_id_is_written() -> None:
    shouted = enveloped({**EVENT, "jobId": JOB.upper()}, messageId="other")

    assert JOB == platform_messages.job_of(enveloped()).key == platform_messages.job_of(shouted).key


def wrapped(content: Any) -> Delivery:
    return delivery({"Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "MessageId": "n", "Message": json.dumps(content)})


def test_a_request_without_a_user_is_one() -> None:
    nobody = {**EVENT, "requestedByUserId": None}

    for message in (enveloped(nobody), delivery(nobody), delivery(native.write(platform_messages.posted_job(nobody)))):
        job = platform_messages.job_of(message)
        assert (JOB, "") == (job.key, platform_messages.request_of(job).requestedbyuserid)


def test_whoever_asks_may_be_a_number_and_other_numbers_may_be_text() -> None:
    request = platform_messages.request_of(platform_messages.job_of(enveloped({**EVENT, "requestedByUserId": 5, "tenantId": "7"})))

    assert ("5", 7) == (request.requestedbyuserid, request.tenantid)


def test_a_plain_request_that_sns_wrapped_is_answered_as_any_plain_one() -> None:
    job = platform_messages.job_of(wrapped(EVENT))

    assert platform_messages.is_request(wrapped(EVENT))
    assert platform_messages.job_of(delivery(EVENT)) == job
    assert "sqs:wsi-jobs-out" == platform_messages.completed(job, "key", AnswerNames())[0].destination


def test_what_a_plain_request_says_beside_its_fields_is_of_no_account() -> None:
    assert platform_messages.job_of(delivery(EVENT)) == platform_messages.job_of(
        delivery({**EVENT, "conversation": 5, "message": "x" * 300, "answer": "event"})
    )


def test_requests_of_the_platform_are_told_from_those_of_others() -> None:
    assert platform_messages.is_request(enveloped())
    assert platform_messages.is_request(delivery(EVENT))
    assert platform_messages.is_request(delivery({name.upper(): value for name, value in EVENT.items()}))
    assert platform_messages.is_request(delivery(b"broken", **{"content-type": masstransit.CONTENT_TYPE}))
    assert not platform_messages.is_request(delivery({"system": "wsi", "key": "k", "request": {"slide_uri": "a"}}))
    assert not platform_messages.is_request(delivery(b"broken"))
    assert not platform_messages.is_request(wrapped("broken"))


def test_only_a_sound_message_of_another_type_is_somebody_elses() -> None:
    assert platform_messages.is_of_another_type(enveloped(messageType=["urn:message:A:B"]))
    assert not platform_messages.is_of_another_type(enveloped())
    assert not platform_messages.is_of_another_type(enveloped(event="broken", messageType=["urn:message:A:B"]))
    assert not platform_messages.is_of_another_type(delivery(EVENT))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({name: value for name, value in EVENT.items() if name != "s3Key"}, "s3key"),
        ({**EVENT, "s3Key": None}, "s3key"),
        ({**EVENT, "s3Key": ""}, "s3key"),
        ({**EVENT, "tenantId": "seven"}, "tenantid"),
        ({**EVENT, "uploadId": None}, "uploadid"),
    ],
)
def test_a_request_that_is_not_right_is_answered_so_that_nobody_waits_for_it(content: dict[str, Any], told: str) -> None:
    job = platform_messages.job_of(enveloped(content))
    with pytest.raises(PermanentError, match=told) as refused:
        platform_messages.request_of(job)

    (event,) = platform_messages.failed(job, str(refused.value), AnswerNames())
    assert "sns:HiveOrders_Api_Shared_Events-WsiAnalysisFailedEvent" == event.destination
    answer = json.loads(event.body)
    assert (JOB, CONVERSATION, MESSAGE) == (answer["message"]["jobId"], answer["conversationId"], answer["initiatorId"])
    assert told in answer["message"]["errorMessage"]
    with pytest.raises(PoisonError, match=told):
        platform_messages.posted_job(content)


def test_a_plain_request_that_is_not_right_is_answered_in_its_own_queue() -> None:
    for told, known in (
        ({"uploadId": 5, "tenantId": None}, {"uploadId": None, "tenantId": None}),
        ({"tenantId": "abc"}, {"uploadId": EVENT["uploadId"], "tenantId": None}),
        ({"uploadId": "no guid"}, {"uploadId": None, "tenantId": 7}),
        ({"s3Key": ""}, {"uploadId": EVENT["uploadId"], "tenantId": 7}),
    ):
        (event,) = platform_messages.failed(platform_messages.job_of(delivery({**EVENT, **told})), "why", AnswerNames())

        assert "sqs:wsi-jobs-out" == event.destination
        assert {"jobId": JOB, **known, "status": "Failed", "errorMessage": "why"} == json.loads(event.body)


@pytest.mark.parametrize("told", ["no guid", None, 5])
def test_a_request_without_an_id_of_its_job_cannot_be_answered(told: object) -> None:
    for message in (enveloped({**EVENT, "jobId": told}), delivery({**EVENT, "jobId": told})):
        with pytest.raises(PoisonError, match="jobid"):
            platform_messages.job_of(message)


def test_what_a_request_says_under_our_own_names_is_of_no_account() -> None:
    assert platform_messages.job_of(enveloped({**EVENT, "refused": "x", "Answer": "ledger"})) == platform_messages.job_of(enveloped())
    assert platform_messages.job_of(delivery({**EVENT, "refused": "x"})) == platform_messages.job_of(delivery(EVENT))


def test_ids_of_the_envelope_that_are_too_long_refuse_no_request() -> None:
    job = platform_messages.job_of(enveloped(conversationId="c" * 5000, messageId="m" * 5000))

    assert "wsi/u/x/a b.svs" == platform_messages.request_of(job).s3key


def test_the_answer_goes_back_the_way_the_request_came() -> None:
    names = AnswerNames(source="amazonsqs://eu-west-1/WsiAnalysisWorker")
    (event,) = platform_messages.completed(platform_messages.job_of(enveloped()), "results/7/x/analysis.json", names)
    told = json.loads(event.body)
    assert "sns:HiveOrders_Api_Shared_Events-WsiAnalysisCompletedEvent" == event.destination
    assert {"Content-Type": "application/vnd.masstransit+json"} == event.attributes
    assert (event.message_id(JOB), CONVERSATION, MESSAGE) == (told["messageId"], told["conversationId"], told["initiatorId"])
    assert "amazonsqs://eu-west-1/HiveOrders_Api_Shared_Events-WsiAnalysisCompletedEvent?type=topic" == told["destinationAddress"]
    assert {"jobId": JOB, "resultS3Key": "results/7/x/analysis.json"} == told["message"]

    (plain,) = platform_messages.failed(platform_messages.job_of(delivery(EVENT)), "why", names)
    assert "sqs:wsi-jobs-out" == plain.destination
    expected = {"jobId": JOB, "uploadId": EVENT["uploadId"], "tenantId": 7, "status": "Failed", "errorMessage": "why"}
    assert expected == json.loads(plain.body)


def test_ids_that_are_none_never_reach_the_platform() -> None:
    (event,) = platform_messages.completed(
        platform_messages.job_of(enveloped(messageId="text", conversationId="text")), "key", AnswerNames()
    )
    told = json.loads(event.body)

    assert (event.message_id(JOB), event.message_id(JOB), None) == (told["messageId"], told["conversationId"], told["initiatorId"])


def test_an_error_is_cut_to_what_the_platform_keeps() -> None:
    (event,) = platform_messages.failed(platform_messages.job_of(enveloped()), "x" * 600, AnswerNames())

    assert 512 == len(json.loads(event.body)["message"]["errorMessage"])


def test_a_request_over_http_travels_in_our_own_envelope_and_is_answered_by_the_ledger() -> None:
    posted = platform_messages.posted_job({**EVENT, "answer": "event"})
    read = platform_messages.job_of(delivery(native.write(posted)))

    assert posted == read
    assert () == platform_messages.completed(read, "key", AnswerNames())


def test_the_answer_tells_the_trace_as_masstransit_does() -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=1"}
    traced, plain = (
        platform_messages.completed(replace(platform_messages.job_of(enveloped()), trace=each), "key", AnswerNames())
        for each in (trace, {})
    )

    assert {"MT-Activity-Id": trace["traceparent"], **trace} == json.loads(traced[0].body)["headers"]
    assert {} == json.loads(plain[0].body)["headers"]
