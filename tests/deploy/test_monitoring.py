"""Alerts and dashboards: they say what they should, and ask for nothing that the programs do not tell."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.errors import BridgeError
from bridge.http.metrics import CLASSES
from bridge.worker import FATES
from scripts.prometheus_rule import RESOURCE, RULES, rendered
from tests.support.deploy.alerts import ALERTS
from tests.support.deploy.exposed_metrics import Exposed, everything_exposed
from tests.support.deploy.promql import asked
from tests.support.deploy.promtool import promtool

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
DASHBOARDS = sorted((ROOT / "deploy" / "monitoring" / "dashboards").glob("*.json"))
# What Prometheus itself tells of a target, and the labels that it gives to whatever it scrapes.
OF_TARGETS = {"up"}
# What kube-state-metrics tells in our programs' place: they cannot tell of an end that comes before they answer.
OF_THE_CLUSTER = {"kube_pod_container_status_restarts_total": {"namespace", "pod", "container", "uid"}}
TARGET_LABELS = {"job", "instance", "worker", "namespace", "pod"}


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Exposed:
    return asyncio.run(everything_exposed(tmp_path_factory.mktemp("exposed")))


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def _panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def _expressions() -> list[tuple[str, str]]:
    """Every expression of the alerts, the dashboards and what scales by Prometheus, with where it stands."""
    found = [(rule["alert"], rule["expr"]) for rule in _rules()]
    for path in (ROOT / "deploy" / "kubernetes").rglob("autoscaling.yaml"):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            triggers = [trigger for trigger in document["spec"].get("triggers", ()) if trigger["type"] == "prometheus"]
            found += [(f"{path.parent.name}: {trigger['name']}", trigger["metadata"]["query"]) for trigger in triggers]
    for path in DASHBOARDS:
        board = json.loads(path.read_text(encoding="utf-8"))
        found += [(f"{path.name}: {panel['title']}", target["expr"]) for panel in _panels(board) for target in panel["targets"]]
    return found


def _plain(expression: str) -> str:
    """Without Grafana's variables."""
    return re.sub(r"\$\w+", "any", expression.replace("$__rate_interval", "5m"))


def test_the_alerts_are_those_that_the_runbook_knows() -> None:
    rules = _rules()
    assert {rule["alert"] for rule in rules} == set(ALERTS)
    assert [] == [rule["alert"] for rule in rules if rule["annotations"]["runbook_url"] != f"docs/runbook.md#{rule['alert'].lower()}"]


def test_the_operators_resource_is_made_of_the_rules() -> None:
    assert rendered(RULES.read_text(encoding="utf-8")) == RESOURCE.read_text(encoding="utf-8"), "run scripts/prometheus_rule.py"
    assert yaml.safe_load(RESOURCE.read_text(encoding="utf-8"))["spec"] == yaml.safe_load(RULES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", ["check rules --lint-fatal rules.yml", "test rules rules_test.yml"])
def test_promtool_finds_the_alerts_right(command: str) -> None:
    done = subprocess.run([promtool(), *command.split()], cwd=RULES.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("place", "expression"), _expressions(), ids=[place for place, _ in _expressions()])
def test_every_metric_and_label_is_told_by_a_program(place: str, expression: str, exposed: Exposed) -> None:
    for each in asked(_plain(expression)):
        if each.sample in OF_TARGETS:
            assert {name for name, _ in each.matched} | each.grouped <= TARGET_LABELS
            continue
        if each.sample in OF_THE_CLUSTER:
            assert {name for name, _ in each.matched} | each.grouped <= OF_THE_CLUSTER[each.sample]
            continue
        assert each.sample in exposed.labels, f"{place}: no program tells {each.sample}"
        known = TARGET_LABELS | set(exposed.labels[each.sample])
        assert {name for name, _ in each.matched} | each.grouped <= known, f"{place}: {each.sample} has no such label"
        for name, value in each.matched:
            if value is not None and name not in TARGET_LABELS:
                assert exposed.has(each.sample, name, value), f"{place}: {each.sample} is never told with {name}={value}"


def test_classes_of_tries_that_rules_look_for_are_classes_of_errors() -> None:
    """Most of them are told only once something is broken."""
    classes = {name for names in re.findall(r'class=~"([\w|]+)"', RULES.read_text(encoding="utf-8")) for name in names.split("|")}
    assert {"overload", "waiting"} <= classes <= set(CLASSES.values())


def test_every_error_that_a_try_may_come_to_has_a_class() -> None:
    assert [] == [error.__name__ for error in FATES if error not in {BridgeError, Exception} and error.__name__ not in CLASSES]


def test_either_program_tells_when_it_began_and_nothing_of_the_other(exposed: Exposed) -> None:
    assert "process_start_time_seconds" in exposed.of_bridge & exposed.of_server
    assert [] == [name for name in exposed.of_bridge if name.startswith("lamina_")]
    assert [] == [name for name in exposed.of_server if name.startswith("bridge_")]


def test_a_wrong_name_label_or_value_would_be_found(exposed: Exposed) -> None:
    [each] = asked('sum by (job, queue) (bridge_queue_messages{state="wating"})')
    assert ("bridge_queue_messages", frozenset({"job", "queue"})) == (each.sample, each.grouped)
    assert not exposed.has("bridge_queue_messages", "state", "wating")
    assert not exposed.has("bridge_queue_messages", "system")
    assert "bridge_queue_message" not in exposed.labels
    with pytest.raises(ValueError, match="parenthesis"):
        asked("sum by (job bridge_jobs_total")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_are_whole(path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    variables = {variable["name"] for variable in board["templating"]["list"]}
    panels = list(_panels(board))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert [] == [panel["title"] for panel in panels if not (panel["description"] and panel["datasource"]["uid"] == "${datasource}")]
    used = {name for panel in panels for target in panel["targets"] for name in re.findall(r"\$(\w+)", target["expr"])}
    assert used - {"__rate_interval"} <= variables
    assert _overlapping(panels) == []


def _overlapping(panels: list[dict[str, Any]]) -> list[tuple[str, str]]:
    taken: dict[tuple[int, int], str] = {}
    clashes = []
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            if cell in taken:
                clashes.append((taken[cell], panel["title"]))
            taken[cell] = panel["title"]
    return clashes


def test_what_scales_by_prometheus_is_checked_too() -> None:
    assert [] == [name for name in ("inference-autoscaling: jobs", "inference-autoscaling: requests") if name not in dict(_expressions())]


def _told_in(heading: str, prefix: str) -> dict[str, set[str]]:
    """The metrics of a table of docs/monitoring.md, and the labels that it gives them."""
    part = DOCUMENT[DOCUMENT.index(heading) :].partition("\n## ")[0] if heading in DOCUMENT else ""
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([a-z, ]*)\|", part, re.MULTILINE)
    return {name: set(re.findall(r"\w+", labels)) for names, labels in rows for name in re.findall(rf"`({prefix}_\w+)`", names)}


@pytest.mark.parametrize(("heading", "prefix"), [("## Metrics of the bridge", "bridge"), ("## Metrics of the inference server", "lamina")])
def test_the_page_names_every_metric_with_its_labels(heading: str, prefix: str, exposed: Exposed) -> None:
    told = _told_in(heading, prefix)
    families: dict[str, set[str]] = {}
    for sample, labels in exposed.labels.items():
        if sample.startswith(f"{prefix}_") and not sample.endswith("_created"):
            families.setdefault(re.sub(r"_(bucket|sum|count)$", "", sample), set()).update(set(labels) - {"le"})
    # Engines are built on a GPU alone, and connections end with the server.
    unseen = {"lamina_model_engine_build_state", "lamina_connections_closed_total"}
    shown, known = ({name: labels for name, labels in each.items() if name not in unseen} for each in (told, families))
    assert known == shown


def test_the_page_tells_of_every_alert() -> None:
    rows = re.findall(r"^\| `(Lamina\w+)` \| .+ \| (\w+) \|$", DOCUMENT, re.MULTILINE)
    assert {(rule["alert"], rule["labels"]["severity"]) for rule in _rules()} == set(rows)


def test_the_page_shows_a_configuration_that_prometheus_takes(tmp_path: Path) -> None:
    shown = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert shown
    (tmp_path / "prometheus.yml").write_text(shown[1])
    (tmp_path / "rules.yml").write_text(RULES.read_text(encoding="utf-8"))
    done = subprocess.run([promtool(), "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 rules found" in done.stdout


def test_dashboards_have_names_of_their_own() -> None:
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]
    assert ["lamina-models", "lamina-operations"] == sorted(board["uid"] for board in boards)
