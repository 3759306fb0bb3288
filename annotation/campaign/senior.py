"""A senior labeller's decisions, as a stage: doubtful pairs out, decisions back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from annotation.campaign.argilla import Argilla
from annotation.campaign.config import CampaignConfig, WaitConfig
from annotation.campaign.connect import SiteConfig, campaign_folder, open_site
from annotation.campaign.items import queue_of
from annotation.campaign.pairs import pairs_of
from annotation.campaign.push import push_adjudication
from annotation.campaign.simulate import Labeler, Workforce, hire
from annotation.campaign.state import Campaign
from annotation.campaign.waiting import wait_for
from annotation.config import LabelerConfig
from plumbline.data.labels import Label, write_labels
from plumbline.data.records import read_dataset
from plumbline.errors import ConfigError
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage


@stage("labels")
def ask_senior(
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
    """Put a queue of doubtful pairs before a senior labeller, wait, and write what they decided.

    The decisions are labels of their own (purpose ``adjudication``); the votes stay as they are.
    """
    pairs, bad = pairs_of(read_dataset(queue.path, "train"), queue.id)
    stage.report_dropped(bad)
    decided: list[Label] = []
    if pairs:
        server = Argilla(open_site(site, stage.say), patience=wait.patience_seconds)
        folder = campaign_folder(site.home, config.name)
        simulated = hire(server, site.home, [labeler.name]) if labeler else []
        push_adjudication(folder, server, senior, pairs, bars=stage)
        campaign = Campaign(folder)
        with ExitStack() as open_:
            open_.callback(server.close)
            check = lambda: None  # noqa: E731
            if labeler is not None:
                if utility is None:
                    raise ConfigError("A simulated senior labeller needs a utility to judge by.")
                desk = Labeler(
                    server.url,
                    simulated[0],
                    labeler,
                    utility,
                    data_seed,
                    campaign.id,
                    patience=wait.patience_seconds,
                )
                check = open_.enter_context(Workforce([desk])).check
            all_of_it = wait.model_copy(update={"enough": None})
            found = wait_for(
                campaign,
                server,
                all_of_it,
                queues=[queue_of(senior, adjudication=True)],
                check=check,
                bars=stage,
            )
        ids = {pair.id for pair in pairs}
        decided = [
            label
            for label in found.labels
            if label.purpose == "adjudication" and label.pair_id in ids
        ]
    write_labels(stage.folder, decided)
    return {"decisions": float(len(decided)), "queued": float(len(pairs))}
