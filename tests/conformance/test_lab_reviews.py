"""What every ledger's database keeps of lab tests' names that a person is to look at."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridge.errors import LeaseLostError, PermanentError
from bridge.inference.labs import Alias, LabClassification, LabTest, LoincCandidate, MatchStatus
from bridge.job import Job, Outcome
from bridge.ledger.port import Claim
from bridge.records.lab_reviews import LabReviews, ReviewState
from bridge.store import Store


def printed(name: str, unit: str = "", specimen: str = "") -> LabTest:
    return LabTest(id="1", name=name, unit=unit, specimen=specimen)


def answer(status: MatchStatus = MatchStatus.NEEDS_REVIEW, *codes: str) -> LabClassification:
    candidates = tuple(
        LoincCandidate(code=code, long_common_name=f"name of {code}", component="", system="", score=0.5, reasons=("unit",))
        for code in codes
    )
    return LabClassification(id="1", category="Others", category_confidence=0.5, status=status, candidates=candidates, explanation="")


async def waiting(reviews: LabReviews) -> Sequence[tuple[str, int]]:
    return [(each.name, each.seen) for each in await reviews.waiting(ReviewState.OPEN, limit=100)]


async def test_only_names_whose_code_is_not_believed_wait_and_the_most_printed_is_first(store: Store) -> None:
    reviews = LabReviews(store.database)
    tests = [printed("Gula A"), printed("Hb"), printed("GULA  a"), printed("Tidak ada"), printed("Gula A", "mg/dL")]
    answers = [answer(), answer(MatchStatus.MATCHED, "718-7"), answer(MatchStatus.NEEDS_REVIEW, "2345-7"), answer(MatchStatus.NO_MATCH)]

    await reviews.note(tests, [*answers, answer()], catalogue="loinc:1")

    assert {("GULA  a", 2), ("Tidak ada", 1), ("Gula A", 1)} == set(await waiting(reviews))
    [first, *_] = await reviews.waiting(ReviewState.OPEN, limit=1)
    assert (first.seen, first.catalogue) == (2, "loinc:1")
    assert [(each.code, each.name, each.score, each.reasons) for each in first.candidates] == [("2345-7", "name of 2345-7", 0.5, ["unit"])]


async def test_names_are_noted_in_the_transaction_that_ends_their_job_and_in_no_other(store: Store) -> None:
    reviews = LabReviews(store.database)
    job = Job(key="job", system="labs", request={})
    lost = await store.ledger.claim(job, worker="one", lease_seconds=-1)
    claim = await store.ledger.claim(job, worker="two", lease_seconds=60)
    assert isinstance(lost, Claim)
    assert isinstance(claim, Claim)
    outcome = Outcome(succeeded=True, result={}, writes=reviews.noted([printed("Gula A")], [answer()], catalogue="loinc:1"))

    with pytest.raises(LeaseLostError):
        await store.ledger.finish(lost, outcome)
    assert await waiting(reviews) == []
    await store.ledger.finish(claim, outcome)
    assert await waiting(reviews) == [("Gula A", 1)]


async def test_what_is_decided_stays_so_and_can_be_corrected(store: Store) -> None:
    reviews = LabReviews(store.database)
    await reviews.note([printed("Gula A", "mg/dL", "Serum")], [answer(MatchStatus.NEEDS_REVIEW, "2345-7")], catalogue="loinc:1")
    [found] = await reviews.waiting(ReviewState.OPEN, limit=10)

    await reviews.decide(found, state=ReviewState.ACCEPTED, code="2345-7", by="ana")
    await reviews.note([printed("GULA A", "mg/dl", "serum")], [answer()], catalogue="loinc:2")

    assert await waiting(reviews) == []
    kept = await reviews.find(found.id[:4])
    assert (kept.state, kept.code, kept.decided_by, kept.seen) == (ReviewState.ACCEPTED, "2345-7", "ana", 1)
    await reviews.decide(kept, state=ReviewState.CORRECTED, code="1558-6", by="")
    assert await reviews.decided() == [Alias(name="Gula A", code="1558-6", unit="mg/dL", specimen="Serum")]


async def test_every_decision_is_told_however_many_there_are(store: Store) -> None:
    reviews = LabReviews(store.database)
    await reviews.note([printed(f"Test {number}") for number in range(1200)], [answer()] * 1200, catalogue="loinc:1")
    for found in await reviews.waiting(ReviewState.OPEN, limit=1100):
        await reviews.decide(found, state=ReviewState.CORRECTED, code="718-7", by="")

    assert len({alias.name for alias in await reviews.decided()}) == 1100


@pytest.mark.parametrize("start", ["", "zzzz"])
async def test_an_id_that_names_no_single_name_is_told(store: Store, start: str) -> None:
    reviews = LabReviews(store.database)
    await reviews.note([printed("a"), printed("b")], [answer(), answer()], catalogue="loinc:1")

    with pytest.raises(PermanentError, match="bridge labs review list"):
        await reviews.find(start)
