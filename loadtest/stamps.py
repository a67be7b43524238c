"""A stamp on every produced record, in a place that survives decoding: ``stamp/<producer>/<split>/<seq>/<crc>``.

It ends the last field of the record, the agent, or, where that is not whole, the record. ``crc`` is the CRC-32 of the
record as it was before, followed by ``<producer>/<split>/<seq>``. So a record is known again wherever it turns up, as
a row of columns (``SIGNED`` makes those bytes again, in SQL) or as the raw bytes of a reject (``read_stamp``), and so
is a single changed byte.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from streamsvc.testing.access_logs import JSON_COLUMNS, Form

_STAMPED = re.compile(rb'(.*?)( ?)stamp/(\w+)/(\d+)/(\d+)/([0-9a-f]{8})("?\}?)', re.DOTALL)

AGENT = r"^(.*?) ?stamp/(\w+)/(\d+)/(\d+)/([0-9a-f]{8})$"
"""The agent column of a landed row: what was there before, producer, split, seq, crc."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """``intact``: the checksum fits what was stamped."""

    producer: str
    split: int
    seq: int
    intact: bool


def stamped(record: bytes, producer: str, split: int, seq: int) -> bytes:
    """The record with its stamp."""
    identity = b"%b/%d/%d" % (producer.encode(), split, seq)
    text = b"stamp/%b/%08x" % (identity, zlib.crc32(record + identity))
    if record.endswith(b"null}"):
        return b'%b"%b"}' % (record[:-5], text)
    for ending in (b'"}', b'"'):
        if record.endswith(ending):
            return b"%b %b%b" % (record[: -len(ending)], text, ending)
    return b"%b %b" % (record, text)


def read_stamp(raw: bytes) -> Stamp | None:
    """The stamp of raw bytes; ``None`` if there is none that is whole."""
    found = _STAMPED.fullmatch(raw)
    if found is None:
        return None
    before, space, producer, split, seq, crc, ending = found.groups()
    record = before[:-1] + b"null}" if not space and ending == b'"}' else before + ending
    identity = b"%b/%b/%b" % (producer, split, seq)
    return Stamp(producer.decode(), int(split), int(seq), zlib.crc32(record + identity) == int(crc, 16))


def seq_of(raw: bytes) -> int:
    """The seq of a record that is known to be stamped."""
    return int(raw[raw.rindex(b"stamp/") :].split(b"/", 4)[3])


# Columns back to the record. A backslash stays as it is before
# xHH, since there it is Apache's writing of a byte, which decoders leave alone.
_ESCAPED = r"""replace(replace({0}, '\', '\\'), '"', '\"')"""
_APACHE_QUOTED = rf"""'"' || regexp_replace({_ESCAPED}, '\\\\(x[0-9a-f]{{{{2}}}})', '\\\1', 'g') || '"'"""
_JSON_QUOTED = rf"""coalesce('"' || {_ESCAPED} || '"', 'null')"""


def _combined() -> str:
    words = "host, coalesce(ident, '-'), coalesce(authuser, '-')"
    time = "strftime(datetime, '[%d/%b/%Y:%H:%M:%S +0000]')"
    request = _APACHE_QUOTED.format("coalesce(request, '-')")
    referer = _APACHE_QUOTED.format("coalesce(referer, '-')")
    agent = _APACHE_QUOTED.format("stamp.agent")
    return f"concat_ws(' ', {words}, {time}, {request}, response, coalesce(bytes::varchar, '-'), {referer}, {agent})"


def _json() -> str:
    values = {name: _JSON_QUOTED.format(name) for name in JSON_COLUMNS}
    values["datetime"] = """strftime(datetime, '"%Y-%m-%dT%H:%M:%S+00:00"')"""
    values["response"] = "response"
    values["bytes"] = "coalesce(bytes::varchar, 'null')"
    values["agent"] = _JSON_QUOTED.format("nullif(stamp.agent, '')")
    fields = " || ',' || ".join(f"""'"{name}":' || {value}""" for name, value in values.items())
    return f"'{{' || {fields} || '}}'"


_IDENTITY = "concat_ws('/', stamp.producer, stamp.split, stamp.seq)"

SIGNED: dict[Form, str] = {"combined": f"{_combined()} || {_IDENTITY}", "json": f"{_json()} || {_IDENTITY}"}
"""For each form, a SQL expression over its columns and ``stamp``, a struct of the groups of ``AGENT`` (``agent``,
``producer``, ``split``, ``seq``, ``crc``): what the checksum was taken of."""

COLUMNS: dict[Form, tuple[str, ...]] = {
    "combined": ("host", "ident", "authuser", "datetime", "request", "response", "bytes", "referer", "agent"),
    "json": tuple(JSON_COLUMNS),
}
"""The columns that ``SIGNED`` reads."""
