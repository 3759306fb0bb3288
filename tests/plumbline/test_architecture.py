"""The house's law, beyond what import-linter reads: no circle, no module named by a string."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import grimp
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PACKAGES = PYPROJECT["tool"]["importlinter"]["root_packages"]
LAYERS = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]

#: Where a module is named by a string, and why.
BY_STRING = {
    "plumbline/tables.py",  # a user's own function, by its dotted path
    "plumbline/runs/calls.py",  # a call that a manifest describes
    "plumbline/commands/recipe_book.py",  # a recipe, by name or path
}
LOADERS = {"import_module", "__import__", "run_module", "run_path", "spec_from_file_location"}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(*PACKAGES)


def sources() -> list[Path]:
    return [file for package in PACKAGES for file in sorted((REPOSITORY / package).rglob("*.py"))]


def named_by_string(source: str) -> set[str]:
    """Names of functions that import by a string, wherever the source mentions one."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute | ast.alias):
            name = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name"}[type(node)]
            names.add(str(getattr(node, name)).rpartition(".")[2])
    return names & LOADERS


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(edges[name])
        return seen

    below = {name: reached(name) for name in edges}
    groups = {
        frozenset(other for other in below[name] if name in below[other])
        for name in edges
        if name in below[name]
    }
    return sorted(sorted(group) for group in groups)


def test_no_module_is_imported_by_a_string_but_where_it_must_be():
    found = {
        str(file.relative_to(REPOSITORY))
        for file in sources()
        if named_by_string(file.read_text(encoding="utf-8"))
    }
    assert found == BY_STRING


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\nimportlib.import_module('a')",
        "from importlib import import_module as load\nload('a')",
        "__import__('a')",
        "import runpy\nrunpy.run_path('a.py')",
    ],
)
def test_every_way_to_import_by_a_string_is_seen(source):
    assert named_by_string(source)


def test_no_modules_import_each_other_in_a_circle(graph):
    assert (
        circles({name: graph.find_modules_directly_imported_by(name) for name in graph.modules})
        == []
    )


def test_a_circle_would_be_seen():
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}
    assert circles(edges) == [["a", "b", "c"]]


def test_every_part_of_the_core_has_its_layer():
    named = {part.strip(" ()") for layer in LAYERS for part in re.split("[|:]", layer)}
    parts = {
        f"plumbline.{path.stem}"
        for path in (REPOSITORY / "plumbline").iterdir()
        if (path.suffix == ".py" and not path.stem.startswith("__"))
        or (path / "__init__.py").exists()
    }
    assert parts <= named


def test_nothing_imports_the_command_line_but_the_python_api(graph):
    inside = {name for name in graph.modules if name.startswith("plumbline.commands")}
    importers = {
        importer
        for module in inside
        for importer in graph.find_modules_that_directly_import(module)
    }
    assert importers - inside == {"plumbline.__main__", "plumbline.api", "plumbline.api_results"}


#: The longest that a function may be, in lines, and those that are longer, each with its reason.
LONGEST_FUNCTION = 60
LONG_FUNCTIONS = {
    "evaluate": "the signature declares 20 options with their help; the body is a request",
    "compare": "the signature declares 15 options with their help; the body is one call",
    "status": "the signature declares 10 options with their help; the body is one loop",
    "check": "the signature declares 7 options with their help; the body is one reading",
    "comparison_content": "one dictionary: the page's content, key by key",
    "train_ppo": "the loop of PPO on one page, step by step",
    "main": "the numbered story of dpo_vs_ppo, without a condition",
}


def test_functions_are_short_or_have_a_reason_to_be_long():
    long = {
        f"{file.relative_to(REPOSITORY)}:{node.lineno} {node.name}": node.name
        for file in sources()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert [place for place, name in long.items() if name not in LONG_FUNCTIONS] == []
    assert sorted(long.values()) == sorted(LONG_FUNCTIONS)  # each is one function that is there


#: The most lines of a file.
LONGEST_FILE = 400


def test_files_are_short():
    lengths = {
        str(file.relative_to(REPOSITORY)): len(file.read_text(encoding="utf-8").splitlines())
        for file in sources()
    }
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}
    assert long == {}, (
        f"a file has at most {LONGEST_FILE} lines. Split it by idea: move what belongs together, "
        "and is used by itself, to a file whose name says what a reader looks for there"
    )
