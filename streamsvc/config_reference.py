"""What can be configured, for editors and for people: ``config/streamsvc.schema.json`` and ``docs/configuration.md``.

``python -m streamsvc.config_reference`` writes both; a test fails when they are older than the models.
"""

from __future__ import annotations

import builtins
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from streamsvc.config import Service
from streamsvc.config_types import Address, ByteSize, Seconds, Secret, Whole, about

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "config" / "streamsvc.schema.json"
PAGE = ROOT / "docs" / "configuration.md"

_WORDS: dict[Any, str] = {
    Address: "address",
    ByteSize: "size",
    Seconds: "duration",
    Secret: "secret",
    Whole: "whole number",
    int: "whole number",
    float: "number",
    str: "text",
    bool: "`true`, `false`",
}

_VARIABLE = {"type": "string", "pattern": r"\$\{"}

_ABOUT = """\
# Configuration

One YAML file says everything about a service. `streamsvc validate FILE` checks it and names every problem with its
line and column; [`config/`](../config) holds a file for each common use, and a JSON Schema. With this first line an
editor completes and checks while you type:

    # yaml-language-server: $schema=./streamsvc.schema.json

- A **duration** is seconds or like `250ms`, `30s`, `5m`, `1h30m`; a **size** is bytes or like `64MiB`, `1GB`.
- `${NAME}` anywhere in a value is the environment variable of that name, `${NAME:-default}` has a default;
  `$${` stands for `${`. A variable that is not set is an error.
- A **secret** is text, best a `${NAME}`, or `{file: /run/secrets/name}`. Secrets are never printed, not even in errors.
- An **address** is `s3://bucket/prefix` (at `aws.endpoint_url`, if that is set), `file:///absolute/directory` or
  `memory://name/prefix`, which lives as long as the process. Each prefix is for one purpose: no sink, rejects or state
  inside another.
- **SQL** is DuckDB's, row by row: a step is `SELECT ... FROM input [WHERE ...]`, and sees one record at a time. What
  would depend on how records were batched, on the clock or on chance is refused, with the reason. A record for which an
  expression fails is a reject, never its neighbours; `TRY_CAST` and `TRY` make it null, `error('why')` rejects on
  purpose. Columns come out as text, numbers, `timestamp[us, UTC]`, dates, and lists, structs and maps of them.
- Unknown keys are errors. What is not here cannot be configured.

This page is made from the models in `streamsvc/config.py`.
"""


def schema() -> str:
    """The JSON Schema of a file."""
    made = Service.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "streamsvc"}
    return json.dumps(head | _or_variable(made), indent=2, ensure_ascii=False) + "\n"


def page() -> str:
    """The reference, a section a model, in the order in which they are met."""
    return "\n".join([_ABOUT, *(_section(path, model) for path, model in _walk(Service, ""))])


def _or_variable(node: Any) -> Any:
    """What is not just any text may also come from the environment."""
    if isinstance(node, list):
        return [_or_variable(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("title"), str):
        node = {key: value for key, value in node.items() if key != "title"}
    if node.get("type") in ("integer", "number", "boolean") or "enum" in node or isinstance(node.get("pattern"), str):
        shown = {key: node[key] for key in ("description", "default") if key in node}
        return {**shown, "anyOf": [{key: value for key, value in node.items() if key not in shown}, _VARIABLE]}
    return {key: value if key == "default" else _or_variable(value) for key, value in node.items()}


def _walk(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every model, with the way to it: ``pipelines.<name>.sink``."""
    yield path, model
    for name, hint in get_type_hints(model, include_extras=True).items():
        field = model.model_fields.get(name)
        if field is not None:
            for step, inner in _models_in(hint):
                yield from _walk(inner, f"{path}.{field.alias or name}{step}".removeprefix("."))


def _models_in(hint: Any, step: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield step, hint
    below = {dict: ".<name>", list: "[]"}.get(get_origin(hint), "")
    for argument in get_args(hint):
        yield from _models_in(argument, step + below)


def _section(path: str, model: type[BaseModel]) -> str:
    lines = [f"## {f'`{path}`' if path else 'The file'}", "", about(model), ""]
    lines += ["| key | value | default | |", "|---|---|---|---|"]
    hints = get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        cells = [f"`{field.alias or name}`", _kind(hints[name]), _default(field, hints[name]), field.description or ""]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _kind(hint: Any) -> str:
    """A type, in words."""
    if hint in _WORDS:
        return _WORDS[hint]
    arguments = get_args(hint)
    match get_origin(hint):
        case typing.Annotated:
            return _kind(arguments[0])
        case typing.Union | types.UnionType:
            return " or ".join(dict.fromkeys(_kind(kind) for kind in arguments if kind is not type(None)))
        case typing.Literal:
            return ", ".join(f"`{argument}`" for argument in arguments)
        case builtins.list:
            return f"list: {_kind(arguments[0])}"
        case builtins.dict:
            return f"name: {_kind(arguments[1])}"
    return "see below"


def _default(field: FieldInfo, hint: Any) -> str:
    default = field.default
    if field.is_required():
        return "required"
    if default is PydanticUndefined or default is None or isinstance(default, BaseModel):
        return ""
    if hint == ByteSize:
        return f"`{default // 2**20}MiB`" if default % 2**30 else f"`{default // 2**30}GiB`"
    if hint == Seconds:
        return f"`{default:g}s`"
    return f"`{json.dumps(default) if isinstance(default, bool) else default}`"


def write() -> None:
    SCHEMA.write_text(schema())
    PAGE.write_text(page())


if __name__ == "__main__":
    write()
