"""``plumbline new``: a commented recipe and its config, to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumbline.errors import ArtifactError, ConfigError

new = typer.Typer(help="Write a file to start from.", no_args_is_help=True)


@new.callback()
def _group() -> None:
    """Write a file to start from."""


@new.command()
def recipe(
    name: Annotated[str, typer.Argument(help="Its name, such as my_recipe.")] = "my_recipe",
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path(),
) -> None:
    """Write a recipe that fine-tunes a model and aligns it by DPO, with a config, both commented.

    Run it by `plumbline run NAME.py --config configs/NAME.yaml`.
    """
    from plumbline import pages

    if not name.isidentifier():
        raise ConfigError(
            f"{name!r} cannot be the name of a Python file. Use letters, digits and _: my_recipe."
        )
    templates = pages.templates("plumbline.commands", "new_recipe")
    files = {
        folder / f"{name}.py": "recipe.py.jinja",
        folder / "configs" / f"{name}.yaml": "config.yaml.jinja",
    }
    for file in files:
        if file.exists():
            raise ArtifactError(f"{file} exists. Give another name, or move it away.")
    title = name.replace("_", " ").capitalize()
    for file, template in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        text = templates.get_template(template).render(name=name, title=title)
        file.write_text(text, encoding="utf-8")
        typer.echo(f"  {file}")
    typer.echo(
        f"Fill in {folder / 'configs' / f'{name}.yaml'}, then: plumbline run "
        f"{folder / f'{name}.py'} --config {name}"
    )
