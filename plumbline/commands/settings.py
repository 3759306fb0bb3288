"""``plumbline config``: the settings of a recipe, all of them or those that are asked for."""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import typer
from platformdirs import user_cache_path
from rich.markup import escape
from rich.table import Column, Table

from plumbline.commands.recipe_book import Recipe
from plumbline.config import Config, declared, settings, to_yaml
from plumbline.errors import ConfigError
from plumbline.runs import code_version
from plumbline.terminal import column_to_copy

#: Lists of settings that are kept at most.
_MOST_KEPT = 100


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
    config: str | None,
    overrides: Sequence[str],
    *,
    find: str | None,
    changed: bool,
    essential: bool,
) -> None:
    """Print settings with value, default and meaning: all, or those that meet every condition."""
    everything = shown_settings(recipe, config, overrides)
    if essential and not any(setting.essential for setting in everything):
        raise ConfigError(
            f"{recipe.name} does not say which settings matter most: its script has no "
            "ESSENTIAL, a list of their names. Leave --essential out."
        )
    shown = [
        setting
        for setting in everything
        if (find is None or setting.mentions(find))
        and (setting.changed or not changed)
        and (setting.essential or not essential)
    ]
    if not shown:
        typer.echo(_nothing(find, everything))
        return
    named = column_to_copy("setting", (setting.key for setting in shown), console)
    titles = ("value", "default", "type", "what it does")
    whole = [Column(title, overflow="fold") for title in titles]  # what is cut cannot be copied
    table = Table(named, *whole, box=None, pad_edge=False)
    for setting in shown:
        value = escape(setting.value)
        table.add_row(
            setting.key + (f"\n[dim](--{setting.option})[/dim]" if setting.option else ""),
            f"[bold]{value}[/bold]" if setting.changed else value,
            escape(setting.default) if setting.changed else "[dim]same[/dim]",
            escape(setting.type),
            escape(setting.documentation),
        )
    console.print(table)


class Shown(NamedTuple):
    """A setting of a recipe, as it is shown."""

    key: str
    option: str
    """Its short name as an option; empty where it has none."""
    value: str
    default: str
    changed: bool
    """Whether the value is another one than the default."""
    type: str
    documentation: str
    essential: bool
    """Whether the recipe names it among those that matter most."""

    def mentions(self, words: str) -> bool:
        """Return whether all words stand in its name, its type or what it does."""
        text = f"{self.key} {self.option.replace('-', '_')} {self.documentation} {self.type}"
        return all(word in text.lower() for word in words.lower().split())


def shown_settings(recipe: Recipe, config: str | None, overrides: Sequence[str]) -> list[Shown]:
    """Return all settings of a recipe.

    Reading them imports all that the recipe can train, which takes seconds. So those of our own
    recipes are kept in the user's cache, by the state of all files that they are read from.
    """
    file = _kept_at(recipe, config, overrides)
    if file is not None and (kept := _read(file)) is not None:
        return kept
    values = resolved(recipe, config, overrides)
    defaults = {setting.key: setting.value for setting in declared(recipe.schema())}
    short = {key: name for name, key in recipe.short_names().items()}
    shown = []
    for setting in settings(values):
        default = defaults.get(setting.key, setting.default)
        shown.append(
            Shown(
                setting.key,
                short.get(setting.key, "").replace("_", "-"),
                str(setting.value),
                str(default),
                setting.value != default,
                setting.type,
                setting.documentation,
                setting.key in recipe.essential,
            )
        )
    if file is not None:
        _keep(file, shown)
    return shown


def _kept_at(recipe: Recipe, config: str | None, overrides: Sequence[str]) -> Path | None:
    """Return the file in the cache for a recipe's settings; None for a recipe of the user's."""
    folder = Path(__file__).parents[2]
    if recipe.path.parent != folder / "recipes":
        return None
    sources = [
        (str(file.relative_to(folder)), (of_file := file.stat()).st_mtime_ns, of_file.st_size)
        for package in sorted(code_version.PACKAGES)
        for file in sorted((folder / package).rglob("*.py"))
    ]
    path = recipe.config_path(config)
    text = None if path is None else path.read_text(encoding="utf-8", errors="replace")
    versions = [sys.version, *(version(name) for name in ("pydantic", "transformers", "torch"))]
    state = (str(folder), recipe.name, text, list(overrides), sources, versions)
    digest = hashlib.sha256(repr(state).encode()).hexdigest()[:32]
    return user_cache_path("plumbline") / "settings" / f"{digest}.json"


def _read(file: Path) -> list[Shown] | None:
    """Return settings from the cache; None where they are not there, or damaged."""
    try:
        return [Shown(*values) for values in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return None


def _keep(file: Path, shown: Sequence[Shown]) -> None:
    """Write settings to the cache, if it can be written; drop what is there where it is much."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        others = list(file.parent.glob("*.json"))
        for other in others if len(others) >= _MOST_KEPT else ():
            other.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, delete=False, encoding="utf-8"
        ) as stream:
            json.dump(shown, stream)
        Path(stream.name).replace(file)


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


def _nothing(find: str | None, everything: Sequence[Shown]) -> str:
    if find is None:
        return "Every setting has its default."
    words = {part for setting in everything for part in setting.key.replace("_", ".").split(".")}
    close = difflib.get_close_matches(find.lower(), sorted(words), n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"No setting mentions {find!r}.{hint}"
