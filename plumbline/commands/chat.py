"""``plumbline chat``: talk to a model in the terminal, or to two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumbline.commands.options import HOME, Home


def chat(
    model: Annotated[
        str, typer.Argument(help="A folder, a hub name, run:stage, or an artefact's id.")
    ],
    other: Annotated[
        str | None, typer.Argument(metavar="[MODEL2]", help="A second model, side by side.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="A reward model that scores each response.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.01, help="Sampling temperature.")] = 0.7,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Responses are cut here. By default at 512, or where the model's context ends.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the responses.")] = 0,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add the dialogues to a file, as JSON lines."),
    ] = None,
    home: Home = HOME,
) -> None:
    """Talk to a model. Words appear as they are drawn.

    Lines that start with a slash are commands: /undo, /reset, /system TEXT, /help, /exit. A line
    that ends with a backslash continues in the next.
    """
    from plumbline.commands.chat_session import ChatSession, converse
    from plumbline.lm.generation import SamplingConfig

    session = ChatSession.load(
        [model] if other is None else [model, other],
        home,
        sampling=SamplingConfig(temperature=temperature, max_new_tokens=max_new_tokens or 512),
        cut_by_context=max_new_tokens is None,
        seed=seed,
        reward=reward,
        system=system,
    )
    converse(session, save)
