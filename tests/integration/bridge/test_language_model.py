"""The language model's client against a real HTTP server that fails in every way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import structlog
from pydantic import BaseModel

from bridge.breaker import Breaker
from bridge.errors import BridgeError, ConfigurationError, OverloadError, PermanentError, TransientError
from bridge.llm.limits import RateLimits
from bridge.llm.port import Meter, Question
from bridge.llm.responses import CallPolicy, ResponsesModel, strict_schema
from bridge.systems.consensus.schemas import ExpandedProposal, PersonaReview
from tests.support.moved_clock import moved_clock
from tests.support.servers.language_model import KEY, TOKENS, Call, FakeLanguageModel, Fault, fake_language_model

QUICK = CallPolicy(tries=3, wait=0.01, seconds=60.0, prices={"gpt-5.1": (1.0, 10.0)})


@pytest.fixture
def service() -> Iterator[FakeLanguageModel]:
    with fake_language_model() as running:
        yield running


@pytest.fixture
async def model_of(service: FakeLanguageModel) -> AsyncIterator[Callable[..., ResponsesModel]]:
    made: list[ResponsesModel] = []

    def make(
        *, url: str = "", policy: CallPolicy = QUICK, limits: RateLimits | None = None, breaker: Breaker | None = None
    ) -> ResponsesModel:
        made.append(ResponsesModel(api_key=KEY, base_url=url or service.url, policy=policy, limits=limits, breaker=breaker))
        return made[-1]

    yield make
    for model in made:
        await model.close()


Models = Callable[..., ResponsesModel]


def question(text: str = "idea 1") -> Question[ExpandedProposal]:
    return Question(model="gpt-5.1", temperature=0.7, instructions="Expand it.", input=text, answer=ExpandedProposal)


def failing(*faults: Fault) -> Callable[[Call], Fault]:
    left = list(faults)
    return lambda _call: left.pop(0) if left else None


async def test_a_question_goes_out_as_the_platform_sends_it_and_comes_back_in_shape(service: FakeLanguageModel, model_of: Models) -> None:
    meter = Meter()
    answer = await model_of().ask(question(), meter)

    [call] = service.calls
    assert answer.value.problem_statement == "The problem of idea 1"
    assert answer.model == "gpt-5.1"
    assert answer.response_id.startswith("resp_")
    assert call.authorization == f"Bearer {KEY}"
    shape = call.body.pop("text")["format"]
    assert call.body == {"model": "gpt-5.1", "instructions": "Expand it.", "input": "idea 1", "temperature": 0.7}
    assert (shape["type"], shape["strict"], shape["name"]) == ("json_schema", True, "ExpandedProposal")
    assert shape["schema"]["additionalProperties"] is False
    assert set(shape["schema"]["required"]) == set(shape["schema"]["properties"]) == set(ExpandedProposal.model_fields)
    assert meter.facts() == {"calls": 1, **TOKENS, "cost_usd": pytest.approx((100 * 1 + 50 * 10) / 1e6)}


async def test_the_schema_of_a_review_bounds_the_score_and_refers_to_its_parts(service: FakeLanguageModel, model_of: Models) -> None:
    asked = Question(model="m", temperature=0.2, instructions="You are Critic (persona_id critic).", input="idea 1", answer=PersonaReview)
    await model_of().ask(asked, Meter())

    schema = service.calls[0].body["text"]["format"]["schema"]
    free = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    effort, risk, metadata = (schema["properties"][name] for name in ("estimated_effort", "dependency_risks", "internal_metadata"))
    # Nothing could be said in a closed object instead of a text.
    assert ["string"] == [choice["type"] for choice in effort["anyOf"]] == [choice["type"] for choice in risk["items"]["anyOf"]]
    assert free == metadata["anyOf"][0]
    assert (schema["properties"]["confidence_score"]["minimum"], schema["properties"]["confidence_score"]["maximum"]) == (0, 1)
    assert {"BlockingIssue", "Concern"} <= schema["$defs"].keys()


def test_values_of_a_type_under_free_names_are_no_shape_of_an_answer() -> None:
    class Scores(BaseModel):
        scores: dict[str, float]

    with pytest.raises(TypeError, match="give it properties"):
        strict_schema(Scores)


@pytest.mark.parametrize(
    "fault",
    [429, 500, 503, 408, "cut", "not json", "wrong shape", "empty", "slow", "truncated", "refusal", "no output", "odd parts", "bare"],
)
async def test_what_may_go_better_is_tried_again(
    service: FakeLanguageModel, model_of: Models, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.faults = failing(fault)
    clock = moved_clock(monkeypatch)
    service.while_slow = lambda: clock.sleep(QUICK.seconds + 1)

    answer = await model_of().ask(question(), Meter())

    assert answer.value.title == "A title"
    assert len(service.calls) == 2


@pytest.mark.parametrize(
    ("fault", "error", "code", "tries"),
    [
        (500, TransientError, "LLM_SERVICE_ERROR", 3),
        ("cut", OverloadError, "LLM_CONNECTION_ERROR", 3),
        ("slow", TransientError, "LLM_TIMEOUT", 3),
        (429, OverloadError, "LLM_RATE_LIMIT", 3),
        ("wrong shape", TransientError, "SCHEMA_VALIDATION_ERROR.*problem_statement", 3),
        ("refusal", TransientError, "SCHEMA_VALIDATION_ERROR: the answer is empty, or a refusal", 3),
        ("truncated", TransientError, "SCHEMA_VALIDATION_ERROR: the answer is incomplete", 3),
        ("quota", OverloadError, "LLM_RATE_LIMIT", 1),
        (401, ConfigurationError, "LLM_AUTH_ERROR.*OPENAI_API_KEY", 1),
        (400, PermanentError, "LLM_SERVICE_ERROR: 400", 1),
    ],
)
async def test_what_does_not_go_better_is_told_for_what_it_is(
    service: FakeLanguageModel,
    model_of: Models,
    fault: Fault,
    error: type[BridgeError],
    code: str,
    tries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service.faults = lambda _call: fault
    clock = moved_clock(monkeypatch)
    service.while_slow = lambda: clock.sleep(QUICK.seconds + 1)

    with pytest.raises(error, match=code):
        await model_of().ask(question(), Meter())

    assert len(service.calls) == tries


async def test_answers_of_the_wrong_shape_are_paid_for_and_counted(service: FakeLanguageModel, model_of: Models) -> None:
    service.faults = failing("wrong shape", 500, None)
    meter = Meter()

    await model_of().ask(question(), meter)

    assert (meter.calls, meter.tokens) == (2, 300)


async def test_a_service_that_is_not_there_is_waited_for(model_of: Models) -> None:
    with pytest.raises(OverloadError, match="OPENAI_BASE_URL"):
        await model_of(url="http://127.0.0.1:9/v1").ask(question(), Meter())


async def test_retry_after_in_seconds_is_honoured(service: FakeLanguageModel, model_of: Models) -> None:
    service.faults, service.retry_after = failing(429), "1"

    await model_of().ask(question(), Meter())

    first, second = service.calls
    assert second.at - first.at >= 1.0


async def test_retry_after_as_a_date_is_honoured_and_a_long_one_gives_the_job_back(service: FakeLanguageModel, model_of: Models) -> None:
    service.faults = failing(429)
    service.retry_after = format_datetime(datetime.now(tz=UTC) + timedelta(seconds=300), usegmt=True)

    with pytest.raises(OverloadError) as refused:
        await model_of().ask(question(), Meter())

    assert 200 < refused.value.retry_after <= 300
    assert len(service.calls) == 1


@pytest.mark.parametrize(("told", "kept"), [("120", 120), ("inf", 600), ("1e9", 600), ("-5", 1), ("nan", 1), ("soon", 1)])
async def test_how_long_a_service_wants_to_be_left_alone_is_believed_within_reason(
    service: FakeLanguageModel, model_of: Models, told: str, kept: float
) -> None:
    service.faults, service.retry_after = lambda _call: 429, told

    with pytest.raises(OverloadError) as refused:
        await model_of().ask(question(), Meter())

    assert kept == refused.value.retry_after


async def test_a_service_that_says_when_it_is_back_is_waited_for(service: FakeLanguageModel, model_of: Models) -> None:
    service.faults, service.retry_after = lambda _call: 503, "120"

    with pytest.raises(OverloadError, match="503") as down:
        await model_of().ask(question(), Meter())

    assert (120, 1) == (down.value.retry_after, len(service.calls))


@pytest.mark.parametrize("status", [500, 502, 504, 520, 408, 409])
async def test_a_failure_that_says_when_to_come_again_is_counted_all_the_same(
    service: FakeLanguageModel, model_of: Models, status: int
) -> None:
    """It may be over this very question."""
    service.faults, service.retry_after = lambda _call: status, "120"

    with pytest.raises(TransientError, match=str(status)):
        await model_of().ask(question(), Meter())


async def test_a_service_that_keeps_failing_is_left_alone(service: FakeLanguageModel, model_of: Models) -> None:
    service.faults = lambda _call: 500
    model = model_of(breaker=Breaker(name="the service", failures=3, seconds=60))
    with pytest.raises(TransientError):
        await model.ask(question(), Meter())

    with pytest.raises(OverloadError, match="3 times in a row"):
        await model.ask(question(), Meter())
    assert len(service.calls) == 3


async def test_questions_wait_for_the_rate_that_is_allowed(service: FakeLanguageModel, model_of: Models) -> None:
    # 2 at once, and one more every half second after that.
    model = model_of(limits=RateLimits(requests=120))
    began = time.monotonic()
    for _ in range(121):
        await model.ask(question(), Meter())

    assert time.monotonic() - began >= 0.4
    assert len(service.calls) == 121


async def test_neither_key_nor_prompt_is_told_in_logs_or_errors(service: FakeLanguageModel, model_of: Models) -> None:
    service.faults = failing("wrong shape", 401)
    structlog.reset_defaults()  # another test may have left it at a higher level
    with structlog.testing.capture_logs() as logs, pytest.raises(ConfigurationError) as refused:
        await model_of().ask(question("idea 1, mine is jane@example.org, password: hunter2"), Meter())

    told = f"{logs} {refused.value}"
    assert not [secret for secret in (KEY, "jane@example.org", "hunter2") if secret in told]
    assert any(entry["event"] == "llm_asked" for entry in logs)
