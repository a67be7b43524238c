"""The files that are shipped: each loads, is what the schema allows, and the reference is that of the models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from streamsvc import app
from streamsvc.config import Service
from streamsvc.config_reference import PAGE, SCHEMA, page, schema

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*(ROOT / "config").glob("*.yaml"), *(ROOT / "deploy").glob("pipeline*.yaml")])


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "swordfish")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_a_shipped_file_is_good(file: Path) -> None:
    assert app.load(file).pipelines


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_a_shipped_file_is_what_the_schema_allows(file: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = YAML(typ="safe", pure=True).load(file)
    for options in (source for pipeline in document["pipelines"].values() for source in pipeline["source"].values()):
        if "start" in options:
            options["start"] = str(options["start"])
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))


def test_the_schema_refuses_what_the_models_refuse() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = YAML(typ="safe", pure=True).load(ROOT / "config" / "local-redpanda.yaml")
    for change in ({"formt": "json"}, {"format": "parket"}, {"max_partitions": 0}, {"path": "lake"}):
        wrong = json.loads(json.dumps(document))
        wrong["pipelines"]["access"]["sink"] |= change
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, json.loads(SCHEMA.read_text()))


def test_schema_and_page_are_those_of_the_models() -> None:
    hint = "run: python -m streamsvc.config_reference"
    assert SCHEMA.read_text() == schema(), hint
    assert PAGE.read_text() == page(), hint


def test_every_field_says_what_it_is() -> None:
    for model in models(Service):
        assert model.__doc__
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert f"| `{field.alias or name}` |" in PAGE.read_text()


def models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
    for argument in get_args(kind):
        yield from models(argument)
