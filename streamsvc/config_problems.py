"""What the models say of a configuration, in words for whoever wrote it: what must be there, and what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from streamsvc.config_checks import Place
from streamsvc.config_types import IN_WORDS, about

_EXPECTED = {
    "string": "text, which may need quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list ([a, b])",
    "dict": "keys with values",
    "model": "keys with values",
}
_OTHER_KIND = re.compile(rf"({'|'.join(_EXPECTED)})(_type|_parsing|_from_float|_attributes_type|_parsing_size)")

_LIMITS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "finite_number": "must be a finite number",
}


@dataclass
class _Found:
    """What was said of one value."""

    messages: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """What it may be instead; of a value that may be several things, one for each."""


def explain(errors: Sequence[ErrorDetails], document: object, model: type[BaseModel]) -> Iterator[tuple[Place, str]]:
    """Each place that is wrong once, with what is wrong.

    document: what was validated, as ``model``

    Values are never repeated: any of them may be a secret.
    """
    found: dict[Place, _Found] = {}
    for error in errors:
        place, value, missing = _place_in(document, error["loc"])
        at = found.setdefault(place, _Found())
        if error["type"] == "missing":
            at.messages.append(f"`{missing}` is missing")
        elif error["type"] == "extra_forbidden":
            at.messages.append(f"unknown key{_meant(str(place[-1]), _keys_at(model, place[:-1]))}")
        elif error["type"] in {"literal_error", "enum"}:
            at.kinds.append(_one_of(error, value))
        elif (kind := _OTHER_KIND.fullmatch(error["type"])) is not None:
            at.kinds.append(_EXPECTED[kind[1]])
        else:
            at.messages.append(_message(error))
    inside = {place[:depth] for place in found for depth in range(len(place))}
    for place, at in found.items():
        # Where a value may be one of several things, and is wrong inside as one of them, the others do not matter.
        if at.kinds and not at.messages and place not in inside:
            listed = any(kind.startswith("one of ") for kind in at.kinds)
            yield place, f"must be {' or '.join(dict.fromkeys(at.kinds))}{'' if listed else _about(model, place)}"
        for message in dict.fromkeys(at.messages):
            yield place, message


def _place_in(document: Any, loc: Sequence[str | int]) -> tuple[Place, object, str]:
    """The place in the document, its value, and the key that is not there.

    Beside keys and indices, a ``loc`` names the alternative of a union that was tried."""
    place: list[str | int] = []
    value, absent = document, ""
    for part in loc:
        known = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if known:
            value = value[part]
            place.append(part)
        else:
            absent = str(part)
    return tuple(place), value, absent


def _message(error: ErrorDetails) -> str:
    if error["type"] == "string_pattern_mismatch":
        return f"must be {IN_WORDS[error['ctx']['pattern']]}"
    limit = _LIMITS.get(error["type"])
    if limit is not None:
        return limit.format(**{name: _amount(bound) for name, bound in error.get("ctx", {}).items()})
    return error["msg"].removeprefix("Value error, ")


def _amount(bound: object) -> object:
    """Large bounds are bytes."""
    mebibyte = 1024 * 1024
    if isinstance(bound, int) and bound >= mebibyte:
        return f"{bound // mebibyte}MiB"
    return f"{bound:g}" if isinstance(bound, float) else bound


def _one_of(error: ErrorDetails, value: object) -> str:
    known = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
    if len(known) == 1:
        return f"`{known[0]}`"
    return f"one of {', '.join(known)}{_meant(value, known, otherwise='')}"


def _meant(word: object, known: list[str], *, otherwise: str | None = None) -> str:
    """``; did you mean ...?``, or else ``otherwise``, or else all there are."""
    by_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_case, n=1) if isinstance(word, str) else []
    if close:
        return f"; did you mean `{by_case[close[0]]}`?"
    if otherwise is None:
        return f"; there are: {', '.join(sorted(known))}" if known else ""
    return otherwise


def _keys_at(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that a mapping at this place may have."""
    return [entry.alias or name for kind in _kinds_at(model, place) for name, entry in kind.model_fields.items()]


def _about(model: type[BaseModel], place: Place) -> str:
    """What the reference says of a key, in parentheses: it shows how a value is written."""
    for kind in _kinds_at(model, place[:-1]):
        for name, entry in kind.model_fields.items():
            if place and place[-1] == (entry.alias or name):
                models = [inner for inner in _alternatives(entry.annotation) if _is_model(inner)]
                said = about(models[0]) if models else entry.description
                return f" ({said})" if said else ""
    return ""


def _kinds_at(model: type[BaseModel], place: Place) -> list[type[BaseModel]]:
    """The models that a mapping at this place may be."""
    kinds: list[Any] = [model]
    for part in place:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return [kind for kind in kinds if _is_model(kind)]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _inside(kind: Any, part: str | int) -> Iterator[Any]:
    if _is_model(kind):
        for name, entry in kind.model_fields.items():
            if part == (entry.alias or name):
                yield from _alternatives(entry.annotation)
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
