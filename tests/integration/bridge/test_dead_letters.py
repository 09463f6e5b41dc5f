"""Dead letters of the ledger, sent again over a crash."""

from __future__ import annotations

from pathlib import Path

from bridge.job import Delivery
from bridge.settings import load
from bridge.store import open_store
from bridge.transports.sending import resend_letter
from tests.support.trial_bridge import trial_settings


def _poison() -> Delivery:
    return Delivery(source="local", queue="jobs", message_id="m-1", receipt="r", body=b"?", attributes={"kind": "test"})


async def test_a_replay_that_is_cut_off_before_it_is_noted_and_done_again_is_one_message(tmp_path: Path) -> None:
    settings = load(**trial_settings(tmp_path))
    async with open_store(settings) as store:
        await store.dead_letters.bury(_poison(), reason="cannot be read")
        [letter] = await store.dead_letters.list()
        await resend_letter(settings, letter, database=store.database)  # and the process is gone

        await store.replay(letter.id)

        [lying] = await store.queue.peek()
        assert (b"?", {"kind": "test"}) == (lying.body, lying.attributes)
        assert "m-1" != lying.message_id, "the first message may still be on its way off the queue"


async def test_a_letter_that_was_replayed_can_be_replayed_once_more(tmp_path: Path) -> None:
    async with open_store(load(**trial_settings(tmp_path))) as store:
        await store.dead_letters.bury(_poison(), reason="cannot be read")
        [letter] = await store.dead_letters.list()
        for _ in range(2):
            await store.replay(letter.id)

        assert 2 == len(await store.queue.peek())
