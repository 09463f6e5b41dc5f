"""What the documents name is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from bridge import settings as bridge_settings
from bridge.__main__ import app as bridge_program
from bridge.settings_cards import CardWorkerSettings
from bridge.settings_consensus import ConsensusSettings
from inference_server import settings as server_settings
from inference_server.__main__ import cli as server_program
from tests.support.deploy.alerts import ALERTS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").glob("*.md")])
# Their names without the prefix; `…_HTTP` and the like are none.
SETTINGS = {
    server_settings.PREFIX: {name.upper() for name in server_settings.Settings.model_fields},
    bridge_settings.PREFIX: {name.upper() for name in bridge_settings.Settings.model_fields}
    | {name.removeprefix("bridge_").upper() for name in (*ConsensusSettings.model_fields, *CardWorkerSettings.model_fields)},
}
DEFAULTS = {f"{server_settings.PREFIX}{name.upper()}": field.default for name, field in server_settings.Settings.model_fields.items()}
PROGRAMS = {"bridge": typer.main.get_command(bridge_program), "inference-server": typer.main.get_command(server_program)}
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [] == [target for target in targets if "://" not in target and not (page.parent / target).exists()]


def _anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_to_headings_lead_to_one(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert [] == [f"{file}#{anchor}" for file, anchor in targets if anchor not in _anchors(page.parent / file if file else page)]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_scripts_that_are_named_exist_with_their_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"((?:benchmarks|scripts)/[\w/]+\.py)((?: [^`\n|]*)?)", text)
    assert [] == [script for script, _ in named if not (ROOT / script).is_file()]
    asked = {(script, option) for script, words in named for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", words)}
    assert [] == sorted(f"{script} {option}" for script, option in asked if f'"{option}"' not in (ROOT / script).read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_settings_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {(prefix, name) for prefix, names in SETTINGS.items() for name in re.findall(rf"\b{prefix}([A-Z0-9_]*[A-Z0-9])\b(?!_)", text)}
    assert [] == sorted(prefix + name for prefix, name in named if name not in SETTINGS[prefix])


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_numbers_that_are_told_as_defaults_are_the_defaults(page: Path) -> None:
    rows = re.findall(r"\| `(INFERENCE_[A-Z_]+)` \| ([\d,]+) ?([KMG]iB)?\s*\|", page.read_text(encoding="utf-8"))
    told = {name: int(number.replace(",", "")) * UNITS[unit] for name, number, unit in rows}
    assert {name: DEFAULTS[name] for name in told} == told


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_metrics_that_are_named_are_kept_by_one_of_the_programs(page: Path) -> None:
    named = set(re.findall(r"`((?:lamina|bridge|inference)_[a-z_]+?)(?:_total|_bucket|_sum|_count)?[`{]", page.read_text(encoding="utf-8")))
    ending = re.compile(r"_(info|seconds|bytes|rows|requests|ready|refusals|jobs|tries|messages|flight)$")
    sources = "".join(
        file.read_text(encoding="utf-8") for package in ("bridge", "inference_server") for file in (ROOT / package).rglob("*.py")
    )
    # The library adds the ending of what only tells.
    kept = {name for name in named if f'"{name}' in sources or f'"{name.removesuffix("_info")}"' in sources}
    assert [] == sorted(name for name in named - kept if ending.search(name))


def _typed_commands(page: Path) -> list[tuple[str, list[str]]]:
    """The programs of ours that a page's blocks of commands run, with their words."""
    blocks = re.findall(r"^```(?:ba)?sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [part for block in blocks for line in block.splitlines() for part in line.partition(" #")[0].split("&&")]
    found = (re.fullmatch(r"\s*(?:[A-Z_]+=\S+ )*(bridge|inference-server) (.+)", line) for line in lines)
    return [(match[1], shlex.split(match[2])) for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_that_are_told_exist_with_their_options(page: Path) -> None:
    for program, words in _typed_commands(page):
        command: Any = PROGRAMS[program]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), f"{program} {words}: no such command"
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert set() == {word for word in words if word.startswith("--")} - options, f"{program} {words}"


def test_indexes_that_are_told_are_those_of_the_platforms_tables() -> None:
    page = (ROOT / "docs/migration/lab-aggregation.md").read_text(encoding="utf-8")
    ours = " ".join((ROOT / "bridge/database/platforms/labs.sql").read_text(encoding="utf-8").split())
    told = re.findall(r"^CREATE INDEX CONCURRENTLY .*;$", page, re.MULTILINE)
    assert "ix_lab_reports_user_id" in " ".join(told)
    assert [] == [index for index in told if index.replace(" CONCURRENTLY", "") not in ours]


def test_each_alert_has_its_section_in_the_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert list(ALERTS) == headings
