"""Reading a configuration: YAML, environment variables, models; every problem at once, each with its place.

config.yaml:12:9: pipelines.access.sink.formt: unknown key; did you mean `format`?
"""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from streamsvc.config import Service
from streamsvc.config_checks import Place, faults
from streamsvc.config_problems import explain
from streamsvc.errors import ConfigError

__all__ = ["Loaded", "Place", "load"]

MAX_FILE_BYTES = 1024 * 1024
MAX_VALUES = 50_000
"""Aliases can make a small file large."""

MAX_DEPTH = 40

_TAG = "tag:yaml.org,2002:"
_SHORT = 4
"""Values of environment variables are not searched for in messages if they are shorter than this."""

_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{[^}]*\}?")

_SAID_BETTER = {
    "found unexpected end of stream": "a quote that is not closed",
    "expected ',' or '}', but got '<scalar>'": "inside { } a text with a comma, or with a quote in it, needs quotes",
    "expected ',' or '}', but got '<stream end>'": "a { that is not closed",
    "expected ',' or ']', but got '<stream end>'": "a [ that is not closed",
    "expected ',' or ']', but got '<scalar>'": "inside [ ] a text with a comma, or with a quote in it, needs quotes",
    "found character '\\t' that cannot start any token": "a tab; YAML is indented with spaces",
    "mapping values are not allowed here": "`: ` inside a value that has no quotes, or a line indented too far",
    "but found another document": "a second document; write one",
    "expected <block end>, but found '<block mapping start>'": "indented neither like the lines above nor below them",
}


Mark: TypeAlias = tuple[int, int]
"""Line and column, from 1."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where in the file each value stands, and which values must not be shown."""

    file: Path
    marks: dict[Place, Mark] = field(default_factory=lambda: {(): (1, 1)})
    variables: dict[str, str] = field(default_factory=dict, repr=False)
    """Value -> name, of the environment variables that were used."""

    def mark(self, place: Place) -> Mark:
        """Of the place, or of what is nearest above it."""
        while place not in self.marks:
            place = place[:-1]
        return self.marks[place]

    def line(self, mark: Mark, place: Place, what: str) -> str:
        """As ``ConfigError`` takes it."""
        while place not in self.marks:
            place = place[:-1]
        for value in sorted(self.variables, key=len, reverse=True):
            what = what.replace(value, f"${{{self.variables[value]}}}")
        path = f"{'.'.join(str(part) for part in place)}: " if place else ""
        return f"{self.file}:{mark[0]}:{mark[1]}: {path}{what}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration, and where in the file each value of it stands."""

    service: Service
    places: Places

    def problem(self, place: Place, what: str) -> str:
        """A line for ``ConfigError``, for who finds fault with a value of ``service``."""
        return self.places.line(self.places.mark(place), place, what)


def load(file: Path, environment: Mapping[str, str] = os.environ) -> Loaded:
    """Raises ``ConfigError``. No value of an environment variable or of a secret is in its text."""
    places = Places(file)
    reader = _Reader(places, environment)
    document = reader.plain(_composed(file, _text(file)))
    found: list[tuple[Place, str]] = []
    service: Service | None = None
    try:
        service = Service.model_validate(document)
        found += faults(service)
    except ValidationError as invalid:
        found += explain(invalid.errors(include_url=False, include_input=False), document, Service)
    unread = {place for _, place, _ in reader.problems}
    problems = [*reader.problems, *((places.mark(place), place, what) for place, what in found if place not in unread)]
    if service is None or problems:
        raise ConfigError(list(dict.fromkeys(places.line(*problem) for problem in sorted(problems, key=itemgetter(0)))))
    return Loaded(service, places)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = f"; `streamsvc init {file}` writes a first one" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError([f"{file}:1:1: cannot be read: {error.strerror}{hint}"]) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError([f"{file}:1:1: larger than {MAX_FILE_BYTES >> 20} MiB: not a configuration"])
    raw = raw.removeprefix(BOM_UTF8)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise ConfigError([f"{file}:{line}:{column}: not UTF-8 from here on; save the file as UTF-8"]) from None


def _composed(file: Path, text: str) -> MappingNode:
    """The tree of nodes. Nothing is constructed: no tag does anything, and no value gets into a message."""
    line, column, what = 1, 1, "the file is empty; start with `service: NAME`"
    try:
        tree = YAML(typ="safe", pure=True).compose(StringIO(text))
        if isinstance(tree, MappingNode):
            return tree
        if tree is not None:
            what = "the file must hold keys with values; start with `service: NAME`"
    except MarkedYAMLError as error:
        at_the_end = error.problem_mark is not None and error.problem_mark.index >= len(text)
        mark = (at_the_end and error.context_mark) or error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = _SAID_BETTER.get(error.problem, error.problem) or "not YAML"
        if text.split("\n")[line - 1][max(column - 2, 0) :].startswith("${"):
            what = "${...} needs quotes inside { } and [ ]"
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        what = f"a character that no YAML may hold: {error.character:#x}"
    except YAMLError:
        what = "not YAML"
    except RecursionError:
        what = "nested too deeply"
    raise ConfigError([f"{file}:{line}:{column}: {what}"])


class _Reader:
    """Nodes as plain values; marks and problems on the way."""

    def __init__(self, places: Places, environment: Mapping[str, str]) -> None:
        self.problems: list[tuple[Mark, Place, str]] = []
        self._places = places
        self._environment = environment
        self._around: list[Node] = []
        self._values = 0

    def plain(self, node: Node, place: Place = ()) -> Any:
        """Raises ``ConfigError`` for what is too large to go on with."""
        self._values += 1
        if self._values > MAX_VALUES or len(place) > MAX_DEPTH:
            what = f"more than {MAX_VALUES} values once aliases are followed, or nested more than {MAX_DEPTH} deep"
            raise ConfigError([self._places.line(_mark(node), (), what)])
        if self._is_around(node):
            self._add(node, place, "an alias of what it stands in")
            return None
        self._around.append(node)
        try:
            return self._plain(node, place)
        finally:
            self._around.pop()

    def _plain(self, node: Node, place: Place) -> Any:
        kind = (node.tag or "").removeprefix(_TAG)
        if isinstance(node, MappingNode) and kind == "map":
            return {
                key: self.plain(value, self._marked(at, (*place, key))) for key, at, value in self._pairs(node, place)
            }
        if isinstance(node, SequenceNode) and kind == "seq":
            return [self.plain(item, self._marked(item, (*place, number))) for number, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and kind in _SCALARS:
            value = _SCALARS[kind](node.value)
            return self._interpolated(value, node, place) if isinstance(value, str) else value
        self._add(node, place, f"the tag {kind} is not understood: leave it out")
        return None

    def _pairs(self, node: MappingNode, place: Place) -> Iterator[tuple[str, Node, Node]]:
        """Keys, where they stand, and values. What ``<<`` merges comes last and overrides nothing."""
        seen: set[str] = set()
        merged: list[Node] = []
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                merged += value.value if isinstance(value, SequenceNode) else [value]
            elif not isinstance(key, ScalarNode):
                self._add(key, place, "a key must be text")
            elif key.value in seen:
                self._add(key, (*place, key.value), "this key is here twice")
            else:
                seen.add(key.value)
                yield key.value, key, value
        for source in merged:
            if not isinstance(source, MappingNode) or self._is_around(source):
                self._add(source, place, "<< merges keys and values of another place, by its alias")
                continue
            self._around.append(source)
            for name, key, value in self._pairs(source, place):
                if name not in seen:
                    seen.add(name)
                    yield name, key, value
            self._around.pop()

    def _interpolated(self, text: str, node: Node, place: Place) -> str:
        """``${NAME}`` and ``${NAME:-default}``, which also stands for a value that is empty; ``$${`` is ``${``."""

        def value(match: re.Match[str]) -> str:
            name, default = match.groups()
            if match[0] == "$${":
                return "${"
            if name is None:
                self._add(node, place, f"{match[0]} names no variable; write $${{ for the characters ${{")
                return ""
            given = self._environment.get(name)
            if given is None and default is None:
                self._add(node, place, f"the environment variable {name} is not set; a default: ${{{name}:-...}}")
                return ""
            if given is not None and len(given) >= _SHORT:
                self._places.variables[given] = name
            return given or default or ""

        return _VARIABLE.sub(value, text)

    def _marked(self, node: Node, place: Place) -> Place:
        self._places.marks[place] = _mark(node)
        return place

    def _add(self, node: Node, place: Place, what: str) -> None:
        self.problems.append((_mark(node), place, what))

    def _is_around(self, node: Node) -> bool:
        return any(node is above for above in self._around)


def _mark(node: Node) -> Mark:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _number(text: str) -> int | float | str:
    for reading in (partial(int, base=0), int, float):
        try:
            return reading(text)
        except ValueError:
            continue
    return text


def _as_it_is(text: str) -> str:
    return text


_SCALARS: Mapping[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": _number,
    "float": _number,
    "str": _as_it_is,
    "timestamp": _as_it_is,
    "merge": _as_it_is,
    "value": _as_it_is,
}
"""By the name of the tag. A time stays the text that it is: what it means is for its field to say."""
