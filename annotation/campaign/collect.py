"""Labels as a stage of a run: put pairs before people, wait, and write their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from annotation.argilla.api import Argilla
from annotation.campaign.config import CampaignConfig, WaitConfig
from annotation.campaign.connect import SiteConfig, open_site
from annotation.campaign.folder import Campaign, campaign_folder
from annotation.campaign.items import is_adjudication
from annotation.campaign.pairs import Pair, pairs_of
from annotation.campaign.pull import Labels
from annotation.campaign.push import Pushed, push
from annotation.campaign.simulated_labelers import create_accounts, simulate_team
from annotation.campaign.waiting import wait_for
from annotation.campaign.webhook import Listener
from annotation.gold_answers import write_gold
from annotation.sources.config import LabelerConfig
from plumbline.data.labels import write_labels
from plumbline.data.records import Row, read_dataset
from plumbline.dropped import Dropped
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage


@stage("labels")
def collect_labels(
    stage: Stage,
    *,
    config: CampaignConfig,
    site: SiteConfig,
    wait: WaitConfig,
    pairs: Artifact,
    gold: Sequence[Row] | None = None,
    labelers: Sequence[LabelerConfig] = (),
    utility: Scorer | None = None,
    data_seed: int = 0,
) -> Mapping[str, float | None]:
    """Push pairs to a campaign, wait for its labels and write them, with the gold answers.

    ``gold`` are rows with an ``answer``; without them, pairs whose answer is known are taken. With
    ``labelers`` and a ``utility``, simulated labellers do the work, through the same server. A
    stage that was stopped resumes waiting when it is started again.
    """
    folder = campaign_folder(site.home, config.name)
    server = Argilla(open_site(site, stage.say), patience=wait.patience_seconds)
    rows, bad = pairs_of(read_dataset(pairs.path, "train"), pairs.id)
    gold_pairs, bad_gold = (None, Dropped()) if gold is None else pairs_of(gold, "gold")
    names = [labeler.name for labeler in labelers]
    if labelers:
        create_accounts(server, site.home, names)
    pushed = push(
        folder,
        server,
        config,
        rows,
        gold=gold_pairs,
        dropped=Dropped([*bad.rows, *bad_gold.rows]),
        members=() if config.people else names,
        bars=stage,
    )
    _report_push(stage, pushed, str(folder))
    campaign = Campaign(folder)
    with ExitStack() as open_:
        open_.callback(server.close)
        listener = open_.enter_context(Listener(server, campaign.id)) if wait.webhook else None
        check = lambda: None  # noqa: E731
        if labelers:
            team = simulate_team(campaign, server, site.home, labelers, utility, data_seed)
            check = open_.enter_context(team).check
        labels = wait_for(
            campaign,
            server,
            wait,
            among={pair.id for pair in rows},
            queues=[queue for queue in campaign.places if not is_adjudication(queue)],
            listener=listener,
            check=check,
            bars=stage,
        )
    return write_collected(stage, labels, rows)


def _report_push(stage: Stage, pushed: Pushed, folder: str) -> None:
    stage.say(f"{pushed.sent} of {pushed.items} records sent; campaign in {folder}")
    for reason, count in pushed.left_out.items():
        stage.say(f"left out {count}: {reason}")
    for note in pushed.notes:
        stage.say(note)


def write_collected(
    stage: Stage, collected: Labels, pairs: Sequence[Pair]
) -> Mapping[str, float | None]:
    """Write a campaign's labels, and the known answers of its gold items, into a stage's folder.

    Only labels on these pairs and on gold items are written: a campaign may hold other pairs.
    """
    ids = {pair.id for pair in pairs} | set(collected.gold)
    labels = [label for label in collected.labels if label.pair_id in ids]
    if collected.counts.get("without_choice"):
        stage.say(f"{collected.counts['without_choice']} answers choose nothing: no labels")
    write_labels(stage.folder, labels)
    write_gold(stage.folder, collected.gold)
    counts = Counter(label.purpose for label in labels)
    right = [
        label.choice == collected.gold[label.pair_id] for label in labels if label.purpose == "gold"
    ]
    return {
        "labels": float(len(labels)),
        "pairs": float(len({label.pair_id for label in labels if label.purpose == "vote"})),
        "annotators": float(len({label.annotator for label in labels})),
        **{purpose: float(counts[purpose]) for purpose in ("vote", "gold", "repeat")},
        "discarded": float(collected.counts.get("discarded", 0)),
        "on_other_pairs": float(len(collected.labels) - len(labels)),
        "gold_accuracy": sum(right) / len(right) if right else None,
    }
