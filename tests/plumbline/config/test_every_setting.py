"""Every setting of every stage is documented, read, and refused where it does nothing."""

from __future__ import annotations

import ast
import functools
import importlib
import itertools
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from plumbline.commands.recipe_book import all_recipes
from plumbline.config import Config
from plumbline.config.declare import condition_of, table_of
from plumbline.config.document import declared
from plumbline.runs.code_version import PACKAGES
from plumbline.tables import Table

REPOSITORY = Path(__file__).resolve().parents[3]


def all_configs() -> list[type[Config]]:
    """Every config that a package of ours declares: of recipes, commands, steps and terms."""
    for package in PACKAGES:
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            if "Config)" in file.read_text(encoding="utf-8"):
                parts = file.relative_to(REPOSITORY).with_suffix("").parts
                importlib.import_module(".".join(parts))
    seen: set[type[Config]] = set()
    waiting: list[type[Config]] = [Config]
    while waiting:
        below = set(waiting.pop().__subclasses__()) - seen
        seen |= below
        waiting.extend(below)
    ours = (schema for schema in seen if schema.__module__.partition(".")[0] in PACKAGES)
    return sorted(ours, key=lambda schema: (schema.__module__, schema.__name__))


CONFIGS = all_configs()
FIELDS = [(schema, name) for schema in CONFIGS for name in schema.model_fields]
CONDITIONAL = sorted(
    {
        (next(owner for owner in schema.__mro__ if name in owner.__annotations__), name)
        for schema, name in FIELDS
        if condition_of(schema.model_fields[name]) is not None
    },
    key=str,
)


def shown(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


def test_the_walk_reaches_the_stages_of_every_room():
    rooms = {schema.__module__.partition(".")[0] for schema in CONFIGS}
    assert rooms >= {"plumbline", "sft", "reward", "preference", "rl", "annotation", "evaluation"}
    names = {schema.__name__ for schema in CONFIGS}
    assert names >= {"EngineConfig", "EvaluateConfig", "AuditConfig", "NearDuplicatesConfig"}
    assert len(FIELDS) > 900 and len(CONDITIONAL) > 100


def test_every_setting_is_documented():
    assert [
        f"{schema.__name__}.{name}"
        for schema, name in FIELDS
        if not schema.model_fields[name].description and not only_names_its_class(schema, name)
    ] == []


def only_names_its_class(schema: type[Config], name: str) -> bool:
    """Whether a field has one possible value, such as ``step: near_duplicates``."""
    annotation = schema.model_fields[name].annotation
    return typing.get_origin(annotation) is typing.Literal and len(typing.get_args(annotation)) == 1


@functools.cache
def others(schema: type[Config], name: str) -> list[Any]:
    """Values of a field that are not its default, from its type alone; some may be impossible."""
    info = schema.model_fields[name]
    default = info.get_default(call_default_factory=True)
    table = table_of(info)
    found: list[Any] = [None, *(table or ())]
    for part in (info.annotation, *typing.get_args(info.annotation)):
        if typing.get_origin(part) is typing.Literal:
            found += typing.get_args(part)
        elif part is bool:
            found += [True, False]
        elif part in (int, float):
            number = default if isinstance(default, int | float) else 1
            found += [part(n) for n in (number + 1, number / 2, 0.1, 0.5, 0, 1, 2, 3, 50)]
        elif part in (str, Path):
            found += ["something-else", "else"]
        elif isinstance(part, type) and issubclass(part, Config):
            found += itertools.islice(variants(part), 8)
        elif typing.get_origin(part) in (tuple, types.UnionType):
            found += [(value,) for value in ("ana", "FR", 1, "mean")]
            found += tuples(part)
        elif typing.get_origin(part) is dict and issubclass(typing.get_args(part)[1], Config):
            value = typing.get_args(part)[1]
            found.append({"ana": value(**required(value))})
    return [value for value in found if value != default]


def tuples(kind: Any) -> list[tuple[Any, ...]]:
    """Values of a tuple's type: as many items as it has, or one that its table names."""
    items = typing.get_args(kind)
    if Ellipsis not in items:
        return [("ana",) * len(items)]
    tables = [table for table in getattr(items[0], "__metadata__", ()) if isinstance(table, Table)]
    return [(name,) for table in tables for name in table]


def variants(schema: type[Config]) -> Iterator[Config]:
    """Yield the default, and configs that differ from it in one field, or in one and another."""

    def made(**values: Any) -> Config | None:
        try:
            return schema(**required(schema) | values)
        except ValidationError:
            return None

    changes = [(name, value) for name in schema.model_fields for value in others(schema, name)]
    for values in ({}, *({name: value} for name, value in changes)):
        config = made(**values)
        if config is not None:
            yield config
    for (a, x), (b, y) in itertools.combinations(changes, 2):
        if a != b:
            config = made(**{a: x, b: y})
            if config is not None:
                yield config


def required(schema: type[Config]) -> dict[str, Any]:
    return {
        name: others(schema, name)[-1]
        for name, info in schema.model_fields.items()
        if info.get_default(call_default_factory=True) is PydanticUndefined
    }


def without_effect(schema: type[Config], name: str) -> Iterator[Config]:
    """Yield configs in which a field does nothing."""
    condition = condition_of(schema.model_fields[name])
    assert condition is not None
    yield from (config for config in variants(schema) if not condition.holds(config))


@pytest.mark.parametrize(("schema", "name"), CONDITIONAL, ids=shown)
def test_a_setting_without_effect_is_refused_with_what_it_needs(schema, name):
    info = schema.model_fields[name]
    config = next(without_effect(schema, name), None)
    assert config is not None, f"{schema.__name__}.{name} seems to have an effect always"
    given = {field: getattr(config, field) for field in config.model_fields_set - {name}}
    problems = []
    for value in others(schema, name):
        try:
            schema(**given, **{name: value})
            problems.append(f"{value!r} is accepted")
        except ValidationError as error:
            if "has no effect here: it needs" in str(error):
                return
            problems.append(str(error))
    pytest.fail(f"{schema.__name__}.{name} with {given}: {problems}, {info}")


def accesses() -> set[str]:
    """Names that the packages read as attributes, or name in a text (of getattr, say).

    What a config's own validator looks at does not count, nor what a docstring says.
    """
    names: set[str] = set()
    for tree in trees().values():
        for node in tree.body:
            names |= _read_in(node)
    return names


@functools.cache
def trees() -> dict[str, ast.Module]:
    return {
        str(file.relative_to(REPOSITORY)): ast.parse(file.read_text(encoding="utf-8"))
        for package in PACKAGES
        for file in sorted((REPOSITORY / package).rglob("*.py"))
    }


def _read_in(node: ast.AST) -> set[str]:
    names: set[str] = set()
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.FunctionDef) and any(
            "validator" in ast.dump(decorator) for decorator in part.decorator_list
        ):
            continue
        if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
            continue
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Load):
            names.add(part.attr)
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            names.add(part.value)
        waiting.extend(ast.iter_child_nodes(part))
    return names


def test_every_setting_is_read_by_something():
    read = accesses()
    assert [f"{schema.__name__}.{name}" for schema, name in FIELDS if name not in read] == []


def test_checking_a_setting_is_not_using_it():
    source = (
        "class A(Config):\n    @model_validator(mode='after')\n    def check(self):\n"
        "        return self.only_checked\n"
        "    def use(self):\n"
        "        'described'\n"
        "        return self.used, getattr(self, 'named')\n"
    )
    assert _read_in(ast.parse(source)) == {"used", "named"}


@pytest.mark.parametrize("recipe", all_recipes(), ids=lambda recipe: recipe.name)
def test_a_type_is_printed_in_words_of_its_users(recipe):
    for setting in declared(recipe.schema()):
        assert not re.search(r"annotation=|Annotated|typing\.|<class|FieldInfo", setting.type), (
            setting.key
        )


def names_of_rows() -> dict[str, set[str]]:
    """Names of the rows that each setting may name, by the last part of its key."""
    rows: dict[str, set[str]] = {}
    for schema, name in FIELDS:
        for table in tables_in(schema.model_fields[name]):
            rows.setdefault(name, set()).update(table)
    return rows


def tables_in(info: Any) -> Iterator[Table[Any]]:
    """Yield the tables that a field's type names, wherever they stand in it."""
    waiting = [info]
    while waiting:
        part = waiting.pop()
        yield from (entry for entry in getattr(part, "metadata", ()) if isinstance(entry, Table))
        yield from (
            entry for entry in getattr(part, "__metadata__", ()) if isinstance(entry, Table)
        )
        waiting.extend(typing.get_args(getattr(part, "annotation", part)))


def compared_names(tree: ast.AST, rows: dict[str, set[str]]) -> list[str]:
    """Return each comparison of such a setting with the name of a row, with its line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
            settings = {part.attr for part in parts if isinstance(part, ast.Attribute)}
            texts = {part.value for part in parts if isinstance(part, ast.Constant)}
            if any(texts & rows.get(setting, set()) for setting in settings):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_what_a_row_means_stands_in_its_table():
    """Code that asks for a row by its name is a second list of names, which a new row lacks."""
    rows = names_of_rows()
    assert {"method", "loss", "strategy", "optimizer", "names"} <= rows.keys()
    assert [
        f"{file}:{found}" for file, tree in trees().items() for found in compared_names(tree, rows)
    ] == []


@pytest.mark.parametrize(
    "source", ["config.method == 'qlora'", "x.tuning.method in ('lora', y)", "'sft' in self.loss"]
)
def test_a_comparison_with_the_name_of_a_row_is_seen(source):
    rows = {"method": {"lora", "qlora"}, "loss": {"sft"}}
    assert len(compared_names(ast.parse(source), rows)) == 1
    others = ast.parse("config.method == 'other' or config.other == 'lora'")
    assert compared_names(others, rows) == []


def test_every_row_that_a_setting_may_name_is_on_a_page():
    pages = "".join(
        page.read_text(encoding="utf-8") for page in sorted((REPOSITORY / "docs").rglob("*.md"))
    )
    words = set(re.findall(r"[\w.]+", pages))
    assert {key: rows - words for key, rows in names_of_rows().items() if rows - words} == {}
