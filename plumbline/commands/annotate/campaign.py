"""``plumbline annotate push | pull | settings``: pairs out to people, and their labels back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plumbline.commands.annotate.options import DEFAULT_HOME, KeyFile, Server, SiteHome

if TYPE_CHECKING:
    from annotation.argilla.api import Argilla
    from annotation.argilla.client import Connection
    from annotation.campaign.config import CampaignConfig
    from annotation.campaign.folder import Campaign
    from annotation.campaign.pairs import Pair
    from annotation.campaign.pull import Labels, Pulled
    from annotation.campaign.push import Pushed
    from plumbline.dropped import Dropped
    from plumbline.runs.progress import Reporter

app = typer.Typer()

_DEFAULT_NAME = "preferences"
Name = Annotated[
    str, typer.Option("--campaign", "-n", help="The campaign's name; its folder is in --home.")
]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Ask no server: take what was brought back before."),
]
Patience = Annotated[
    float,
    typer.Option(help="Seconds for which a server that does not answer is tried again."),
]


def connect(home: Path, server: str | None, api_key_file: Path | None) -> Connection:
    """Return the address and API key of the server that the options name."""
    from annotation.campaign.connect import SiteConfig
    from annotation.campaign.connect import connect as connect_to
    from plumbline.errors import ConfigError

    if server is None:
        if api_key_file is not None:
            raise ConfigError(
                f"--api-key-file is {api_key_file}, but there is no --server for it. This "
                "machine's own site keeps its API key itself."
            )
        return connect_to(SiteConfig(home=home))
    return connect_to(SiteConfig(home=home, server=server, api_key_file=api_key_file))


PairsFile = Annotated[
    Path,
    typer.Argument(
        help="Pairs in any format of docs/formats.md, or the folder of an artefact; with prompt, "
        "and a and b (or chosen and rejected)."
    ),
]
People = Annotated[
    list[str] | None,
    typer.Option("--person", "-p", help="A person who gets a queue of their own; repeat it."),
]
Members = Annotated[
    list[str] | None,
    typer.Option("--member", "-m", help="A person to add to the shared queue; repeat it."),
]
Overlap = Annotated[int | None, typer.Option(help="How many different people vote on each pair.")]
Gold = Annotated[
    Path | None, typer.Option(help="Pairs with a column 'answer', mixed in to check the labellers.")
]
Training = Annotated[
    Path | None,
    typer.Option(
        help="Pairs with a column 'answer' (and 'reasons') that everybody labels first, with "
        "feedback after each."
    ),
]
Adjudicate = Annotated[
    str | None,
    typer.Option(
        "--adjudicate", metavar="PERSON", help="Send the pairs only to this senior labeller."
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="A YAML file with the settings.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; repeat it."),
]


@app.command()
def push(
    pairs: PairsFile,
    name: Name = _DEFAULT_NAME,
    people: People = None,
    members: Members = None,
    overlap: Overlap = None,
    gold: Gold = None,
    training: Training = None,
    adjudicate: Adjudicate = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
    patience: Patience = 120.0,
) -> None:
    """Send pairs to be labelled. Nothing is sent twice; more pairs extend the campaign.

    The settings (see `plumbline annotate settings`) stay as they were, unless they are given again.
    """
    from annotation.campaign.folder import campaign_folder
    from annotation.campaign.push import push as push_now
    from annotation.campaign.push import push_adjudication
    from plumbline.runs.progress import Reporter

    folder = campaign_folder(home, name)
    reporter = Reporter()
    if adjudicate is not None:
        changes: dict[str, Any] = {"--gold": gold, "--training": training, "--person": people}
        changes |= {"--member": members, "--overlap": overlap}
        _refuse_changes(changes | {"--config": config, "--set": overrides})
        queue, _ = _read_pairs(pairs, reporter)
        site = open_argilla(connect(home, server, api_key_file), patience, reporter)
        pushed = push_adjudication(folder, site, adjudicate, queue, bars=reporter)
    else:
        rows, dropped = _read_pairs(pairs, reporter)
        settings = _settings(folder, name, config, overrides or [], people, overlap)
        gold_pairs, bad_gold = _read_pairs(gold, reporter)
        lessons, bad_lessons = _read_pairs(training, reporter)
        dropped.rows += [*bad_gold.rows, *bad_lessons.rows]
        site = open_argilla(connect(home, server, api_key_file), patience, reporter)
        pushed = push_now(
            folder,
            site,
            settings,
            rows,
            gold=gold_pairs if gold is not None else None,
            training=lessons,
            dropped=dropped,
            members=members or (),
            bars=reporter,
        )
    _report_push(reporter, folder, pushed, adjudicate)


def _refuse_changes(changes: dict[str, Any]) -> None:
    """Refuse options that would change a campaign, where pairs are only sent for adjudication."""
    from plumbline.errors import ConfigError

    named = [option for option, value in changes.items() if value]
    if named:
        raise ConfigError(
            "--adjudicate sends pairs of an existing campaign, and "
            f"{', '.join(named)} would change it. Leave that out."
        )


def _read_pairs(file: Path | None, reporter: Reporter) -> tuple[list[Pair], Dropped]:
    """Read pairs, if there is a file; say how it was read, and return what was left out."""
    from rich.markup import escape

    from annotation.campaign.pairs import read_pairs
    from plumbline.dropped import Dropped

    if file is None:
        return [], Dropped()
    pairs, report = read_pairs(file)
    for note in report.notes():
        reporter.say(escape(note))
    return pairs, Dropped(list(report.dropped.entries()))


@app.command()
def pull(
    name: Annotated[
        str | None,
        typer.Option("--campaign", "-n", help="The campaign's name; not needed if there is one."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A folder for labels.parquet and gold.json."),
    ] = None,
    wait: Annotated[
        int | None,
        typer.Option(metavar="N", help="Wait for N votes; 0: until everything is answered."),
    ] = None,
    webhook: Annotated[
        bool, typer.Option("--webhook", help="While waiting, let the server call at each answer.")
    ] = False,
    webhook_port: Annotated[int, typer.Option(help="The port to listen on; 0: any free one.")] = 0,
    webhook_url: Annotated[
        str | None,
        typer.Option(help="The address at which a server on another machine reaches that port."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Read all datasets, changed or not.")
    ] = False,
    offline: Offline = False,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
    patience: Patience = 120.0,
) -> None:
    """Fetch what people have submitted since the last pull; write all of it as labels."""
    from annotation.campaign.folder import Campaign, campaign_folder, campaigns
    from annotation.campaign.pull import labels_of
    from annotation.campaign.pull import pull as pull_now
    from plumbline.errors import ConfigError
    from plumbline.runs.progress import Reporter

    reporter = Reporter()
    only = [folder.name for folder in campaigns(home / "campaigns")] if name is None else []
    name = name or (only[0] if len(only) == 1 else _DEFAULT_NAME)
    campaign = Campaign(campaign_folder(home, name))
    if offline and (wait is not None or webhook or webhook_url or everything):
        raise ConfigError("--offline asks no server, so leave out --wait, --webhook and --all.")
    if not offline:
        site = open_argilla(connect(home, server, api_key_file), patience, reporter)
        before = len(campaign.ledger())
        pulled = pull_now(campaign, site, everything=everything, bars=reporter)
        if wait is not None:
            hook = (webhook_port, webhook_url) if webhook or webhook_url else None
            _wait(campaign, site, wait, patience, hook, reporter)
        versions = len(campaign.ledger()) - before
        reporter.say(f"{versions} new answers or changes of answers in {campaign.folder}")
        _report_pull(reporter, pulled)
    labels = labels_of(campaign)
    counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in labels.counts.items())
    reporter.say(f"{len(labels.labels)} labels in all ({counts or 'nobody has answered yet'})")
    if out is not None:
        _write(out, labels)
        reporter.say(f"labels in {out}")


def _wait(
    campaign: Campaign,
    site: Argilla,
    votes: int,
    patience: float,
    webhook: tuple[int, str | None] | None,
    reporter: Reporter,
) -> None:
    """Pull until there are so many votes, with a listener where a port or address is given."""
    from contextlib import ExitStack

    from annotation.campaign.config import WaitConfig
    from annotation.campaign.waiting import wait_for
    from annotation.campaign.webhook import Listener

    config = WaitConfig(enough=votes or None, patience_seconds=patience)
    with ExitStack() as open_:
        listener = None
        if webhook is not None:
            port, address = webhook
            listener = open_.enter_context(Listener(site, campaign.id, port=port, address=address))
        wait_for(campaign, site, config, listener=listener, bars=reporter)


def _report_pull(reporter: Reporter, pulled: Pulled) -> None:
    if pulled.lost_bytes:
        reporter.say(
            f"the journal had lost its last {pulled.lost_bytes} bytes; everything was read from "
            "the server again"
        )
    if pulled.gone:
        reporter.say(
            f"{pulled.gone} answers are no longer on the server (somebody deleted a person or a "
            "record, or restored a backup); they are kept here"
        )


@app.command(name="settings")
def settings_(
    name: Name = _DEFAULT_NAME,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML to start from.")] = False,
    home: SiteHome = DEFAULT_HOME,
) -> None:
    """Show every setting of a campaign with its value and what it does."""
    from rich.markup import escape
    from rich.table import Table

    from annotation.campaign.folder import campaign_folder
    from plumbline.config import settings, to_yaml
    from plumbline.terminal import Terminal

    config = _settings(campaign_folder(home, name), name, None, [], None, None)
    if as_yaml:
        typer.echo(to_yaml(config), nl=False)
        return
    table = Table("setting", "value", "what it does", box=None, pad_edge=False)
    for setting in settings(config):
        table.add_row(setting.key, escape(str(setting.value)), setting.documentation)
    Terminal().print(table)


def _settings(
    folder: Path,
    name: str,
    file: Path | None,
    overrides: list[str],
    people: list[str] | None,
    overlap: int | None,
) -> CampaignConfig:
    """Return the settings: those of the campaign or the file, then those of the options."""
    import json

    from annotation.campaign.config import CampaignConfig
    from annotation.campaign.folder import CAMPAIGN, Campaign
    from plumbline.config import load

    options: dict[str, Any] = {"name": name}
    if people:
        options["people"] = people
    if overlap is not None:
        options["overlap"] = overlap
    before: dict[str, Any] = {}
    if file is None and (folder / CAMPAIGN).exists():
        before = Campaign(folder).config.model_dump(mode="json")
    values = [f"{key}={json.dumps(value)}" for key, value in (before | options).items()]
    return load(CampaignConfig, file, [*values, *overrides])


def open_argilla(connection: Connection, patience: float, reporter: Reporter) -> Argilla:
    """Return the server at a connection; warn where the connection is not encrypted."""
    from annotation.argilla.api import Argilla

    if connection.is_unencrypted:
        reporter.say(
            f"[yellow]{connection.url} is plain HTTP on another machine: anybody on the network "
            "can read the API key and the labels. Use https.[/yellow]"
        )
    return Argilla(connection, patience=patience)


def _report_push(
    reporter: Reporter, folder: Path, pushed: Pushed, senior: str | None = None
) -> None:
    """Say what was sent, to all or only to a senior labeller, and where it is found."""
    from rich.markup import escape

    from annotation.campaign.folder import LEFT_OUT, Campaign
    from annotation.campaign.items import RESERVE, queue_of

    campaign = Campaign(folder)
    new_to = "the campaign" if senior is None else f"{senior}'s queue"
    reporter.say(f"{pushed.sent} records sent; {pushed.pairs} pairs are new to {new_to}")
    counts: dict[str, int] = {}
    for item in campaign.items():
        if item.queue != RESERVE:
            counts[item.purpose] = counts.get(item.purpose, 0) + 1
    reporter.say(
        "in all: " + ", ".join(f"{count} for {purpose}" for purpose, count in counts.items())
    )
    for reason, count in pushed.left_out.items():
        reporter.say(escape(f"left out {count}: {reason} (see {folder / LEFT_OUT})"))
    for note in pushed.notes:
        reporter.say(escape(note))
    own = None if senior is None else queue_of(senior, adjudication=True)
    places = [place for queue, place in campaign.places.items() if own in (None, queue)]
    workspaces = ", ".join(sorted({place.workspace for place in places}))
    who = "people find" if senior is None else f"{senior} finds"
    reporter.say(f"{who} them at {campaign.server} in the workspace {workspaces}")


def _write(out: Path, labels: Labels) -> None:
    from annotation.gold_answers import write_gold
    from plumbline.data.labels import write_labels

    out.mkdir(parents=True, exist_ok=True)
    write_labels(out, labels.labels)
    write_gold(out, labels.gold)
