"""KPL aggregates against the reader and the writer of AWS, and against bytes that nobody should send."""

import base64
import hashlib
import tracemalloc
from typing import Any

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import deaggregate_records, messages_pb2
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.core.kpl import (
    EVERYTHING,
    LAST_HASH_KEY,
    MAGIC,
    Aggregator,
    HashRange,
    Put,
    UserRecords,
    deaggregate,
    encode_aggregate,
    hash_key,
)
from streamsvc.core.protobuf_wire import (
    Undecodable,
    hash_table_entry,
    key_table_entry,
    read_aggregate,
    record_entry,
    varint,
)

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300) | st.sampled_from("abc")
data = st.binary(max_size=300)
explicit = st.none() | st.integers(0, LAST_HASH_KEY).map(str)
user_records = st.lists(st.tuples(keys, data, explicit), max_size=40)
LOWER_HALF = HashRange(0, LAST_HASH_KEY // 2)


def sealed(body: bytes) -> bytes:
    return MAGIC + body + hashlib.md5(body).digest()


def unpack(*values: bytes, hashes: HashRange = EVERYTHING) -> UserRecords:
    return deaggregate(["outer"] * len(values), values, hashes)


def packed(records: list[tuple[str, bytes, str | None]], max_bytes: int = 2**40) -> list[Put]:
    aggregator = Aggregator(max_bytes)
    puts = [aggregator.add(*record) for record in records]
    return [put for put in (*puts, aggregator.flush()) if put is not None]


def by_aws(value: bytes) -> list[tuple[str, bytes, int | None]]:
    kinesis: dict[str, Any] = {
        "kinesisSchemaVersion": "1.0",
        "sequenceNumber": "1",
        "partitionKey": "outer",
        "approximateArrivalTimestamp": 0.0,
        "data": base64.b64encode(value),
    }
    return [
        (
            record["kinesis"]["partitionKey"],
            base64.b64decode(record["kinesis"]["data"]),
            record["kinesis"].get("subSequenceNumber"),
        )
        for record in deaggregate_records([{"kinesis": kinesis}])
    ]


@settings(deadline=None)
@given(user_records.filter(len))
def test_aws_reads_what_we_write(records: list[tuple[str, bytes, str | None]]) -> None:
    with_hash_key_or_without = [record[:2] for record in records]
    value = encode_aggregate(with_hash_key_or_without)
    assert by_aws(value) == [(key, value, sub) for sub, (key, value) in enumerate(with_hash_key_or_without)]


@settings(deadline=None)
@given(user_records.filter(len))
def test_we_read_what_aws_writes(records: list[tuple[str, bytes, str | None]]) -> None:
    writer = RecordAggregator()
    for key, value, explicit_hash_key in records:
        writer.add_user_record(key, value, explicit_hash_key)
    unpacked = unpack(writer.clear_and_get().get_contents()[2])
    assert list(zip(unpacked.keys, unpacked.values, strict=True)) == [record[:2] for record in records]
    assert unpacked.met == {"aggregates": 1}


@settings(deadline=None)
@given(user_records, st.integers(0, 2000))
def test_packing_keeps_every_record_in_order(records: list[tuple[str, bytes, str | None]], max_bytes: int) -> None:
    puts = packed(records, max_bytes)
    unpacked = deaggregate([put.partition_key for put in puts], [put.data for put in puts], EVERYTHING)
    assert list(zip(unpacked.keys, unpacked.values, strict=True)) == [record[:2] for record in records]
    assert all(len(put.data) <= max_bytes for put in puts if put.partition_key == "a" and put.data.startswith(MAGIC))
    firsts = [sum(unpacked.counts[:put]) for put in range(len(puts))]
    assert [hash_key(put.partition_key, put.explicit_hash_key) for put in puts] == [
        hash_key(records[first][0], records[first][2]) for first in firsts
    ]


def test_size_is_known_before_encoding() -> None:
    aggregator = Aggregator(10**6)
    for number in range(300):
        aggregator.add(f"key {number % 7}", b"x" * number, str(number % 3))
        assert aggregator.nbytes == len(aggregator.encode())


def test_columns_of_an_answer() -> None:
    unpacked = unpack(
        b"plain",
        encode_aggregate([("k", b"a"), ("l", b"b"), ("k", b"c")]),
        b"",
        encode_aggregate([("m", b"d"), ("m", b"e")]),
    )
    assert unpacked.keys == ["outer", "k", "l", "k", "outer", "m", "m"]
    assert unpacked.values == [b"plain", b"a", b"b", b"c", b"", b"d", b"e"]
    assert unpacked.rows().to_pylist() == [0, 1, 1, 1, 2, 3, 3]
    assert unpacked.subs().to_pylist() == [0, 0, 1, 2, 0, 0, 1]
    assert unpacked.last_sub == 2


def test_an_answer_without_aggregates_is_not_copied() -> None:
    values = [b"a", b"b"]
    unpacked = deaggregate(["k", "l"], values, EVERYTHING)
    assert unpacked.values is values
    assert unpacked.rows().to_pylist() == [0, 1]
    assert unpacked.subs().to_pylist() == [0, 0]
    assert deaggregate([], [], EVERYTHING).rows().to_pylist() == []


@settings(deadline=None)
@given(user_records.filter(len), st.integers(0, LAST_HASH_KEY), st.integers(0, LAST_HASH_KEY))
def test_one_record_out_of_range_drops_the_aggregate(
    records: list[tuple[str, bytes, str | None]], one: int, other: int
) -> None:
    hashes = HashRange(min(one, other), max(one, other))
    aggregator = Aggregator(2**40)
    for record in records:
        aggregator.add(*record)
    value = aggregator.encode()
    belong = all(hashes.first <= hash_key(key, explicit) <= hashes.last for key, _, explicit in records)
    dropped = unpack(b"before", value, hashes=hashes)
    kept = deaggregate(["outer"], [value], hashes, "keep")
    assert dropped.values == [b"before", *(record[1] for record in records if belong)]
    assert dropped.counts == [1, len(records) if belong else 0]
    assert kept.values == [record[1] for record in records]
    assert dropped.last_sub == kept.last_sub == len(records)
    expected = {"aggregates": 1} | ({} if belong else {"out_of_range": 1, "out_of_range_records": len(records)})
    assert dropped.met == kept.met == expected


def test_a_shards_range_includes_both_ends() -> None:
    def fits(key: int) -> bool:
        aggregator = Aggregator()
        aggregator.add("k", b"x", str(key))
        return bool(unpack(aggregator.encode(), hashes=HashRange(10, 20)).values)

    assert [fits(key) for key in (9, 10, 20, 21)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("bad_digest", MAGIC),
        ("bad_digest", MAGIC + bytes(16)),
        ("bad_digest", MAGIC + hashlib.md5(b"").digest()),
        ("bad_digest", MAGIC + b"\x0a\x00" + bytes(16)),
        ("bad_body", sealed(b"\x1a")),
        ("bad_body", sealed(b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")),
        ("bad_body", sealed(b"\x1a" + b"\xff" * 12)),
        ("bad_body", sealed(b"\x0a\x05abc")),
        ("bad_body", sealed(b"\x0a\x01\xff")),
        ("bad_body", sealed(b"\x1a\x02\x08\x00")),
        ("bad_body", sealed(b"\x1a\x02\x1a\x00")),
        ("bad_body", sealed(b"\x1b" * 5000)),
        ("bad_body", sealed(b"\x00\x00")),
        ("bad_index", sealed(record_entry(0, -1, b"x"))),
        ("bad_index", sealed(key_table_entry(b"k") + record_entry(0, -1, b"x") + record_entry(1, -1, b"y"))),
        ("bad_index", sealed(key_table_entry(b"k") + record_entry(2**64 - 1, -1, b"x"))),
        ("bad_index", sealed(key_table_entry(b"k") + record_entry(0, 0, b"x"))),
        ("bad_hash_key", sealed(key_table_entry(b"k") + hash_table_entry(b"12a") + record_entry(0, 0, b"x"))),
        ("bad_hash_key", sealed(key_table_entry(b"k") + hash_table_entry(b"") + record_entry(0, 0, b"x"))),
        ("bad_hash_key", sealed(key_table_entry(b"k") + hash_table_entry(b"1" * 5000) + record_entry(0, 0, b"x"))),
    ],
)
def test_what_only_looks_like_an_aggregate_is_passed_on(reason: str, value: bytes) -> None:
    unpacked = unpack(value, b"after", hashes=LOWER_HALF)
    assert unpacked.values == [value, b"after"]
    assert unpacked.keys == ["outer", "outer"]
    assert unpacked.subs().to_pylist() == [0, 0]
    assert unpacked.met == {reason: 1}


def test_an_aggregate_of_nothing_is_nothing() -> None:
    unpacked = unpack(sealed(key_table_entry(b"k")))
    assert (unpacked.values, unpacked.counts, unpacked.last_sub) == ([], [0], 1)


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_bytes_are_survived(body: bytes, rest: bytes) -> None:
    whole = encode_aggregate([("key", body), ("other", rest)])[4:-16]
    for value in (body, MAGIC + body, sealed(body), sealed(whole[: len(body) % len(whole)]), sealed(whole + rest)):
        unpacked = unpack(value, hashes=LOWER_HALF)
        assert len(unpacked.values) == len(unpacked.keys) == sum(unpacked.counts)


def padded(number: int, more: int) -> bytes:
    """A varint with zeros behind it, which is allowed."""
    plain = bytearray(varint(number))
    more = min(more, 10 - len(plain))
    if more:
        plain[-1] |= 128
        plain += b"\x80" * (more - 1) + b"\x00"
    return bytes(plain)


numbers = st.builds(padded, st.integers(0, 300) | st.integers(0, 2**64 - 1), st.integers(0, 3))
contents = {
    0: numbers,
    1: st.binary(min_size=8, max_size=8),
    2: st.binary(max_size=200).map(lambda text: varint(len(text)) + text),
    5: st.binary(min_size=4, max_size=4),
}


def fields(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    def one(number: int, kind: int) -> st.SearchStrategy[bytes]:
        return st.tuples(st.integers(0, 1).map(lambda more: padded(number << 3 | kind, more)), contents[kind]).map(
            b"".join
        )

    return st.lists(st.tuples(numbers, st.sampled_from([0, 1, 2, 5])).flatmap(lambda pair: one(*pair)), max_size=5).map(
        b"".join
    )


def within(tag: bytes, content: bytes, more: int) -> bytes:
    return tag + padded(len(content), more) + content


usual_records = st.builds(record_entry, st.integers(0, 20000), st.just(-1) | st.integers(0, 20000), data)
strange_records = st.builds(
    lambda parts, more: within(b"\x1a", b"".join(parts), more),
    st.permutations([b"\x08\x80\x01", b"\x1a\x01x", b"\x10\x00", b"\x08\x00"]).flatmap(
        lambda parts: st.lists(st.sampled_from(parts), max_size=6)
    ),
    st.integers(0, 2),
)
other_records = st.builds(within, st.just(b"\x1a"), fields(st.integers(1, 6)), st.integers(0, 1))
table_entries = st.text(max_size=200).map(lambda key: key_table_entry(key.encode())) | st.just(hash_table_entry(b"1"))
bodies = st.lists(usual_records | strange_records | other_records | table_entries | fields(st.integers(4, 300))).map(
    b"".join
)


@settings(deadline=None)
@given(bodies, st.integers(0, 3))
def test_the_reader_agrees_with_protobuf(body: bytes, cut: int) -> None:
    body = body[: len(body) - cut]
    expected = messages_pb2.AggregatedRecord()
    try:
        expected.ParseFromString(body)
        whole = expected.IsInitialized()
    except DecodeError:
        whole = False
    if not whole:
        with pytest.raises(Undecodable):
            read_aggregate(body)
        return
    read = read_aggregate(body)
    assert read.key_table == list(expected.partition_key_table)
    assert read.hash_table == list(expected.explicit_hash_key_table)
    assert read.key_indexes == [record.partition_key_index for record in expected.records]
    assert read.data == [record.data for record in expected.records]
    assert read.hash_indexes == [
        record.explicit_hash_key_index if record.HasField("explicit_hash_key_index") else -1
        for record in expected.records
    ]


@pytest.mark.parametrize(
    "body",
    [
        key_table_entry(b"") * 100_000,
        key_table_entry(b"k") + record_entry(0, -1, b"") * 30_000,
        record_entry(2**63, 2**63, b"") * 10_000,
        b"\x1a\xff\xff\xff\xff\x0f" * 30_000,
    ],
    ids=["keys", "records", "indexes", "lengths"],
)
def test_memory_is_bounded_by_the_bytes(body: bytes) -> None:
    value = sealed(body)
    tracemalloc.start()
    try:
        unpack(value)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(value)
