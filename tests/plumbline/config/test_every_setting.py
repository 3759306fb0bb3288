"""Every setting of every stage is documented, read, and refused where it does nothing."""

from __future__ import annotations

import ast
import functools
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

from annotation.llm_judge.config import JudgeConfig
from plumbline.commands.evaluation.request import EvaluateConfig
from plumbline.commands.recipe_book import all_recipes
from plumbline.config import Config
from plumbline.config.declare import condition_of, table_of
from plumbline.config.document import declared
from plumbline.runs.code_version import PACKAGES
from plumbline.tables import Table

REPOSITORY = Path(__file__).resolve().parents[3]


def configs_in(annotation: Any) -> Iterator[type[Config]]:
    """Yield every config that a field's type names, wherever it stands in it."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for part in typing.get_args(annotation):
        yield from configs_in(part)


def reachable() -> list[type[Config]]:
    """Every config of a recipe or of a command, and all that these hold."""
    waiting: list[type[Config]] = [recipe.schema() for recipe in all_recipes()]
    waiting += [EvaluateConfig, JudgeConfig]
    seen: dict[type[Config], None] = {}
    while waiting:
        schema = waiting.pop()
        if schema in seen:
            continue
        seen[schema] = None
        for info in schema.model_fields.values():
            waiting.extend(configs_in(info.annotation))
    return sorted(seen, key=lambda schema: (schema.__module__, schema.__name__))


CONFIGS = reachable()
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
    assert len(FIELDS) > 200 and len(CONDITIONAL) >= 5


def test_every_setting_is_documented():
    assert [
        f"{schema.__name__}.{name}"
        for schema, name in FIELDS
        if not schema.model_fields[name].description
    ] == []


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
            found += [(value,) for value in ("ana", 1, "mean")]
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
    """Yield configs that differ from the default in one field, or in one and another."""

    def made(**values: Any) -> Config | None:
        try:
            return schema(**required(schema) | values)
        except ValidationError:
            return None

    changes = [(name, value) for name in schema.model_fields for value in others(schema, name)]
    for name, value in changes:
        config = made(**{name: value})
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
    default = schema(**required(schema))
    candidates = itertools.chain([default], variants(schema))
    yield from (config for config in candidates if not condition.holds(config))


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
    for package in PACKAGES:
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                names |= _read_in(node)
    return names


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
