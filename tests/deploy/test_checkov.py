"""What a scanner knows to go wrong with Terraform does not go wrong here, but where a line says why it is meant so."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.installed_tools import tool

ROOT = Path(__file__).parents[2] / "deploy" / "terraform"


def scanned(folder: Path) -> dict[str, Any]:
    """What checkov tells of a folder."""
    command = [tool("checkov"), "--directory", str(folder), "--framework", "terraform", "--compact", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return scanned(ROOT)


def test_nothing_that_is_checked_fails(found: dict[str, Any]) -> None:
    assert found["summary"]["passed"] > 200
    failed = [f"{one['check_id']} {one['resource']}: {one['check_name']}" for one in found["results"]["failed_checks"]]
    assert failed == []
    assert found["summary"]["parsing_errors"] == 0


def test_whatever_is_skipped_says_why() -> None:
    skips = [line for file in ROOT.rglob("*.tf") for line in re.findall(r"checkov:skip=.*", file.read_text(encoding="utf-8"))]
    assert skips
    assert [] == [line for line in skips if not re.fullmatch(r"checkov:skip=CKV\w+:.{30,}\.", line)]


def test_no_skip_is_left_that_nothing_needs(found: dict[str, Any]) -> None:
    used = {(Path(one["file_path"]).name, one["check_id"]) for one in found["results"]["skipped_checks"]}
    written = {
        (file.name, check)
        for file in ROOT.rglob("*.tf")
        for check in re.findall(r"checkov:skip=(CKV\w+)", file.read_text(encoding="utf-8"))
    }
    assert sorted(written - used) == []


def test_a_queue_that_is_not_encrypted_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text('resource "aws_sqs_queue" "jobs" {\n  name = "jobs"\n}\n')
    assert [one["check_id"] for one in scanned(tmp_path)["results"]["failed_checks"]] == ["CKV_AWS_27"]
