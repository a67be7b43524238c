"""What a reader of the code relies on, beyond what ruff, mypy and import-linter hold."""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamsvc import errors

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "streamsvc"
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("module", named(MODULES))
def test_modules_can_be_read(module: Path) -> None:
    text = module.read_text()
    assert text.count("\n") <= 450
    assert module.stem not in {"utils", "util", "helpers", "helper", "base", "common", "misc", "manager"}
    for function in functions(module):
        assert (function.end_lineno or 0) - function.lineno < 60, function.name


@pytest.mark.parametrize("module", named([module for module in MODULES if module.stem != "__init__"]))
def test_modules_say_what_they_are(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text()))


def test_every_room_has_its_place_in_the_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (layers,) = [
        contract["layers"] for contract in settings["tool"]["importlinter"]["contracts"] if contract["type"] == "layers"
    ]
    placed = {room.strip() for layer in layers for room in re.split(r"[|:]", layer)}
    rooms = {
        f"streamsvc.{path.stem}"
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"streamsvc.__init__", "streamsvc.__main__"} == placed


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = [
        (len(match[1]) // 4, match[2])
        for match in re.finditer(r"^([│├└─ ]*)([A-Z]\w+) {2,}", errors.__doc__ or "", re.MULTILINE)
    ]
    actual: list[tuple[int, str]] = []

    def walk(kind: type[BaseException], depth: int) -> None:
        actual.append((depth, kind.__name__))
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                walk(child, depth + 1)

    walk(errors.StreamsvcError, 0)
    assert drawn == actual
    assert {name for _, name in drawn} == {
        name for name, _ in inspect.getmembers(errors, inspect.isclass) if name != "Any"
    }


@pytest.mark.parametrize("page", named(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_the_architecture_page_shows_every_room_and_decision() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for room in PACKAGE.iterdir():
        if (room / "__init__.py").exists():
            assert f"{room.name}/" in page
    for decision in (ROOT / "docs" / "adr").glob("*.md"):
        assert f"adr/{decision.name}" in page
