from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamsvc.ops.metrics import Metrics, catalogue_page, merge_expositions

ROOT = Path(__file__).parents[2]


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_the_page_of_metrics_is_current() -> None:
    written = (ROOT / "docs" / "metrics.md").read_text()
    assert written == catalogue_page(Metrics("any")), "run: python -m streamsvc.ops.metrics > docs/metrics.md"


def test_every_metric_is_catalogued_once_and_exposed() -> None:
    metrics = Metrics("web-logs")
    names = [item.name for item in metrics.catalogue]
    assert len(names) == len(set(names))
    families = {family.name for family in text_string_to_metric_families(metrics.exposition().decode())}
    assert {name.removesuffix("_total") for name in names} == {
        name for name in families if name.startswith("streamsvc_")
    }


def test_counters_say_so_in_their_names() -> None:
    for item in Metrics("any").catalogue:
        assert (item.kind == "counter") == item.name.endswith("_total"), item.name
        assert item.meaning.endswith("."), item.name


def test_samples_carry_the_service() -> None:
    metrics = Metrics('quo"te\n\\')
    metrics.rejects.labels("access", "malformed").inc(3)
    found = samples(metrics.exposition().decode())
    assert found["streamsvc_rejects_total"] == [
        ({"service": 'quo"te\n\\', "pipeline": "access", "reason": "malformed"}, 3.0)
    ]
    assert not any(name.endswith("_created") for name in found)


def test_a_split_that_left_is_forgotten() -> None:
    metrics = Metrics("any")
    for split in ("t@0", "t@1"):
        metrics.source_lag_records.labels("access", split).set(7)
        metrics.source_lag_milliseconds.labels("access", split).set(70)
    metrics.forget_split("access", "t@0")
    metrics.forget_split("access", "never seen")
    found = samples(metrics.exposition().decode())
    for name in ("streamsvc_source_lag_records", "streamsvc_source_lag_milliseconds"):
        assert [labels["split"] for labels, _ in found[name]] == ["t@1"]


def test_two_processes_do_not_share_values() -> None:
    one, other = Metrics("a"), Metrics("a")
    one.fenced.labels("access").inc()
    assert "streamsvc_fenced_total" not in samples(other.exposition().decode())


def test_workers_are_merged_under_a_label() -> None:
    workers = {}
    for number in range(3):
        metrics = Metrics("web-logs")
        metrics.records_read.labels("access").inc(10 + number)
        metrics.landing_seconds.labels("access").observe(0.3)
        workers[str(number)] = metrics.exposition().decode()
    merged = merge_expositions(workers)
    found = samples(merged)
    assert {(labels["worker"], value) for labels, value in found["streamsvc_records_read_total"]} == {
        ("0", 10.0),
        ("1", 11.0),
        ("2", 12.0),
    }
    assert len(found["streamsvc_landing_seconds_count"]) == 3
    assert merged.count("# TYPE streamsvc_landing_seconds histogram") == 1
    assert "process_resident_memory_bytes" in found


def test_merging_none_and_merging_nonsense() -> None:
    assert merge_expositions({}) == ""
    with pytest.raises(ValueError, match=r".+"):
        merge_expositions({"0": "{{{ nonsense"})


def test_every_metric_is_kept_somewhere() -> None:
    """A metric that nobody updates says 0 for ever, which is worse than nothing."""
    source = "\n".join(path.read_text() for path in (ROOT / "streamsvc").rglob("*.py") if path.name != "metrics.py")
    kept = [name for name, value in vars(Metrics("any")).items() if hasattr(value, "labels") and name != "build"]
    assert len(kept) > 15
    assert [name for name in kept if f"metrics.{name}." not in source] == []
