"""``plumbline reward serve``: one scorer for several trainings, over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from plumbline.commands.options import HOME, Home

ScorerName = Annotated[
    str,
    typer.Argument(
        help="A reward model (a folder, a hub name, run:stage, an artefact's id), or a file of "
        "terms (FILE.yaml).",
        show_default=False,
    ),
]
Host = Annotated[str, typer.Option(help="The address to listen on; other machines reach 0.0.0.0.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any free one.")]
Rows = Annotated[int, typer.Option(min=1, help="Most responses that are scored at once.")]
Wait = Annotated[
    float, typer.Option(min=0, max=1000, help="Milliseconds to wait for more before scoring.")
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep the scores of the last 200,000 texts.")
]


def serve(
    scorer: ScorerName,
    host: Host = "127.0.0.1",
    port: Port = 8100,
    rows: Rows = 256,
    wait: Wait = 5.0,
    cache: Cache = True,
    home: Home = HOME,
) -> None:
    """Serve a scorer to several trainings, until Ctrl-C.

    Its address is a reward wherever a reward model is: plumbline train ppo --reward
    http://127.0.0.1:8100. GET /health says which model answers, /metrics is for Prometheus. With
    PLUMBLINE_REWARD_TOKEN set, clients must have the same token; other machines are only served
    with one. Clients wait while the server is down, and refuse another model.
    """
    import os

    from plumbline.runs.calls import resolve
    from recipes._models import find_model_folder
    from recipes._scorers import named_scorer, scorer_content
    from reward.server.client import TOKEN
    from reward.server.serve import RewardServer, warm_up

    call = named_scorer(scorer, lambda name: find_model_folder(home, name))
    content = scorer_content(call)
    loaded = resolve(call)
    warm_up(loaded)
    server = RewardServer(
        loaded,
        content,
        host=host,
        port=port,
        token=os.environ.get(TOKEN),
        cache=cache,
        most_rows=rows,
        wait=wait / 1000,
    )
    typer.echo(f"{server.url}  scores by {content[:16]}…  Ctrl-C ends it.")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        typer.echo("\nNo longer serving.", err=True)
    finally:
        server.close()
