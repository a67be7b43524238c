"""httpd's LogFormat strings: which columns a line has, and what stands between them.

Grammar, directives and what each prints: httpd 2.4, modules/loggers/mod_log_config.c (``parse_log_item``,
``log_pre_config`` and the ``log_*`` functions) and mod_logio.c.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "text", "state", "int16", "int32", "int64", "clf", "strftime", "epoch_s", "epoch_ms", "epoch_us", "request"
]
"""How a field's text becomes a column. ``text``: ``-`` is null; ``state``: ``-`` is a value; ``clf``:
``[day/month/year:hour:minute:second zone]``; ``request``: the request line and its three parts."""


@dataclass(frozen=True, slots=True)
class Field:
    """A place in the line that a directive fills.

    spaced:   the text may hold spaces although it is not quoted
    is_query: the text is empty, or starts with a question mark
    """

    directive: str
    name: str
    kind: Kind
    spaced: bool = False
    is_query: bool = False
    time_format: str = ""


Element: TypeAlias = str | Field
"""A literal text, or a field."""

NAMED_FORMATS: dict[str, tuple[Element, ...]] = {}
"""The formats that have a name of their own in httpd's shipped configuration."""

_PLAIN: dict[str, tuple[str, Kind, bool]] = {
    "h": ("host", "text", False),
    "a": ("client_ip", "text", False),
    "A": ("local_ip", "text", False),
    "l": ("ident", "text", False),
    "u": ("authuser", "text", True),
    "t": ("datetime", "clf", True),
    "r": ("request", "request", True),
    "m": ("method", "text", False),
    "U": ("path", "text", True),
    "q": ("query", "text", True),
    "H": ("protocol", "text", False),
    "s": ("response", "int16", False),
    "b": ("bytes", "int64", False),
    "B": ("bytes", "int64", False),
    "O": ("bytes_sent", "int64", False),
    "I": ("bytes_received", "int64", False),
    "S": ("bytes_transferred", "int64", False),
    "D": ("duration_us", "int64", False),
    "T": ("duration_s", "int64", False),
    "v": ("virtual_host", "text", False),
    "V": ("server_name", "text", False),
    "p": ("port", "int32", False),
    "P": ("process_id", "int64", False),
    "k": ("keepalive_requests", "int32", False),
    "X": ("connection_status", "state", False),
    "L": ("log_id", "text", False),
    "f": ("filename", "text", True),
    "R": ("handler", "text", True),
    "^FB": ("first_byte_us", "int64", False),
}
"""Directive -> column, kind, may hold spaces."""

_WITH_ARGUMENT: dict[str, tuple[str, Kind]] = {
    "{c}a": ("peer_ip", "text"),
    "{c}h": ("peer_host", "text"),
    "{c}L": ("connection_log_id", "text"),
    "{s}T": ("duration_s", "int64"),
    "{ms}T": ("duration_ms", "int64"),
    "{us}T": ("duration_us", "int64"),
    "{canonical}p": ("port", "int32"),
    "{local}p": ("local_port", "int32"),
    "{remote}p": ("remote_port", "int32"),
    "{pid}P": ("process_id", "int64"),
    "{tid}P": ("thread_id", "int64"),
    "{hextid}P": ("thread_id", "text"),
}

_NAMED_VALUES = {
    "i": "",
    "o": "response_",
    "^ti": "trailer_",
    "^to": "response_trailer_",
    "C": "cookie_",
    "e": "env_",
    "n": "note_",
    "x": "",
    "c": "ssl_",
}
"""``%{Name}X`` -> what its column's name begins with."""

_WELL_KNOWN_NAMES = {"user_agent": "agent"}

_EPOCHS: dict[str, tuple[str, Kind]] = {
    "sec": ("datetime", "epoch_s"),
    "msec": ("datetime", "epoch_ms"),
    "usec": ("datetime", "epoch_us"),
    "msec_frac": ("datetime_msec", "int32"),
    "usec_frac": ("datetime_usec", "int32"),
}

_SHORTHANDS = {"%T": "%H:%M:%S", "%R": "%H:%M", "%D": "%m/%d/%y", "%F": "%Y-%m-%d", "%h": "%b", "%e": "%d"}
_READABLE = frozenset("aAbBdmyYHIMSpjz%")
"""strftime letters that ``datetime.strptime`` reads."""
_INSTANTS = tuple(
    frozenset(year + day + hour + "Mz") for year in "yY" for day in ("j", "dm", "db", "dB") for hour in ("H", "Ip")
)

_DIRECTIVE = re.compile(
    r"%(?P<modifiers>[!<>,0-9]*)(?:\{(?P<argument>[^}]*)\})?(?P<more>[!<>,0-9]*)(?P<name>\^[A-Za-z]{2}|.)", re.DOTALL
)
_LITERAL_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n", r"\r": "\r", r"\t": "\t"}


def parse_log_format(text: str) -> tuple[Element, ...]:
    r"""The elements of a LogFormat string, literals joined, every field's ``name`` unique.

    ``\"`` may be written as in httpd.conf, or as ``"``. A name that comes twice gets ``_2``, ``_3``.
    Raises ValueError: a directive that is not known, with its column in ``text`` and a suggestion.
    """
    elements: list[Element] = []
    taken: set[str] = set()
    at = 0
    while at < len(text):
        if text[at] != "%":
            end = text.find("%", at)
            end = len(text) if end < 0 else end
            elements.append(re.sub(r"\\[\\\"nrt]", lambda escape: _LITERAL_ESCAPES[escape[0]], text[at:end]))
        elif text.startswith("%%", at):
            end = at + 2
            elements.append("%")
        else:
            found = _DIRECTIVE.match(text, at)
            if found is None:
                raise ValueError(f"LogFormat column {at + 1}: {text[at:]!r} is no complete directive")
            end = found.end()
            elements.append(_unique(_field(found, at + 1), taken))
        at = end
    if not taken:
        raise ValueError(f"LogFormat {text!r} has no directive, so it has no column")
    return _joined(elements)


def _field(found: re.Match[str], column: int) -> Field:
    directive, argument, name = found[0], found["argument"], found["name"]
    if argument is None and name in _PLAIN:
        column_name, kind, spaced = _PLAIN[name]
        return Field(directive, column_name, kind, spaced, is_query=name == "q")
    if argument is not None and name in _NAMED_VALUES and argument:
        slug = re.sub(r"[^a-z0-9]+", "_", argument.lower()).strip("_") or "value"
        return Field(directive, _NAMED_VALUES[name] + _WELL_KNOWN_NAMES.get(slug, slug), "text", spaced=True)
    if argument is not None and name == "t":
        return _time(directive, argument)
    known = _WITH_ARGUMENT.get(f"{{{(argument or '').lower()}}}{name}")
    if known is not None:
        return Field(directive, *known)
    raise ValueError(f"LogFormat column {column}: %{_shown(argument, name)} is not known{_suggestion(argument, name)}")


def _time(directive: str, argument: str) -> Field:
    """``%{begin:...}t`` and ``%{end:...}t``: when the request came, when it was answered.

    A strftime format that names no instant, above all one without a zone (``%z``), stays text: nobody here
    knows the zone of the server.
    """
    moment, _, rest = argument.partition(":")
    if moment in {"begin", "end"}:
        name, argument = ("datetime" if moment == "begin" else "end_datetime"), rest
    else:
        name = "datetime"
    if argument in _EPOCHS:
        column, kind = _EPOCHS[argument]
        return Field(directive, column.replace("datetime", name), kind)
    if not argument:
        return Field(directive, name, "clf", spaced=True)
    if argument == "%s":
        return Field(directive, name, "epoch_s")
    time_format = re.sub(r"%[TRDFhe]", lambda short: _SHORTHANDS[short[0]], argument)
    letters = set(re.findall(r"%(.)", time_format))
    if letters <= _READABLE and any(letters >= needed for needed in _INSTANTS):
        return Field(directive, name, "strftime", spaced=True, time_format=time_format)
    return Field(directive, name.replace("datetime", "time"), "text", spaced=True)


def _unique(field: Field, taken: set[str]) -> Field:
    names = column_names(field)
    number, suffix = 1, ""
    while any(name + suffix in taken for name in names):
        number += 1
        suffix = f"_{number}"
    taken.update(name + suffix for name in names)
    return Field(field.directive, field.name + suffix, field.kind, field.spaced, field.is_query, field.time_format)


def column_names(field: Field) -> tuple[str, ...]:
    """The columns that a field makes: one, or four for a request."""
    if field.kind != "request":
        return (field.name,)
    suffix = field.name.removeprefix("request")
    return (field.name, f"method{suffix}", f"path{suffix}", f"protocol{suffix}")


def _joined(elements: list[Element]) -> tuple[Element, ...]:
    joined: list[Element] = []
    for element in elements:
        if isinstance(element, str) and joined and isinstance(joined[-1], str):
            joined[-1] += element
        else:
            joined.append(element)
    return tuple(joined)


def _shown(argument: str | None, name: str) -> str:
    return name if argument is None else f"{{{argument}}}{name}"


def _suggestion(argument: str | None, name: str) -> str:
    if argument is None and name in _NAMED_VALUES:
        return f"; it needs a name: %{{Name}}{name}"
    if argument and name.lower() in _NAMED_VALUES:
        return f"; did you mean %{{{argument}}}{name.lower()}?"
    if argument is not None and name in _NAMED_VALUES:
        return f"; the name in the braces is empty: write for example %{{Referer}}{name}"
    if argument is not None:
        arguments = [key for key in _WITH_ARGUMENT if key.endswith(f"}}{name}")]
        if arguments:
            return f"; known are {', '.join('%' + key for key in arguments)}"
        if name in _PLAIN:
            return f"; it takes no argument: %{name}"
    other_case = [known for known in (*_PLAIN, *_NAMED_VALUES) if known.lower() == name.lower()]
    if other_case:
        known = other_case[0]
        return f"; did you mean %{f'{{Name}}{known}' if known in _NAMED_VALUES else known}?"
    close = difflib.get_close_matches(name, [*_PLAIN, *_NAMED_VALUES], n=1)
    if close:
        return f"; did you mean %{close[0]}?"
    return f"; known are {' '.join('%' + known for known in _PLAIN)} and %{{Name}}i o e n C x"


NAMED_FORMATS["common"] = parse_log_format('%h %l %u %t "%r" %>s %b')
NAMED_FORMATS["combined"] = parse_log_format('%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"')
NAMED_FORMATS["vhost_combined"] = (Field("%v:%p", "virtual_host", "text"), " ", *NAMED_FORMATS["combined"])
