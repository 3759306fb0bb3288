"""A senior labeller's decisions as a stage of a run: send doubtful pairs, wait, write decisions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from annotation.argilla.api import Argilla
from annotation.campaign.config import CampaignConfig, WaitConfig
from annotation.campaign.connect import SiteConfig, open_site
from annotation.campaign.folder import Campaign, campaign_folder
from annotation.campaign.items import queue_of
from annotation.campaign.pairs import pairs_of
from annotation.campaign.push import push_adjudication
from annotation.campaign.simulated_labelers import create_accounts, simulate_team
from annotation.campaign.waiting import wait_for
from annotation.sources.config import LabelerConfig
from plumbline.data.labels import Label, write_labels
from plumbline.data.records import read_dataset
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage


@stage("labels")
def collect_decisions(
    stage: Stage,
    *,
    config: CampaignConfig,
    site: SiteConfig,
    wait: WaitConfig,
    queue: Artifact,
    senior: str,
    labeler: LabelerConfig | None = None,
    utility: Scorer | None = None,
    data_seed: int = 0,
) -> Mapping[str, float | None]:
    """Put a queue of doubtful pairs before a senior labeller, wait, and write the decisions.

    The decisions are labels of their own (purpose ``adjudication``); the votes stay unchanged.
    """
    pairs, bad = pairs_of(read_dataset(queue.path, "train"), queue.id)
    stage.report_dropped(bad)
    decisions: list[Label] = []
    if pairs:
        server = Argilla(open_site(site, stage.say), patience=wait.patience_seconds)
        folder = campaign_folder(site.home, config.name)
        if labeler is not None:
            create_accounts(server, site.home, [labeler.name])
        push_adjudication(folder, server, senior, pairs, bars=stage)
        campaign = Campaign(folder)
        with ExitStack() as open_:
            open_.callback(server.close)
            check = lambda: None  # noqa: E731
            if labeler is not None:
                team = simulate_team(campaign, server, site.home, [labeler], utility, data_seed)
                check = open_.enter_context(team).check
            labels = wait_for(
                campaign,
                server,
                wait.model_copy(update={"enough": None}),
                queues=[queue_of(senior, adjudication=True)],
                check=check,
                bars=stage,
            )
        ids = {pair.id for pair in pairs}
        decisions = [
            label
            for label in labels.labels
            if label.purpose == "adjudication" and label.pair_id in ids
        ]
    write_labels(stage.folder, decisions)
    return {"decisions": float(len(decisions)), "queued": float(len(pairs))}
