"""Labels as a stage of a run: ask people about pairs, wait, and keep what they said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from annotation.aggregation.votes import write_gold
from annotation.campaign.argilla import Argilla
from annotation.campaign.config import CampaignConfig, WaitConfig
from annotation.campaign.connect import SiteConfig, campaign_folder, open_site
from annotation.campaign.items import is_adjudication
from annotation.campaign.pairs import Pair, pairs_of
from annotation.campaign.pull import Labels
from annotation.campaign.push import push
from annotation.campaign.simulate import Labeler, Workforce, hire
from annotation.campaign.state import Campaign
from annotation.campaign.waiting import wait_for
from annotation.campaign.webhook import Listener
from annotation.config import LabelerConfig
from plumbline.data.labels import write_labels
from plumbline.data.records import Row, read_dataset
from plumbline.dropped import Dropped
from plumbline.errors import ConfigError
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage


@stage("labels")
def ask_people(
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
    stage that is stopped goes on waiting when it is started again.
    """
    folder = campaign_folder(site.home, config.name)
    server = Argilla(open_site(site, stage.say), patience=wait.patience_seconds)
    rows, bad = pairs_of(read_dataset(pairs.path, "train"), pairs.id)
    known, bad_gold = (None, Dropped()) if gold is None else pairs_of(gold, "gold")
    simulated = hire(server, site.home, [one.name for one in labelers]) if labelers else []
    done = push(
        folder,
        server,
        config,
        rows,
        gold=known,
        dropped=Dropped([*bad.rows, *bad_gold.rows]),
        members=() if config.people else [one.name for one in labelers],
        bars=stage,
    )
    stage.say(f"{done.sent} records sent of {done.items}; campaign in {folder}")
    for reason, count in done.left_out.items():
        stage.say(f"left out {count}: {reason}")
    for note in done.notes:
        stage.say(note)
    campaign = Campaign(folder)
    with ExitStack() as open_:
        open_.callback(server.close)
        listener = open_.enter_context(Listener(server, campaign.id)) if wait.webhook else None
        workforce = None
        if labelers:
            if utility is None:
                raise ConfigError("Simulated labellers need a utility to judge by.")
            desks = [
                Labeler(
                    server.url,
                    credentials,
                    labeler,
                    utility,
                    data_seed,
                    campaign.id,
                    patience=wait.patience_seconds,
                )
                for credentials, labeler in zip(simulated, labelers, strict=True)
            ]
            workforce = open_.enter_context(Workforce(desks))
        check = workforce.check if workforce is not None else lambda: None
        found = wait_for(
            campaign,
            server,
            wait,
            among={pair.id for pair in rows},
            queues=[queue for queue in campaign.places if not is_adjudication(queue)],
            listener=listener,
            check=check,
            bars=stage,
        )
    return write_collected(stage, found, rows)


def write_collected(
    stage: Stage, found: Labels, pairs: Sequence[Pair]
) -> Mapping[str, float | None]:
    """Write a campaign's labels, and the known answers of its gold items, into a stage's folder.

    Only labels on these pairs and on gold items: a campaign may hold other pairs.
    """
    ids = {pair.id for pair in pairs} | set(found.gold)
    labels = [label for label in found.labels if label.pair_id in ids]
    if found.counts.get("without_choice"):
        stage.say(f"{found.counts['without_choice']} answers choose nothing, and are no labels")
    write_labels(stage.folder, labels)
    write_gold(stage.folder, found.gold)
    counts = Counter(label.purpose for label in labels)
    right = [
        label.choice == found.gold[label.pair_id] for label in labels if label.purpose == "gold"
    ]
    return {
        "labels": float(len(labels)),
        "pairs": float(len({label.pair_id for label in labels if label.purpose == "vote"})),
        "annotators": float(len({label.annotator for label in labels})),
        **{purpose: float(counts[purpose]) for purpose in ("vote", "gold", "repeat")},
        "discarded": float(found.counts.get("discarded", 0)),
        "on_other_pairs": float(len(found.labels) - len(labels)),
        "gold_accuracy": sum(right) / len(right) if right else None,
    }
