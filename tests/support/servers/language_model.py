"""A language model's service for tests: a real HTTP server on 127.0.0.1 that speaks the Responses API, and fails as it is told."""

from __future__ import annotations

import hashlib
import json
import random
import re
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.servers.local_http import in_a_thread

KEY = "sk-test-0123456789abcdef"
_PERSONA = re.compile(r"You are (\w+) \(persona_id (\w+)\)")
# Tokens that each answer tells of.
TOKENS = {"input_tokens": 100, "output_tokens": 50}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One question that arrived."""

    # The decoded body.
    body: dict[str, Any]
    # The shape that was asked for.
    shape: str
    # Whose review; empty for a proposal.
    persona: str
    authorization: str
    at: float = field(default_factory=time.monotonic)
    moment: datetime = field(default_factory=lambda: datetime.now(tz=UTC))

    @property
    def about(self) -> str:
        """Tells one question from another: which run's, whose."""
        return f"{self.persona}/{idea_of(self.body['input'])}"


# None for a good answer; else what goes wrong: a status, or a word of `_Handler`.
Fault = int | str | None
Faults = Callable[[Call], Fault]


@dataclass(kw_only=True)
class FakeLanguageModel:
    """The running service."""

    # As OPENAI_BASE_URL has it.
    url: str = ""
    faults: Faults = lambda _call: None
    # Changes the review that is given.
    review: Callable[[dict[str, Any]], dict[str, Any]] = lambda review: review
    retry_after: str = ""
    seconds: float = 0.0
    # Happens while a caller waits for an answer that is slow.
    while_slow: Callable[[], object] = lambda: None
    calls: list[Call] = field(default_factory=list)
    # Good answers that were sent whole, by what they were about.
    answered: Counter[str] = field(default_factory=Counter)


def one_in(number: int, seed: int) -> Faults:
    """Fail one call in so many, each time in another way."""
    chance = random.Random(seed)
    ways: list[Fault] = [429, 500, 503, "cut", "not json", "wrong shape", "wrong persona", "empty"]
    return lambda _call: chance.choice(ways) if chance.random() < 1 / number else None


def idea_of(text: str) -> str:
    """The idea that a question is about: tests name it `idea NUMBER`."""
    found = re.search(r"idea \d+", text)
    return found.group() if found else ""


def confidence_of(persona: str, idea: str) -> float:
    """How confident a persona is of an idea: always the same, so that a test can work a decision out by hand."""
    return int.from_bytes(hashlib.sha256(f"{persona}/{idea}".encode()).digest()[:2]) % 101 / 100


def proposal_for(text: str) -> dict[str, Any]:
    """The proposal that an idea is made into."""
    return {
        "problem_statement": f"The problem of {idea_of(text) or text[:40]}",
        "proposed_solution": "A solution",
        "assumptions": ["People want it"],
        "scope_non_goals": ["Everything else"],
        "title": "A title",
        "summary": None,
        "raw_idea": text,
        "raw_expanded_proposal": "The whole of it",
        "metadata": None,
    }


def review_by(name: str, persona: str, text: str) -> dict[str, Any]:
    """What a persona says of a proposal."""
    return {
        "persona_name": name,
        "persona_id": persona,
        "confidence_score": confidence_of(persona, idea_of(text)),
        "strengths": ["Simple"],
        "concerns": [{"text": "Unproven", "is_blocking": False}],
        "recommendations": ["Try it small"],
        "blocking_issues": [],
        "estimated_effort": "Two weeks",
        "dependency_risks": ["None known"],
        "internal_metadata": None,
    }


def _open_objects(part: Any) -> list[Any]:
    """The objects of a schema that are not strict: all properties required, no others."""
    if isinstance(part, list):
        return [found for each in part for found in _open_objects(each)]
    if not isinstance(part, dict):
        return []
    found = [found for each in part.values() for found in _open_objects(each)]
    strict = part.get("additionalProperties") is False and part.get("required") == list(part.get("properties", ()))
    return found if part.get("type") != "object" or strict else [*found, part]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else the second of two writes waits for 40 ms.
    disable_nagle_algorithm = True
    service: FakeLanguageModel
    lock: threading.Lock

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = _PERSONA.search(body.get("instructions") or "")
        call = Call(
            body=body,
            shape=body["text"]["format"]["name"],
            persona=found.group(2) if found else "",
            authorization=self.headers.get("Authorization", ""),
        )
        with self.lock:
            self.service.calls.append(call)
            fault = self.service.faults(call)
        time.sleep(self.service.seconds)
        if self.path != "/v1/responses":
            self._send(404, {"error": {"message": f"no such path: {self.path}"}})
        elif found_open := _open_objects(body["text"]["format"]["schema"]):
            # As the real service refuses it.
            message = f"Invalid schema for response_format: 'additionalProperties' is required to be supplied and to be false: {found_open}"
            self._send(400, {"error": {"message": message, "type": "invalid_request_error", "code": "invalid_json_schema"}})
        elif isinstance(fault, int):
            self._send(fault, {"error": {"message": "refused by the test", "type": "test", "code": None}})
        elif fault == "quota":
            self._send(429, {"error": {"message": "no money left", "type": "insufficient_quota", "code": "insufficient_quota"}})
        elif fault == "slow":
            self._wait_until_hung_up()
        elif fault == "bare":
            self._send(200, {"status": "completed"})
        elif fault == "cut":
            self._cut()
        else:
            self._answer(call, found.group(1) if found else "", fault)

    def _wait_until_hung_up(self) -> None:
        # Until the caller waits for certain.
        pause = 0.3
        for _ in range(20):
            if select.select([self.connection], [], [], pause)[0]:
                break
            self.service.while_slow()
            pause = 5.0
        self.close_connection = True

    def _answer(self, call: Call, name: str, fault: Fault) -> None:
        content = review_by(name, call.persona, call.body["input"]) if call.persona else proposal_for(call.body["input"])
        if call.persona:
            content = self.service.review(content)
        if fault == "wrong persona" and call.persona:
            content = {**content, "persona_id": "somebody_else"}
        if fault == "wrong shape":
            content = {name: value for name, value in content.items() if name not in {"confidence_score", "problem_statement"}}
        text = {"not json": "Here is the JSON you asked for", "empty": ""}.get(str(fault), json.dumps(content))
        parts = [{"type": "output_text", "text": text, "annotations": []}]
        answer = {
            "id": f"resp_{len(self.service.calls)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "completed",
            "model": call.body["model"],
            "output": [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": parts}],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                **TOKENS,
                "total_tokens": sum(TOKENS.values()),
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }
        if fault == "refusal":
            answer["output"] = [{**answer["output"][0], "content": [{"type": "refusal", "refusal": "I will not."}]}]
        if fault in {"no output", "odd parts"}:
            answer |= {"output": None if fault == "no output" else [{"type": "message", "content": None}, "text"], "usage": "much"}
        if fault == "truncated":
            answer |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        self._send(200, answer)
        if fault in {None, "wrong persona"}:
            with self.lock:
                self.service.answered[call.about] += 1

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status != 200 and self.service.retry_after:
            self.send_header("Retry-After", self.service.retry_after)
        self.end_headers()
        self.wfile.write(body)

    def _cut(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"id": "resp_')
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that was killed has hung up."""


@contextmanager
def fake_language_model() -> Iterator[FakeLanguageModel]:
    """Run one until the block ends."""
    service = FakeLanguageModel()
    handler = type("Handler", (_Handler,), {"service": service, "lock": threading.Lock()})
    server = _Server(("127.0.0.1", 0), handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    with in_a_thread(server):
        yield service
