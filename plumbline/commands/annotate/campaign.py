"""``plumbline annotate push | pull``: pairs out to people, and their labels back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plumbline.commands.annotate.options import DEFAULT_HOME, KeyFile, Server, SiteHome

if TYPE_CHECKING:
    from annotation.campaign.argilla import Argilla
    from annotation.campaign.client import Connection
    from annotation.campaign.config import CampaignConfig
    from annotation.campaign.pull import Labels
    from annotation.campaign.push import Pushed
    from plumbline.runs.progress import Reporter

app = typer.Typer()

_DEFAULT_NAME = "preferences"
Name = Annotated[
    str, typer.Option("--campaign", "-n", help="The campaign's name; its folder is in --home.")
]
Patience = Annotated[
    float,
    typer.Option(help="Seconds for which a server that does not answer is tried again."),
]


def connect(home: Path, server: str | None, api_key_file: Path | None) -> Connection:
    """Return the way to the server that the options name."""
    from annotation.campaign.connect import SiteConfig
    from annotation.campaign.connect import connect as connect_to

    return connect_to(SiteConfig(home=home, server=server, api_key_file=api_key_file))


@app.command()
def push(
    pairs: Annotated[
        Path,
        typer.Argument(
            help="Pairs: a .parquet, .jsonl or .json file, or the folder of an artefact; with "
            "prompt, and a and b (or chosen and rejected)."
        ),
    ],
    name: Name = _DEFAULT_NAME,
    people: Annotated[
        list[str] | None,
        typer.Option("--person", "-p", help="Somebody with a queue of their own; repeat it."),
    ] = None,
    members: Annotated[
        list[str] | None,
        typer.Option("--member", "-m", help="Somebody to let in to the shared queue; repeat it."),
    ] = None,
    overlap: Annotated[int | None, typer.Option(help="Different people for each pair.")] = None,
    gold: Annotated[
        Path | None, typer.Option(help="Pairs with a column 'answer', mixed in unseen.")
    ] = None,
    adjudicate: Annotated[
        str | None,
        typer.Option(
            "--adjudicate", metavar="PERSON", help="Send the pairs to this senior labeller alone."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A YAML file with the settings.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; repeat it."),
    ] = None,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
    patience: Patience = 120.0,
) -> None:
    """Send pairs to be labelled. Sent again, nothing is sent twice; more pairs extend the campaign.

    Settings (see `plumbline annotate settings`) stay as they were, unless given again.
    """
    from annotation.campaign import push as pushing
    from annotation.campaign.connect import campaign_folder
    from annotation.campaign.pairs import read_pairs
    from plumbline.errors import ConfigError
    from plumbline.runs.progress import Reporter

    folder = campaign_folder(home, name)
    reporter = Reporter()
    given, read = read_pairs(pairs)
    dropped = read.dropped
    for note in read.notes():
        reporter.say(note)
    if adjudicate is not None:
        unfit = {
            "--gold": gold,
            "--person": people,
            "--member": members,
            "--overlap": overlap,
            "--config": config,
        }
        named = [option for option, value in unfit.items() if value]
        if named or overrides:
            raise ConfigError(
                "--adjudicate sends pairs of a campaign that is there, and "
                f"{', '.join(named) or '--set'} would change it. Leave that out."
            )
        site = _site(connect(home, server, api_key_file), patience, reporter)
        done = pushing.push_adjudication(folder, site, adjudicate, given, bars=reporter)
    else:
        settings = _settings(folder, name, config, overrides or [], people, overlap)
        known = None
        if gold is not None:
            known, bad = read_pairs(gold)
            dropped.rows += bad.dropped.rows
        site = _site(connect(home, server, api_key_file), patience, reporter)
        done = pushing.push(
            folder,
            site,
            settings,
            given,
            gold=known,
            dropped=dropped,
            members=members or (),
            bars=reporter,
        )
    _tell_pushed(reporter, folder, done)


@app.command()
def pull(
    name: Name = _DEFAULT_NAME,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A folder for labels.parquet and gold.json."),
    ] = None,
    wait: Annotated[
        int | None,
        typer.Option(metavar="N", help="Wait until there are N votes; 0: until all is answered."),
    ] = None,
    webhook: Annotated[
        bool, typer.Option("--webhook", help="While waiting, let the server call when it may.")
    ] = False,
    webhook_port: Annotated[int, typer.Option(help="The port to listen on; 0: a free one.")] = 0,
    webhook_url: Annotated[
        str | None, typer.Option(help="Where a server on another machine reaches that port.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Read all datasets, changed or not.")
    ] = False,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
    patience: Patience = 120.0,
) -> None:
    """Fetch what people have submitted since the last time; write it all as labels."""
    from contextlib import ExitStack

    from annotation.campaign.config import WaitConfig
    from annotation.campaign.connect import campaign_folder
    from annotation.campaign.pull import labels_of
    from annotation.campaign.pull import pull as pull_now
    from annotation.campaign.state import Campaign
    from annotation.campaign.waiting import wait_for
    from annotation.campaign.webhook import Listener
    from plumbline.runs.progress import Reporter

    reporter = Reporter()
    campaign = Campaign(campaign_folder(home, name))
    site = _site(connect(home, server, api_key_file), patience, reporter)
    before = len(campaign.ledger())
    found = pull_now(campaign, site, everything=everything, bars=reporter)
    if wait is not None:
        waiting = WaitConfig(enough=wait or None, patience_seconds=patience)
        with ExitStack() as open_:
            listener = None
            if webhook or webhook_url:
                hook = Listener(site, campaign.id, port=webhook_port, address=webhook_url)
                listener = open_.enter_context(hook)
            labels = wait_for(campaign, site, waiting, listener=listener, bars=reporter)
    else:
        labels = labels_of(campaign)
    versions = len(campaign.ledger()) - before
    reporter.say(f"{versions} new answers or changes of answers in {campaign.folder}")
    if found.gone:
        reporter.say(
            f"{found.gone} answers are no longer on the server (a person or record was deleted, or "
            "a backup restored); they are kept"
        )
    _tell_labels(reporter, labels)
    if out is not None:
        _write(out, labels)
        reporter.say(f"labels in {out}")


@app.command(name="settings")
def settings_(
    name: Name = _DEFAULT_NAME,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML to start from.")] = False,
    home: SiteHome = DEFAULT_HOME,
) -> None:
    """Show every setting of a campaign with its value and what it does."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from annotation.campaign.connect import campaign_folder
    from plumbline.config import settings, to_yaml

    config = _settings(campaign_folder(home, name), name, None, [], None, None)
    if as_yaml:
        typer.echo(to_yaml(config), nl=False)
        return
    table = Table("setting", "value", "what it does", box=None, pad_edge=False)
    for knob in settings(config):
        table.add_row(knob.key, escape(str(knob.value)), knob.documentation)
    Console().print(table)


def _settings(
    folder: Path,
    name: str,
    file: Path | None,
    overrides: list[str],
    people: list[str] | None,
    overlap: int | None,
) -> CampaignConfig:
    """Return the settings: those that the campaign has or the file gives, then what was named."""
    import json

    from annotation.campaign.config import CampaignConfig
    from annotation.campaign.state import CAMPAIGN, Campaign
    from plumbline.config import load

    given: dict[str, Any] = {"name": name}
    if people:
        given["people"] = people
    if overlap is not None:
        given["overlap"] = overlap
    before: dict[str, Any] = {}
    if file is None and (folder / CAMPAIGN).exists():
        before = Campaign(folder).config.model_dump(mode="json")
    values = [f"{key}={json.dumps(value)}" for key, value in (before | given).items()]
    return load(CampaignConfig, file, [*values, *overrides])


def _site(connection: Connection, patience: float, reporter: Reporter) -> Argilla:
    from annotation.campaign.argilla import Argilla

    if connection.is_open_to_listeners:
        reporter.say(
            f"[yellow]{connection.url} is plain HTTP on another machine: the key and the labels "
            "cross the network for anyone to read. Prefer https.[/yellow]"
        )
    return Argilla(connection, patience=patience)


def _tell_pushed(reporter: Reporter, folder: Path, done: Pushed) -> None:
    from rich.markup import escape

    from annotation.campaign.items import RESERVE
    from annotation.campaign.state import LEFT_OUT, Campaign

    campaign = Campaign(folder)
    reporter.say(f"{done.sent} records sent; {done.pairs} pairs are new to the campaign")
    counts: dict[str, int] = {}
    for item in campaign.items():
        if item.queue != RESERVE:
            counts[item.purpose] = counts.get(item.purpose, 0) + 1
    reporter.say(
        "in all: " + ", ".join(f"{count} for {purpose}" for purpose, count in counts.items())
    )
    for reason, count in done.left_out.items():
        reporter.say(escape(f"left out {count}: {reason} (see {folder / LEFT_OUT})"))
    for note in done.notes:
        reporter.say(escape(note))
    where = ", ".join(sorted({place.workspace for place in campaign.places.values()}))
    reporter.say(f"people find them at {campaign.server} in {where}")


def _tell_labels(reporter: Reporter, labels: Labels) -> None:
    counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in labels.counts.items())
    reporter.say(f"{len(labels.labels)} labels stand ({counts or 'nobody has answered yet'})")


def _write(out: Path, labels: Labels) -> None:
    from annotation.aggregation.votes import write_gold
    from plumbline.data.labels import write_labels

    out.mkdir(parents=True, exist_ok=True)
    write_labels(out, labels.labels)
    write_gold(out, labels.gold)
