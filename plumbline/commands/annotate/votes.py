"""``plumbline annotate aggregate | doubtful``: from a campaign's votes to preferences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plumbline.commands.annotate.options import DEFAULT_HOME, SiteHome

if TYPE_CHECKING:
    from plumbline.runs.artifacts import Artifact

app = typer.Typer()

Name = Annotated[str, typer.Option("--campaign", "-n", help="The campaign's name.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write; it must not exist.")]
Method = Annotated[
    str,
    typer.Option(help="majority, weighted, dawid_skene, glad, mace, or a function of your own."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change another setting; repeat it."),
]
Seed = Annotated[int, typer.Option(help="Seed of the split and of the methods that draw.")]


@app.command()
def aggregate(
    out: Out,
    name: Name = "preferences",
    method: Method = "majority",
    overrides: Overrides = None,
    seed: Seed = 0,
    home: SiteHome = DEFAULT_HOME,
) -> None:
    """Make preferences from the pulled labels: a TRL dataset with the splits train and test."""
    from annotation.aggregation.aggregate import aggregate_labels
    from annotation.aggregation.config import AggregationConfig
    from plumbline.config import load

    config = load(AggregationConfig, None, [f"method={method}", *(overrides or [])])
    _make(home, name, out, aggregate_labels, {"config": config, "data_seed": seed})


@app.command()
def doubtful(
    out: Out,
    name: Name = "preferences",
    method: Method = "majority",
    overrides: Overrides = None,
    seed: Seed = 0,
    home: SiteHome = DEFAULT_HOME,
) -> None:
    """Collect the pairs that a senior labeller should see, by priority.

    Send them with: plumbline annotate push FOLDER --adjudicate PERSON
    """
    from annotation.aggregation.adjudication import queue_adjudication
    from annotation.aggregation.config import AdjudicationConfig, AggregationConfig
    from plumbline.config import load

    settings = {
        "config": load(AdjudicationConfig, None, overrides or []),
        "aggregation": load(AggregationConfig, None, [f"method={method}"]),
        "data_seed": seed,
    }
    _make(home, name, out, queue_adjudication, settings)


def _make(
    home: Path,
    name: str,
    out: Path,
    function: Callable[..., Mapping[str, float | None]],
    settings: Mapping[str, Any],
) -> None:
    """Run a stage on a campaign's pairs and labels, outside any run."""
    import shutil

    from plumbline.errors import DataError
    from plumbline.quiet import silence_libraries
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage
    from plumbline.temporary import TemporaryFolder

    silence_libraries()
    if out.exists():
        raise DataError(f"{out} exists already, and nothing is overwritten. Name another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    reporter = Reporter()
    with TemporaryFolder(out.parent) as folder:
        pairs, labels = _inputs(folder, home, name)
        stage = Stage(folder / "work", reporter)
        metrics = function(stage, pairs=pairs, labels=labels, **settings)
        shutil.move(stage.folder, out)
    for metric, value in metrics.items():
        if value is not None:
            reporter.say(f"  {metric:<24} {value:g}")
    reporter.say(f"in {out}")


def _inputs(folder: Path, home: Path, name: str) -> tuple[Artifact, Artifact]:
    """Write a campaign's pairs and labels as the artefacts that a recipe would have."""
    from annotation.campaign.folder import Campaign, campaign_folder
    from annotation.campaign.pull import labels_of
    from annotation.gold_answers import write_gold
    from plumbline.data.labels import write_labels
    from plumbline.data.records import assistant, write_dataset
    from plumbline.runs.artifacts import Artifact

    class Loose(Artifact):
        """An artefact outside any run: it has a name, but no manifest."""

        @property
        def id(self) -> str:
            return f"{name}/{self.path.name}"

    campaign = Campaign(campaign_folder(home, name))
    labels = labels_of(campaign)
    for part in ("pairs", "labels"):
        (folder / part).mkdir()
    rows = [
        {
            "pair_id": pair.id,
            "prompt": pair.prompt,
            "a": [assistant(pair.a)],
            "b": [assistant(pair.b)],
        }
        for pair in campaign.pairs().values()
        if pair.id not in labels.gold
    ]
    write_dataset(
        folder / "pairs", {"train": rows}, kind="prompts", title="Pairs", description="Pushed."
    )
    write_labels(folder / "labels", labels.labels)
    write_gold(folder / "labels", labels.gold)
    return Loose(folder / "pairs"), Loose(folder / "labels")
