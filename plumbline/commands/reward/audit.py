"""``plumbline reward audit``: what a reward model is worth, before optimising against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plumbline.commands.options import HOME, Home, Overrides
from plumbline.errors import ConfigError

if TYPE_CHECKING:
    from plumbline.runs.artifacts import Artifact
    from plumbline.runs.run import Run

ScorerName = Annotated[
    str,
    typer.Argument(
        help="A reward model, the address of a reward server, or a file of terms.",
        show_default=False,
    ),
]
Data = Annotated[
    list[str],
    typer.Option(
        help="Pairs with a better response, with people's votes, or RewardBench 1 or 2: a file, "
        "run:stage, or an artefact's id; may be repeated.",
        show_default=False,
    ),
]
Labels = Annotated[
    str | None, typer.Option(help="Plumbline's own labels on these pairs: run:stage or an id.")
]
Samples = Annotated[
    str | None,
    typer.Option(help="Many responses to each prompt with a gold score, for over-optimisation."),
]
Proxy = Annotated[
    str | None, typer.Option(help="The samples' column with the model's score; else scored here.")
]
Gold = Annotated[str, typer.Option("--gold-column", help="The samples' column of gold scores.")]
_GOLD = "gold"
Columns = Annotated[
    str | None,
    typer.Option(metavar="PART=COLUMN,…", help="Which column holds which part of a pair."),
]
Out = Annotated[Path | None, typer.Option(help="A folder for the page and the figures.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")]


def audit(
    scorer: ScorerName,
    data: Data,
    labels: Labels = None,
    samples: Samples = None,
    proxy: Proxy = None,
    gold: Gold = _GOLD,
    columns: Columns = None,
    overrides: Overrides = None,
    out: Out = None,
    seed: Seed = 0,
    home: Home = HOME,
) -> None:
    """Audit a reward model: accuracy, calibration, biases, robustness, over-optimisation.

    Writes audit.html, audit.json, the labels that look wrong (suspicious.jsonl) and the pairs most
    worth labelling next (to_label.jsonl). Settings: --set changed_responses=100, adversarial=false.
    """
    from plumbline.commands.data_check import as_settings
    from plumbline.config import load
    from plumbline.runs.progress import Reporter
    from plumbline.runs.run import Run
    from reward.audit.config import AuditConfig

    if samples is None and (proxy is not None or gold != _GOLD):
        option = "--gold-column" if proxy is None else "--proxy"
        raise ConfigError(
            f"{option} names a column of samples, and there are none: give --samples FILE, or "
            f"leave {option} out."
        )
    config = load(AuditConfig, None, overrides or [])
    if columns is not None:
        named = as_settings([columns], config.data.format, None)["columns"]
        reading = config.data.model_copy(update={"columns": named})
        config = config.model_copy(update={"data": reading})
    run = Run(home, _run_name(scorer, data), "reward audit", config, Reporter())
    try:
        artifact = _audit(run, config, scorer, data, labels, samples, proxy, gold, seed)
        run.finish(dict(artifact.metrics))
    except BaseException as problem:
        status = "interrupted" if isinstance(problem, KeyboardInterrupt) else "failed"
        run.fail(status, str(problem))
        raise
    show(artifact, out)


def _audit(
    run: Run,
    config: Any,
    scorer: str,
    data: list[str],
    labels: str | None,
    samples: str | None,
    proxy: str | None,
    gold: str,
    seed: int,
) -> Artifact:
    from plumbline.data.sources import source_at
    from plumbline.errors import ArtifactError
    from plumbline.runs.find import find_artifact
    from recipes._models import find_model
    from recipes._scorers import named_scorer
    from reward.audit.audit import audit_reward_model

    def place(name: str) -> Any:
        artifact = find_artifact(run.home, name)
        return source_at(name) if artifact is None else artifact

    labeled = None if labels is None else find_artifact(run.home, labels)
    if labels is not None and labeled is None:
        raise ArtifactError(f"There are no labels {labels!r}. Give run:stage, or an artefact's id.")
    return run.make(
        "audit",
        audit_reward_model,
        config=config,
        scorer=named_scorer(scorer, lambda name: find_model(run, name, "reward")),
        name=scorer,
        data=[place(name) for name in data],
        labels=labeled,
        samples=None if samples is None else place(samples),
        proxy=proxy,
        gold=gold,
        data_seed=seed,
    )


def show(artifact: Artifact, out: Path | None) -> None:
    """Print the verdict, and where the page is; copy the files to a folder that is named."""
    import shutil

    from rich.markup import escape

    from plumbline.terminal import Terminal, visible
    from reward.audit.audit import PAGE, figures_in

    folder = artifact.path
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name in artifact.manifest.files:
            shutil.copyfile(folder / name, out / name)
        folder = out
    verdict = figures_in(artifact.path)["verdict"]
    console = Terminal()
    console.print(f"[bold]{escape(visible(verdict['headline']))}[/bold]")
    console.print(escape(verdict["kl"]))
    for mark, kind in (("-", "weaknesses"), ("+", "strengths"), ("?", "open_questions")):
        for sentence in verdict[kind]:
            console.print(f"{mark} {escape(visible(sentence))}")
    for name in (PAGE, *sorted(set(artifact.manifest.files) - {PAGE})):
        console.print(f"  {folder / name}")


def _run_name(scorer: str, data: list[str]) -> str:
    """Return the name of the run: the same for the same question."""
    import hashlib

    from plumbline.runs.names import safe_file_name

    digest = hashlib.sha256("\n".join([scorer, *data]).encode()).hexdigest()[:6]
    return f"audit-{safe_file_name(scorer)[-40:]}-{digest}"
