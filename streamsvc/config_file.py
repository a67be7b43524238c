"""Reading a configuration: YAML, environment variables, models; every problem at once, each with its place.

config.yaml:12:9: pipelines.access.sink.formt: unknown key; did you mean `format`?
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from streamsvc.config import Service
from streamsvc.errors import ConfigError

Place: TypeAlias = tuple[str | int, ...]
"""The way from the top of the file to a value: keys, and numbers of list items."""

MAX_FILE_BYTES = 1024 * 1024
MAX_VALUES = 50_000
"""Aliases can make a small file large."""

_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration, and where in the file each value of it stands."""

    service: Service
    file: Path
    marks: Mapping[Place, tuple[int, int]]

    def problem(self, place: Place, what: str) -> str:
        """A line for ``ConfigError``: file, line and column of the place, or of what is nearest above it."""
        return _problem(self.file, self.marks, place, what)


def load(file: Path, environment: Mapping[str, str] = os.environ) -> Loaded:
    """Raises ``ConfigError``. Values never appear in its text: any of them may be a secret."""
    reader = _Reader(file, environment)
    document = reader.read()
    service: Service | None = None
    try:
        service = Service.model_validate(document)
    except ValidationError as invalid:
        reader.problems += [_explain(reader, error) for error in invalid.errors(include_url=False, include_input=False)]
    if service is None or reader.problems:
        raise ConfigError(sorted(set(reader.problems), key=_by_line))
    return Loaded(service, file, reader.marks)


class _Reader:
    """The file as plain values; marks and problems on the way."""

    def __init__(self, file: Path, environment: Mapping[str, str]) -> None:
        self.file = file
        self.marks: dict[Place, tuple[int, int]] = {(): (1, 1)}
        self.problems: list[str] = []
        self._environment = environment

    def read(self) -> dict[str, Any]:
        try:
            tree = YAML(typ="rt").load(StringIO(self._text()))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            what = (error.problem or "not YAML").splitlines()[0]
            raise ConfigError([f"{self.file}:{line}:{column}: {what}"]) from None
        except YAMLError as error:
            raise ConfigError([f"{self.file}:1:1: {str(error).splitlines()[0]}"]) from None
        if not isinstance(tree, CommentedMap):
            what = "the file is empty" if tree is None else "the file must hold keys and values"
            raise ConfigError([f"{self.file}:1:1: {what}; start with `service: NAME`"])
        plain = self._plain(tree, ())
        assert isinstance(plain, dict)
        return plain

    def _text(self) -> str:
        try:
            with self.file.open("rb") as stream:
                raw = stream.read(MAX_FILE_BYTES + 1)
            if len(raw) > MAX_FILE_BYTES:
                raise ConfigError([f"{self.file}: larger than {MAX_FILE_BYTES} bytes: not a configuration"])
            return raw.decode("utf-8-sig")
        except OSError as error:
            raise ConfigError([f"{self.file}: cannot be read: {error.strerror}"]) from None
        except UnicodeDecodeError as error:
            raise ConfigError([f"{self.file}: not UTF-8 at byte {error.start}"]) from None

    def _plain(self, node: object, place: Place) -> object:
        if len(self.marks) > MAX_VALUES:
            raise ConfigError([f"{self.file}: more than {MAX_VALUES} values once its aliases are followed"])
        if isinstance(node, CommentedMap):
            return {str(key): self._plain(value, self._mark(node, key, place)) for key, value in node.items()}
        if isinstance(node, CommentedSeq):
            return [self._plain(value, self._mark(node, number, place)) for number, value in enumerate(node)]
        return self._interpolated(str(node), place) if isinstance(node, str) else node

    def _mark(self, node: CommentedMap | CommentedSeq, key: Any, place: Place) -> Place:
        below = (*place, key if isinstance(key, int) and isinstance(node, CommentedSeq) else str(key))
        line, column = node.lc.key(key) if isinstance(node, CommentedMap) else node.lc.item(key)
        self.marks[below] = (line + 1, column + 1)
        return below

    def _interpolated(self, text: str, place: Place) -> str:
        """``${NAME}`` and ``${NAME:-default}``; ``$${`` stands for ``${``."""

        def value(match: re.Match[str]) -> str:
            name, default, malformed = match.groups()
            if match[0] == "$${":
                return "${"
            if malformed is not None:
                self._add(place, f"${{{malformed}}} names no variable; `$${{` stands for itself")
                return ""
            found = self._environment.get(name, default)
            if found is None:
                self._add(place, f"the environment variable {name} is not set; give a default: ${{{name}:-...}}")
                return ""
            return found

        return _VARIABLE.sub(value, text)

    def _add(self, place: Place, what: str) -> None:
        self.problems.append(_problem(self.file, self.marks, place, what))


def _problem(file: Path, marks: Mapping[Place, tuple[int, int]], place: Place, what: str) -> str:
    known = place
    while known not in marks:
        known = known[:-1]
    line, column = marks[known]
    path = ".".join(str(part) for part in known)
    return f"{file}:{line}:{column}: {path}: {what}" if path else f"{file}:{line}:{column}: {what}"


def _by_line(problem: str) -> tuple[int, int, str]:
    found = re.search(r":(\d+):(\d+): ", problem)
    return (int(found[1]), int(found[2]), problem) if found else (0, 0, problem)


def _explain(reader: _Reader, error: Any) -> str:
    place: Place = error["loc"]
    match error["type"]:
        case "extra_forbidden":
            known = [name for model in _models_at(place[:-1]) for name in _names(model)]
            return _problem(reader.file, reader.marks, place, f"unknown key{_suggestion(str(place[-1]), known)}")
        case "missing":
            return _problem(reader.file, reader.marks, place[:-1], f"`{place[-1]}` is missing")
        case _:
            return _problem(reader.file, reader.marks, place, str(error["msg"]).removeprefix("Value error, "))


def _suggestion(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; there are: {', '.join(sorted(known))}" if known else ""


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_at(place: Place) -> list[type[BaseModel]]:
    """The models that a mapping at this place may be."""
    models: list[type[BaseModel]] = [Service]
    kinds: list[Any] = [Service]
    for part in place:
        kinds = [inner for kind in kinds for inner in _step(kind, part)]
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return models


def _step(kind: Any, part: str | int) -> Iterator[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                yield from _alternatives(field.annotation)
    elif get_origin(kind) is dict:
        yield from _alternatives(get_args(kind)[1])
    elif get_origin(kind) is list:
        yield from _alternatives(get_args(kind)[0])


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType):
        for inner in get_args(annotation):
            yield from _alternatives(inner)
    elif get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    else:
        yield annotation
