"""httpd's error log, as 2.2 and 2.4 write it by default.

2.4: server/log.c ``do_errorlog_default``; 2.2: ``log_error_core`` of the same file::

    [Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 4328636416] (2)No such file or directory: \
[client 72.15.99.187:5150] AH00035: access to / denied
    [Wed Oct 11 14:32:52 2000] [error] [client 127.0.0.1] client denied by server configuration: /export
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.decoders import timestamps
from streamsvc.decoders.fields import NUMBER, TIMESTAMP
from streamsvc.decoders.sifting import (
    MALFORMED,
    Fault,
    excerpt,
    screen_lines,
    sift,
)
from streamsvc.records import Sifted

_SCHEMA = pa.schema(
    [
        ("timestamp", timestamps.UTC),
        ("module", pa.string()),
        ("severity", pa.string()),
        ("processid", pa.int64()),
        ("threadid", pa.int64()),
        ("client", pa.string()),
        ("message", pa.string()),
    ]
)

_WHEN = r"\[[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) (?P<day>[ 0-9]?[0-9]) (?P<clock>[0-9:.]+) (?P<year>[0-9]{4})\]"
_SEVERITY = r"\[(?:(?P<module>[^\]:]*):)?(?P<severity>[a-z]+[0-9]?)\]"
_PROCESS = r"(?: \[pid (?P<processid>[0-9]+)(?::tid (?P<threadid>[0-9]+))?\])?"
_MESSAGE = r"(?:(?P<before>[^\[\]]*: )?\[(?:client|remote) (?P<client>[^\]]*)\] )?(?P<message>.*)"
_LINE = f"(?s)^{_WHEN} {_SEVERITY}{_PROCESS} {_MESSAGE}$"
_GROUPS = re.findall(r"\?P<(\w+)>", _LINE)


class ErrorLogDecoder:
    """Rejects: ``encoding``, ``malformed``, ``timestamp``, ``number``, ``too_long``.

    The log does not say in which zone its times are: they are taken as UTC. What httpd writes between process and
    client (source file, system error) is put in front of ``message``. Module, process, thread and client are null
    where a line does not have them.
    """

    version = 1

    @property
    def schema(self) -> pa.Schema:
        return _SCHEMA

    def decode(self, values: pa.Array) -> Sifted:
        lines, records = screen_lines(values)
        found = pc.extract_regex(lines, _LINE)
        text = dict(zip(_GROUPS, found.flatten(), strict=True))
        when = timestamps.from_ctime(text["month"], text["day"], text["clock"], text["year"])
        columns = {
            "timestamp": when,
            "module": _present(text["module"]),
            "severity": text["severity"],
            "processid": _number(text["processid"]),
            "threadid": _number(text["threadid"]),
            "client": _present(text["client"]),
            "message": pc.binary_join_element_wise(text["before"], text["message"], ""),
        }
        faults = _faults(lines, found.is_null(), MALFORMED, "no error log line of httpd")
        faults |= _faults(lines, pc.and_(found.is_valid(), when.is_null()), TIMESTAMP, "no such time")
        for name in ("processid", "threadid"):
            overflow = pc.and_(columns[name].is_null(), pc.not_equal(text[name], ""))
            faults |= _faults(lines, overflow.fill_null(False), NUMBER, f"{name} is out of range")
        return sift(_SCHEMA, records, [columns[name] for name in _SCHEMA.names], faults)


def _present(text: pa.Array) -> pa.Array:
    """RE2 gives an empty text for a group that took no part."""
    return pc.if_else(pc.equal(text, ""), None, text)


def _number(text: pa.Array) -> pa.Array:
    """int64; null where there is no text, and where it has more than 18 digits."""
    return pc.if_else(pc.match_substring_regex(text, "^[0-9]{1,18}$"), text, None).cast(pa.int64())


def _faults(lines: pa.Array, where: pa.Array, reason: str, what: str) -> dict[int, Fault]:
    rows = pc.indices_nonzero(where)
    found = zip(rows.to_pylist(), lines.take(rows).to_pylist(), strict=True)
    return {row: Fault(reason, f"{what}: {excerpt(line)}") for row, line in found}
