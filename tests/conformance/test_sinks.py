"""What every sink does."""

from __future__ import annotations

from bridge.job import Message
from tests.conformance.conftest import SinkAtHand


def _message(message_id: str, *, destination: str = "", body: bytes = b"{}") -> Message:
    return Message(
        message_id=message_id,
        job_key="job",
        type="completed",
        destination=destination,
        body=body,
        attributes={"content-type": "application/json"},
    )


async def test_a_message_arrives_whole_under_its_id(sink_at_hand: SinkAtHand) -> None:
    await sink_at_hand.sink.send(_message("id-1", body=b'{"text": "\xc2\xb5mol"}'))

    assert [("id-1", b'{"text": "\xc2\xb5mol"}')] == list(await sink_at_hand.arrived(""))


async def test_a_message_goes_where_it_is_meant_to_go(sink_at_hand: SinkAtHand) -> None:
    await sink_at_hand.sink.send(_message("id-1", destination="answers"))

    assert ["id-1"] == [message_id for message_id, _ in await sink_at_hand.arrived("answers")]
    assert not await sink_at_hand.arrived("")


async def test_a_message_sent_twice_is_kept_once(sink_at_hand: SinkAtHand) -> None:
    await sink_at_hand.sink.send(_message("id-1"))
    await sink_at_hand.sink.send(_message("id-1"))
    await sink_at_hand.sink.send(_message("id-2"))

    assert ["id-1", "id-2"] == [message_id for message_id, _ in await sink_at_hand.arrived("")]
