"""Whatever happens to a bridge, at whatever step, on whatever source: each job ends once, and nothing is lost.

One test is one fault; sources and steps are its subtests, played several at once, as most of the time is waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.job import Event
from bridge.steps import Step
from tests.support.bridge.faults import FAULTS, Fault
from tests.support.bridge.sources.kinds import SOURCES
from tests.support.bridge.trial_stage import POISON, REQUESTS, Aftermath, open_stage

pytestmark = pytest.mark.timeout(600)
# Enough to keep the processors busy while leases run out.
_AT_ONCE = 6

# The state that each job ends in, and the attempts that its own failures cost: what happens to bridges costs none.
EXPECTED = dict.fromkeys(REQUESTS, ("succeeded", 0)) | {"flaky": ("succeeded", 1), "broken": ("failed", 0)}
# Those of one line are of one kind.
_KINDS = list(dict.fromkeys(fault.line or name for name, fault in FAULTS.items()))


def _exposed(fault: Fault) -> list[str]:
    """The sources that a fault can happen to."""
    return [name for name, kind in SOURCES.items() if not fault.line or fault.line in kind.lines]


def _trials(fault: str, *, all_of_them: bool) -> Iterator[tuple[str, Step]]:
    """A fault on each source that it can happen to, at all steps, or at its share of them: faults of a line share with each other."""
    alike = [other for other in FAULTS if other == fault or (FAULTS[fault].line and FAULTS[other].line == FAULTS[fault].line)]
    cases = [(source, other) for source in _exposed(FAULTS[fault]) for other in alike]
    # Each step is of as many cases as the fault says, and each case has a step.
    shares = min(len(cases) // FAULTS[fault].sources_a_step, len(Step))
    for place, (source, other) in enumerate(cases):
        if other == fault:
            yield from ((source, step) for number, step in enumerate(Step) if all_of_them or number % shares == place % shares)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda name: name.replace(" ", "-"))
async def test_nothing_is_lost_and_nothing_is_done_twice(
    request: pytest.FixtureRequest, subtests: pytest.Subtests, tmp_path: Path, fault: str
) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def play(source: str, step: Step) -> Aftermath | Exception:
        folder = tmp_path / f"{source} {step}".replace(" ", "-")
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

    trials = list(_trials(fault, all_of_them=request.config.getoption("whole_matrix")))
    for (source, step), after in zip(trials, await asyncio.gather(*(play(*trial) for trial in trials)), strict=True):
        with subtests.test(source=source, step=step.value):
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


@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_of_fault_happens_at_every_step(kind: str) -> None:
    faults = [fault for fault in FAULTS if kind in {fault, FAULTS[fault].line}]
    played = Counter(step for fault in faults for _, step in _trials(fault, all_of_them=False))

    assert set(Step) == set(played)
    assert FAULTS[faults[0]].sources_a_step <= min(played.values())


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_happens_on_every_source_that_it_can_happen_to(fault: str) -> None:
    assert set(_exposed(FAULTS[fault])) == {source for source, _ in _trials(fault, all_of_them=False)}
    assert len(_exposed(FAULTS[fault])) * len(Step) == len(list(_trials(fault, all_of_them=True)))
