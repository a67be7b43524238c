"""What whoever is on call is given: alerts, a dashboard and a runbook that speak of what there is."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from streamsvc.ops.metrics import Definition, Metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RUNBOOK = (DEPLOY / "runbook.md").read_text()
RULES = [rule for group in YAML(typ="safe").load(DEPLOY / "alerts.yaml")["groups"] for rule in group["rules"]]
BOARD = json.loads((DEPLOY / "dashboard.json").read_text())

CATALOGUE = {definition.name: definition for definition in Metrics("").catalogue}
EVERYWHERE = {"service", "worker"}
EXPRESSIONS = [
    *(rule["expr"] for rule in RULES),
    *(target["expr"] for panel in BOARD["panels"] for target in panel["targets"]),
    *(variable["query"] for variable in BOARD["templating"]["list"]),
]


def metrics_in(text: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bstreamsvc_[a-z_]+", text)}


def labels_of(definitions: list[Definition]) -> set[str]:
    return EVERYWHERE.union(*(definition.labels for definition in definitions), {"le"})


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_only_metrics_and_labels_of_the_catalogue_are_asked_for(expression: str) -> None:
    names = metrics_in(expression)
    assert names <= CATALOGUE.keys()
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    selected = set(re.findall(r"[{,]\s*(\w+)(?:=|!=|=~|!~)\"", expression))
    assert grouped | selected <= labels_of([CATALOGUE[name] for name in names])


@pytest.mark.parametrize("metric", sorted(metrics_in(RUNBOOK)))
def test_metrics_of_the_runbook_are_in_the_catalogue(metric: str) -> None:
    assert metric in CATALOGUE


def test_every_alert_has_its_place_in_the_runbook() -> None:
    assert RULES
    for rule in RULES:
        assert re.search(rf"(?m)^## {rule['alert']}$|\*\*{rule['alert']}\*\*", RUNBOOK), rule["alert"]


def parts_in_the_code() -> set[str]:
    """First arguments of the observer's calls, second ones of stores."""
    place = {"part_failed": 0, "retrying": 0, "stores": 1, "new_stores": 1}
    found = set()
    for path in (ROOT / "streamsvc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.func if isinstance(node.func, ast.Call) else node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            given = node.args[place[name] :][:1] if name in place else []
            found |= {at.value for at in given if isinstance(at, ast.Constant) and isinstance(at.value, str)}
    return found


def test_every_part_that_may_fail_is_named() -> None:
    parts = parts_in_the_code()
    assert parts >= {"source", "state", "windows"}
    assert set(re.findall(r"`(\w+)`", CATALOGUE["streamsvc_retries_total"].meaning)) == parts
    table = RUNBOOK.partition("## StreamsvcNotReady")[2].partition("\n## ")[0]
    said = " ".join(re.findall(r"(?m)^\| (`[^:|]*):", table))
    assert set(re.findall(r"`(\w+)`", said)) == parts - {"windows"}, "their closing does not make a pipeline unready"


@pytest.mark.parametrize("alert", ["StreamsvcResultsLate", "StreamsvcClockAhead"])
def test_a_source_that_is_quiet_alarms_nobody(alert: str) -> None:
    """Then the last windows stay open, or ``close_idle_after`` lifts the watermark beyond the clock."""
    (rule,) = [rule for rule in RULES if rule["alert"] == alert]
    assert re.search(
        r"and on \(service, pipeline\) .*streamsvc_records_read_total\[\d+m\]\)\) > 0$", rule["expr"].strip()
    )
