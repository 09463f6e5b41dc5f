"""Whatever happens to a bridge, at whatever step, on whatever source: each job ends once, and nothing is lost.

One test is one source and one fault; the steps are its subtests, played several at once, as most of the time is waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bridge.job import Event
from bridge.steps import Step
from tests.support.faults import FAULTS, Fault
from tests.support.sources.kinds import SOURCES
from tests.support.trial_stage import POISON, REQUESTS, Aftermath, open_stage

pytestmark = pytest.mark.timeout(600)
# Enough to keep the processors busy while leases run out.
_AT_ONCE = 6

# The state that each job ends in, and the attempts that its own failures cost: what happens to bridges costs none.
EXPECTED = dict.fromkeys(REQUESTS, ("succeeded", 0)) | {"flaky": ("succeeded", 1), "broken": ("failed", 0)}


def _cases() -> Iterator[tuple[str, str]]:
    for fault in FAULTS:
        yield from ((source, fault) for source in _exposed(FAULTS[fault]))


def _exposed(fault: Fault) -> list[str]:
    """The sources that a fault can happen to."""
    return [name for name, kind in SOURCES.items() if not fault.line or fault.line in kind.lines]


def _steps(source: str, fault: Fault, *, all_of_them: bool) -> Sequence[Step]:
    """Every step, or this source's share of them: between them the sources have every step."""
    if all_of_them or fault.everywhere:
        return list(Step)
    sources = _exposed(fault)
    return [step for number, step in enumerate(Step) if number % len(sources) == sources.index(source)]


@pytest.mark.parametrize(("source", "fault"), list(_cases()), ids=lambda name: name.replace(" ", "-"))
async def test_nothing_is_lost_and_nothing_is_done_twice(
    request: pytest.FixtureRequest, subtests: pytest.Subtests, tmp_path: Path, source: str, fault: str
) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def play(step: Step) -> Aftermath | Exception:
        folder = tmp_path / step.value
        folder.mkdir()
        async with turns:
            try:
                async with open_stage(SOURCES[source], request.getfixturevalue, folder, step=step, faulty=FAULTS[fault].line) as stage:
                    await FAULTS[fault].happen(stage)
                    await stage.until_done()
                    await stage.stop()
                    return await stage.aftermath()
            except Exception as error:
                return error

    steps = _steps(source, FAULTS[fault], all_of_them=request.config.getoption("whole_matrix"))
    for step, after in zip(steps, await asyncio.gather(*map(play, steps)), strict=True):
        with subtests.test(step=step.value):
            if isinstance(after, Exception):
                raise after
            _judge(after, FAULTS[fault])


def _judge(after: Aftermath, fault: Fault) -> None:
    assert fault.statuses == tuple(after.statuses)
    assert EXPECTED == {key: (record.state.value, record.attempts) for key, record in after.jobs.items()}
    expected = {key: "completed" if state == "succeeded" else "failed" for key, (state, _) in EXPECTED.items()}
    ids = {(key, Event(type=kind, destination="", body=b"").message_id(key)) for key, kind in expected.items()}
    assert ids == {(body["job"], message_id) for message_id, body in after.arrived}, "each job has one message id, that of its key"
    ends = {str(body) for _, body in after.arrived}
    assert len(EXPECTED) == len(ends), "a message that came twice says the same both times: the job ended once"
    assert (0, 0) == (after.waiting, after.unsent)
    [long] = [body for _, body in {message_id: (message_id, body) for message_id, body in after.arrived}.values() if body["job"] == "long"]
    assert 8 == long["resumed_at"] + long["computed"], "no part was skipped, and what was saved is not done again"
    assert {("", POISON)} == {(letter.job_key, letter.body) for letter in after.letters if letter.job_key != "broken"}
    assert {"", "broken"} == {letter.job_key for letter in after.letters}
    assert after.put_aside is None or {POISON} == set(after.put_aside)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_sources_share_all_steps_between_them(fault: str) -> None:
    shares = [_steps(source, FAULTS[fault], all_of_them=False) for source in _exposed(FAULTS[fault])]

    assert set(Step) == {step for share in shares for step in share}
