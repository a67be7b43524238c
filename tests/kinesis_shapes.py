"""Whether a JSON document is what botocore's service model says: required members, types, and limits of values."""

from __future__ import annotations

import re
from binascii import a2b_base64
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "blob": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "timestamp": (int, float),
    "structure": (dict,),
    "list": (list,),
    "map": (dict,),
}


def problems(shape: Shape, value: Any, place: str = "$") -> list[str]:
    """Every way in which the value is not of the shape. A member that is not required may be null."""
    if not _is_of_type(value, _TYPES[shape.type_name]):
        return [f"{place}: {value!r} is no {shape.type_name}"]
    if isinstance(shape, StructureShape):
        return _of_members(shape, value, place)
    if isinstance(shape, ListShape):
        inner = [problem for n, item in enumerate(value) for problem in problems(shape.member, item, f"{place}[{n}]")]
        return inner + _of_length(shape, value, place)
    if isinstance(shape, MapShape):
        return [problem for key, item in value.items() for problem in problems(shape.value, item, f"{place}.{key}")]
    if shape.type_name == "blob":
        return _of_length(shape, a2b_base64(value, strict_mode=True) if value else b"", place)
    if isinstance(shape, StringShape):
        return _of_text(shape, value, place)
    least, most = shape.metadata.get("min", value), shape.metadata.get("max", value)
    return [] if least <= value <= most else [f"{place}: {value} is not in {least}..{most}"]


def _is_of_type(value: Any, wanted: tuple[type, ...]) -> bool:
    """A JSON true is no number, though Python's is."""
    return type(value) in wanted


def _of_members(shape: StructureShape, value: dict[str, Any], place: str) -> list[str]:
    found = [f"{place}.{name} is required" for name in shape.required_members if value.get(name) is None]
    for name, item in value.items():
        if name not in shape.members:
            found.append(f"{place}.{name} is not of {shape.name}")
        elif item is not None:
            found += problems(shape.members[name], item, f"{place}.{name}")
    return found


def _of_text(shape: StringShape, value: str, place: str) -> list[str]:
    found = _of_length(shape, value, place)
    if shape.enum and value not in shape.enum:
        found.append(f"{place}: {value!r} is none of {shape.enum}")
    if "pattern" in shape.metadata and re.search(shape.metadata["pattern"], value) is None:
        found.append(f"{place}: {value!r} does not match {shape.metadata['pattern']}")
    return found


def _of_length(shape: Shape, value: Any, place: str) -> list[str]:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", len(value))
    return [] if least <= len(value) <= most else [f"{place}: {len(value)} long, not {least}..{most}"]
