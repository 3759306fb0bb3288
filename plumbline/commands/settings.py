"""``plumbline config``: the settings of a recipe, all of them or those that are asked for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from plumbline.commands.recipe_book import Recipe
from plumbline.config import Config, Setting, declared, settings, to_yaml
from plumbline.errors import ConfigError


def resolved(recipe: Recipe, config: str | None, overrides: Sequence[str]) -> Config:
    """Return the settings of a recipe; what must be set and is not has its name in capitals."""
    changed_names = {override.partition("=")[0] for override in overrides}
    if config is None:
        fields = recipe.schema().model_fields
        required = [name for name, info in fields.items() if info.is_required()]
        overrides = [*(f"{name}={name.upper()}" for name in required if name not in changed_names),
                     *overrides]  # fmt: skip
    return recipe.load(config, overrides)


def print_settings(
    console: Any,
    recipe: Recipe,
    config: Config,
    *,
    find: str | None,
    changed: bool,
    essential: bool,
) -> None:
    """Print settings with value, default and meaning: all, or those that meet every condition."""
    defaults = {setting.key: setting.value for setting in declared(recipe.schema())}
    short = {key: name for name, key in recipe.short_names().items()}
    conditions: list[Callable[[Setting], bool]] = []
    if find is not None:
        conditions.append(lambda setting: _mentions(setting, find, short.get(setting.key)))
    if changed:
        conditions.append(lambda setting: setting.value != defaults.get(setting.key))
    if essential:
        if not recipe.essential:
            raise ConfigError(
                f"{recipe.name} does not say which settings matter most: its script has no "
                "ESSENTIAL, a list of their names. Leave --essential out."
            )
        conditions.append(lambda setting: setting.key in recipe.essential)
    everything = list(settings(config))
    shown = [setting for setting in everything if all(holds(setting) for holds in conditions)]
    if not shown:
        typer.echo(_nothing(find, everything))
        return
    titles = ("setting", "value", "default", "type", "what it does")
    whole = [Column(title, overflow="fold") for title in titles]  # what is cut cannot be copied
    table = Table(*whole, box=None, pad_edge=False)
    for setting in shown:
        default = defaults.get(setting.key, setting.default)
        is_changed = setting.value != default
        value = escape(str(setting.value))
        option = short.get(setting.key, "").replace("_", "-")
        table.add_row(
            setting.key + (f" [dim](--{option})[/dim]" if option else ""),
            f"[bold]{value}[/bold]" if is_changed else value,
            escape(str(default)) if is_changed else "[dim]same[/dim]",
            escape(setting.type),
            escape(setting.documentation),
        )
    console.print(table)


def print_yaml(
    recipe: Recipe, config: Config, *, find: str | None, changed: bool, essential: bool
) -> None:
    """Print YAML to start a config file from."""
    if find or changed or essential:
        raise ConfigError(
            "--yaml prints every setting, so it does not go with --find, --changed or --essential. "
            "Leave out one of the two."
        )
    typer.echo(to_yaml(config), nl=False)


def _mentions(setting: Setting, word: str, short: str | None) -> bool:
    text = f"{setting.key} {short or ''} {setting.documentation} {setting.type}"
    return all(part in text.lower() for part in word.lower().split())


def _nothing(find: str | None, everything: Sequence[Setting]) -> str:
    if find is None:
        return "Every setting has its default."
    words = {part for setting in everything for part in setting.key.replace("_", ".").split(".")}
    close = difflib.get_close_matches(find.lower(), sorted(words), n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"No setting mentions {find!r}.{hint}"
