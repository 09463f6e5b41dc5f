"""CloudWatch's metric filters find what they count in the lines that the bridge writes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.bridge.step_lines import written
from tests.support.deploy.terraform.stacks import stack


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    return written(capsys)


def fits(pattern: str, line: dict[str, Any]) -> bool:
    """Whether a filter finds a line, as CloudWatch reads patterns of JSON: fields that are as told, or that are there at all."""
    terms = re.fullmatch(r"\{ (.*) \}", pattern)
    assert terms is not None
    return all(any(_is_so(each, line) for each in term.strip("()").split(" || ")) for term in terms[1].split(" && "))


def _is_so(term: str, line: dict[str, Any]) -> bool:
    wanted = re.fullmatch(r"\$\.(\w+) = (?:\"([\w-]+)\"|\*)", term)
    assert wanted is not None, term
    return wanted[1] in line and wanted[2] in {None, line[wanted[1]]}


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ("JobsEnded", ["a job with a result", "a job that another program did", "a job that failed"]),
        ("JobsFailed", ["a job that failed"]),
        ("JobsFallenBack", ["a job that another program did"]),
        ("MessagesUnreadable", ["a message that cannot be read"]),
        ("TriesPutOff", ["a job that waits for a server", "a job that waits for a model"]),
        ("TriesUnset", ["a job that a setting keeps"]),
        ("TriesRefused", ["a slide that the server may not read"]),
        ("JobMilliseconds", ["a job with a result", "a job that another program did", "a job that failed"]),
    ],
)
def test_each_filter_finds_its_lines_and_no_others(lines: dict[str, dict[str, Any]], counted: str, expected: list[str]) -> None:
    (found,) = [one for one in stack("documents-worker").of("aws_cloudwatch_log_metric_filter") if one.values["name"].endswith(counted)]
    assert [name for name, line in lines.items() if fits(found.values["pattern"], line)] == expected


def test_the_time_of_a_job_is_told_in_milliseconds_and_the_alarm_expects_them(lines: dict[str, dict[str, Any]]) -> None:
    made = stack("documents-worker")
    (found,) = [one.values for one in made.of("aws_cloudwatch_log_metric_filter") if one.values["name"].endswith("JobMilliseconds")]
    (slow,) = [one.values for one in made.of("aws_cloudwatch_metric_alarm") if one.values["alarm_name"] == "documents-slow"]
    value = found["metric_transformation"][0]["value"].removeprefix("$.")
    assert lines["a job that failed"][value] == 400_000
    assert lines["a job with a result"][value] < slow["threshold"] < lines["a job that failed"][value]
    assert (slow["extended_statistic"], slow["metric_name"]) == ("p95", found["metric_transformation"][0]["name"])
