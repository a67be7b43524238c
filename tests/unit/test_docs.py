"""What is written for people: commands can be typed, links lead somewhere, samples are right."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import typer.main

from streamsvc.app import load
from streamsvc.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "deploy/runbook.md", "loadtest/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

TYPED = re.compile(r"(?m)(?:(?:^|\|) *|`)streamsvc ([a-z][a-z-]*)(?= |`|$)([^`\n#|]*)")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_typed(page: Path) -> None:
    group = typer.main.get_command(app)
    commands: dict[str, click.Command] = group.commands  # type: ignore[attr-defined]
    for name, arguments in TYPED.findall(page.read_text()):
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", arguments)) <= known, f"{name}{arguments}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_samples_of_the_readme_are_configurations(tmp_path: Path) -> None:
    whole, window = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    before, after = whole.index("    transform:"), whole.index("    rejects:")
    for text in (whole, whole[:before] + window + whole[after:]):
        file = tmp_path / "sample.yaml"
        file.write_text(text)
        load(file)
