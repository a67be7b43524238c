"""What whoever is on call is given: alerts, a dashboard and a runbook that speak of what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from streamsvc.ops.metrics import Definition, Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
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
