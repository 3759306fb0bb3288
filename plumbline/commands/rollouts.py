"""``plumbline rollouts up | down | status``: vLLM servers that trainings sample from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plumbline.lm.engines.vllm_process import Running, Servers

app = typer.Typer(
    help="Start and stop vLLM servers, from which PPO and online methods sample.",
    no_args_is_help=True,
)
Port = Annotated[int, typer.Option(min=1, max=65535, help="The port, on this machine only.")]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def up(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="The base of the policy: a folder or a hub name.", metavar="MODEL")
    ],
    port: Port = 8000,
    max_rank: Annotated[int, typer.Option(min=1, help="The largest rank of an adapter.")] = 64,
    gpu_memory: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="The share of a GPU's memory that it takes.")
    ] = 0.45,
    gpus: Annotated[
        str | None, typer.Option(metavar="0,1,…", help="The GPUs that it uses, else the first.")
    ] = None,
    python: Annotated[
        Path | None, typer.Option(help="An environment's Python that has vLLM; else one is made.")
    ] = None,
) -> None:
    """Start a vLLM server, which trainings send their weights to; does nothing if it runs already.

    At the first start vLLM is installed in an environment of its own, some gigabytes. It keeps
    running without the terminal. Further options go to `vllm serve`, such as --max-model-len 4096.
    """
    from plumbline.lm.engines.vllm_process import Options

    place = Path(model)
    options = Options(
        model=str(place.resolve()) if place.is_dir() else model,
        port=port,
        max_rank=max_rank,
        gpu_memory=gpu_memory,
        gpus=gpus,
        python=python,
        more=tuple(context.args),
    )
    server = _servers().up(options, typer.echo)
    typer.echo(
        f"{server.model} is served at {server.url}. Sample from it by --set "
        f"ppo.rollouts.engine=vllm --set ppo.rollouts.url={server.url}. "
        f"Stop it by plumbline rollouts down --port {port}."
    )


@app.command()
def down(port: Port = 8000) -> None:
    """Stop the server at a port."""
    stopped = _servers().down(port)
    typer.echo(f"The server at port {port} is stopped." if stopped else "No server runs there.")


@app.command()
def status() -> None:
    """List the servers that run, and where their logs are."""
    servers = _servers()
    running = servers.all()
    for server in running:
        typer.echo(_described(servers, server))
    if not running:
        typer.echo("No server runs. Start one by plumbline rollouts up MODEL.")


def _described(servers: Servers, server: Running) -> str:
    from time import time

    from plumbline.runs.progress import duration

    port = int(server.url.rpartition(":")[2])
    since = duration(time() - server.started)
    return f"{server.url}  {server.model}  for {since}  {servers.log(port)}"


def _servers() -> Servers:
    from platformdirs import user_state_path

    from plumbline.lm.engines.vllm_process import Servers

    return Servers(user_state_path("plumbline") / "rollouts")
