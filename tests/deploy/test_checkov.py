"""What a scanner knows to go wrong with Terraform does not go wrong here, but where a line says why it is meant so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy.installed_tools import tool

# Of its own environment's installation, and of the scan.
pytestmark = pytest.mark.timeout(480)
ROOT = Path(__file__).parents[2] / "deploy" / "terraform"


BAD = 'resource "aws_sqs_queue" "jobs" {\n  name = "jobs"\n}\n'


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What checkov tells of all there is, and of one queue that is not encrypted, so that it is seen to look."""
    folder = tmp_path_factory.mktemp("scanned") / "terraform"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    (folder / "modules" / "bad").mkdir()
    (folder / "modules" / "bad" / "main.tf").write_text(BAD)
    command = [tool("checkov"), "--directory", str(folder), "--framework", "terraform", "--compact", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_nothing_that_is_checked_fails_but_what_is_meant_to(found: dict[str, Any]) -> None:
    assert found["summary"]["passed"] > 200
    assert found["summary"]["parsing_errors"] == 0
    failed = [f"{one['check_id']} {one['file_path']}: {one['check_name']}" for one in found["results"]["failed_checks"]]
    assert failed == ["CKV_AWS_27 /modules/bad/main.tf: Ensure all data stored in the SQS queue is encrypted"]


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
