"""Pages of settings, made from the `Config` classes: one for each recipe, and for some commands."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from plumbline.config import Config, Setting, declared
from site_builder.pages import Page, code, reference_table, table

HEADER = ["setting", "type", "default", "what it does"]


def settings_pages() -> list[Page]:
    """Return the pages, an overview first."""
    from plumbline.commands.recipe_book import all_recipes

    pages = [
        Page(
            f"settings/{recipe.name}.md",
            recipe.name,
            settings_page(
                f"Settings of `{recipe.name}`",
                f"{recipe.summary} To see them with the values of a config: "
                f"`plumbline config {recipe.name} --config NAME`.",
                recipe.schema(),
            ),
        )
        for recipe in all_recipes()
    ]
    for command, schema in command_schemas().items():
        pages.append(
            Page(
                f"settings/{command.replace(' ', '-')}.md",
                command,
                settings_page(
                    f"Settings of `plumbline {command}`",
                    f"To change one: `plumbline {command} … --set KEY=VALUE`.",
                    schema,
                ),
            )
        )
    return [_overview(pages), *pages]


def settings_page(title: str, introduction: str, schema: type[Config]) -> str:
    """Return a page with every setting of a config, a section for each stage or group."""
    parts = [f"# {title}", introduction]
    rows = list(declared(schema))
    alone = [row for row in rows if "." not in row.key]
    if alone:
        parts += ["## Of the whole", reference_table(HEADER, [_row(row) for row in alone])]
    nested = (row for row in rows if "." in row.key)
    for group, settings in groupby(nested, key=lambda row: row.key.partition(".")[0]):
        info = schema.model_fields[group.removesuffix("[]")]
        about = " ".join((info.description or "").split())
        parts += [f"## `{group}`", about, reference_table(HEADER, [_row(row) for row in settings])]
    return "\n\n".join(parts) + "\n"


def all_keys() -> set[str]:
    """Return every key that a recipe or a command has."""
    from plumbline.commands.recipe_book import all_recipes

    schemas = [*(recipe.schema() for recipe in all_recipes()), *command_schemas().values()]
    return {row.key for schema in schemas for row in declared(schema)}


def command_schemas() -> dict[str, type[Config]]:
    """Return the settings of each command other than ``run`` that takes ``--set``."""
    from annotation.campaign.config import CampaignConfig
    from annotation.progress.alarms import AlarmConfig
    from plumbline.commands.evaluation.request import EvaluateConfig

    return {
        "evaluate": EvaluateConfig,
        "annotate push": CampaignConfig,
        "annotate status": AlarmConfig,
    }


def _row(setting: Setting) -> list[str]:
    about = setting.text
    if setting.needs is not None:
        about += f" *Has an effect only with {setting.needs}.*"
    anchor = f'<span id="{setting.key}"></span>'
    return [f"{anchor}{code(setting.key)}", code(setting.type), code(_shown(setting.value)), about]


def _shown(value: Any) -> str:
    """Return a default as it would stand in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    if isinstance(value, Config):
        return "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in value) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) + "}"
    return str(value)


def _overview(pages: list[Page]) -> Page:
    rows = [[f"[{page.title}]({page.path.removeprefix('settings/')})"] for page in pages]
    text = (
        "# Settings\n\n"
        "Every setting, with its type, its default, and what it does. A setting stands in a YAML "
        "file (`--config FILE`) or on the command line, where the command line wins:\n\n"
        "    plumbline run dpo_vs_ppo --config quickstart --set ppo.kl.coefficient=0.1\n"
        "    plumbline run dpo_vs_ppo --config quickstart --ppo.kl.coefficient 0.1\n\n"
        "A setting that does not exist, or that has no effect together with the others, is an "
        "error that says what to do.\n\n" + table(["of"], rows) + "\n"
    )
    return Page("settings/index.md", "Settings", text)
