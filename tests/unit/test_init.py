"""The first configuration that anybody has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from streamsvc.app import load
from streamsvc.commands.init import SCHEMA, init
from streamsvc.config_reference import schema
from streamsvc.errors import ConfigError


def test_what_is_written_is_right_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a name: with # all\tsorts" / "first.yaml"
    file.parent.mkdir()
    assert init(file) == 0
    assert str(file) in capsys.readouterr().out
    service = load(file)
    assert service.state == f"file://{file.parent}/lake/state"
    first, _, _ = file.read_text().partition("\n")
    assert first == f"# yaml-language-server: $schema=./{SCHEMA}"
    assert file.with_name(SCHEMA).read_text() == schema()
    assert json.loads(schema())["title"] == "streamsvc"


@pytest.mark.parametrize("key", ["kinesis", "decode", "partition_by", "aws", "transform"])
def test_what_is_in_its_comments_is_right_too(tmp_path: Path, key: str) -> None:
    file = tmp_path / "first.yaml"
    init(file)
    text = file.read_text()
    others = re.findall(rf"(?m)^( *)# ({key}: .*(?:\n *#   - .*)?)", text)
    assert others
    for indent, other in others:
        replaced = "kafka" if key == "kinesis" else key
        without = re.sub(rf"(?m)^{indent}{replaced}: .*\n", "", text)
        file.write_text(without.replace(f"{indent}# {other}", indent + re.sub(r"\n *# ", f"\n{indent}", other), 1))
        assert file.read_text() != without
        load(file)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    with pytest.raises(ConfigError, match=r"mine\.yaml: is there already"):
        init(file)
    assert file.read_text() == "mine"
    assert not file.with_name(SCHEMA).exists()
    file.with_name(SCHEMA).write_text("{}")
    init(file.with_name("other.yaml"))
    assert file.with_name(SCHEMA).read_text() == "{}"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
        init(tmp_path / "none" / "first.yaml")
