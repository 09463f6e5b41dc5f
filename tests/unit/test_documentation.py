"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge import settings as bridge_settings
from bridge.settings_cards import CardWorkerSettings
from bridge.settings_consensus import ConsensusSettings
from inference_server import settings as server_settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("*.md")])
# Their names without the prefix; `…_HTTP` and the like are none.
SETTINGS = {
    server_settings.PREFIX: {name.upper() for name in server_settings.Settings.model_fields},
    bridge_settings.PREFIX: {name.upper() for name in bridge_settings.Settings.model_fields}
    | {name.removeprefix("bridge_").upper() for name in (*ConsensusSettings.model_fields, *CardWorkerSettings.model_fields)},
}
DEFAULTS = {f"{server_settings.PREFIX}{name.upper()}": field.default for name, field in server_settings.Settings.model_fields.items()}
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [] == [target for target in targets if "://" not in target and not (page.parent / target).exists()]


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
