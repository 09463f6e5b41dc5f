from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bridge.errors import PoisonError
from bridge.systems.documents import messages as documents
from bridge.systems.labs import messages as labs
from bridge.systems.wsi import messages as wsi


def body(system: str, request: dict[str, Any]) -> bytes:
    return json.dumps({"system": system, "key": "job-1", "request": request}).encode()


def test_a_slide_message_becomes_a_job() -> None:
    job = wsi.job_of(wsi.request_message(key="job-1", slide_uri="s3://slides/a.svs", mpp=0.25, priority=3, reply_queue="answers"))
    assert (job.key, job.system, dict(job.request)) == ("job-1", "wsi", {"slide_uri": "s3://slides/a.svs", "mpp": 0.25})
    assert (job.priority, job.reply_queue) == (3, "answers")


def test_a_relative_path_is_made_absolute_where_the_message_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert wsi.job_of(wsi.request_message(key="1", slide_uri="a.svs")).request["slide_uri"] == str(tmp_path / "a.svs")
    assert documents.job_of(documents.request_message(key="1", document_uri="a.pdf")).request["document_uri"] == str(tmp_path / "a.pdf")


def test_a_lab_message_becomes_a_job_with_its_values_as_text() -> None:
    tests = [{"name": " Hemoglobin ", "value": 13.5, "unit": None, "ordered_by": "someone"}]
    job = labs.job_of(labs.request_message(key="job-1", tests=tests))
    assert job.request == {"tests": [{"name": "Hemoglobin", "value": "13.5"}]}


@pytest.mark.parametrize(
    ("system", "needed", "optional"),
    [
        (wsi, {"slide_uri": "/a"}, ("analysis", "mpp", "apply_icc_profile", "tile_size", "artifacts", "shares", "share", "merged_by")),
        (documents, {"document_uri": "/a"}, ("dpi", "pages", "password", "text_mode", "formats")),
        (labs, {"tests": [{"name": "Ureum"}]}, ("top_k",)),
    ],
)
def test_null_is_as_good_as_left_out(system: ModuleType, needed: dict[str, Any], optional: tuple[str, ...]) -> None:
    head = {"system": system.SYSTEM, "key": "job-1"}
    nulls = {**head, "reply_queue": None, "priority": None, "request": {**needed, **dict.fromkeys(optional)}}

    assert system.job_of(json.dumps({**head, "request": needed}).encode()) == system.job_of(json.dumps(nulls).encode())


@pytest.mark.parametrize("tests", ['[{"name": "Ureum"}]', b'{"tests": [{"name": "Ureum"}], "patient": 1}'])
def test_a_lab_list_may_be_bare_or_under_its_key(tests: str | bytes) -> None:
    assert labs.tests_from_json(tests) == [{"name": "Ureum"}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,value\nUreum,3", "the lab list is not JSON .*line 1 column 1.* expected .*Hemoglobin"),
        ("", "the lab list is not JSON"),
        ('{"name": "Ureum"}', "holds no list of tests"),
        ("3", "holds no list of tests"),
    ],
)
def test_a_lab_list_that_is_no_list_says_so(text: str, reason: str) -> None:
    with pytest.raises(PoisonError, match=reason):
        labs.tests_from_json(text)


@pytest.mark.parametrize(
    ("system", "request_", "reason"),
    [
        (wsi, {}, "slide_uri: field required"),
        (wsi, {"slide_uri": "  "}, "slide_uri: is empty"),
        (wsi, {"slide_uri": "/a", "mpp": 0.049}, r"mpp: input should be greater than or equal to 0\.05"),
        (wsi, {"slide_uri": "/a", "mpp": 100.1}, "mpp: input should be less than or equal to 100"),
        (wsi, {"slide_uri": "/a", "assumed_mpp": 352.8}, "assumed_mpp: input should be less than or equal to 100"),
        (wsi, {"slide_uri": "/a", "mpp": math.inf}, "mpp: "),
        (wsi, {"slide_uri": "/a", "mpp": "fine"}, "mpp: input should be a valid number"),
        (wsi, {"slide_uri": "/a", "tile_size": -1}, "tile_size: input should be greater than or equal to 0"),
        (wsi, {"slide_uri": "/a", "tile_size": 4097}, "tile_size: input should be less than or equal to 4096"),
        (documents, {}, "document_uri: field required"),
        (documents, {"document_uri": "/a", "pages": [0]}, r"pages\.0: input should be greater than or equal to 1"),
        *(
            (documents, {"document_uri": "/a", "dpi": dpi}, "pages are rendered at: 36 to 600, or 0 for the server's own")
            for dpi in (100_000, 601, 35, 1, -1)
        ),
        (labs, {}, "tests: field required"),
        (labs, {"tests": []}, "tests: 0 items; at least 1 expected"),
        (labs, {"tests": [{"name": "Ureum"}] * 10_001}, "tests: 10001 items; at most 10000 expected"),
        (labs, {"tests": "Ureum"}, "tests: input should be a valid tuple"),
        (labs, {"tests": ["Ureum"]}, r"tests\.0: expected an object"),
        (labs, {"tests": [{"name": "Ureum"}, {"value": "3"}]}, r"tests\.1\.name: field required"),
        (labs, {"tests": [{"name": ""}]}, r"tests\.0\.name: is empty"),
        (labs, {"tests": [{"name": "Ureum", "value": [1]}]}, r"tests\.0\.value: input should be a valid string"),
        (labs, {"tests": [{"name": "U" * 301}]}, r"tests\.0\.name: string should have at most 300 characters"),
        (labs, {"tests": [{"name": "Ureum", "value": "3" * 301}]}, r"tests\.0\.value: 301 characters; at most 300 expected"),
    ],
)
def test_a_request_that_is_wrong_names_the_field_and_what_was_expected(system: ModuleType, request_: dict[str, Any], reason: str) -> None:
    with pytest.raises(PoisonError, match=f"(?s){reason}.*Expected"):
        system.job_of(body(system.SYSTEM, request_))


def test_a_message_for_another_system_is_refused() -> None:
    with pytest.raises(PoisonError, match="for the system labs; expected wsi"):
        wsi.job_of(body("labs", {"tests": [{"name": "Ureum"}]}))


def test_a_list_with_wrong_tests_is_not_told_to_be_empty_too() -> None:
    with pytest.raises(PoisonError) as caught:
        labs.job_of(body("labs", {"tests": [{"name": None}]}))
    assert str(caught.value).startswith("the request is not right: tests.0.name: input should be a valid string. Expected ")


def test_many_problems_are_told_shortly() -> None:
    with pytest.raises(PoisonError, match=r"and 97 more") as caught:
        labs.job_of(body("labs", {"tests": [{}] * 100}))
    assert len(str(caught.value)) < 400
