"""The labelling recipe, whole: simulated labellers, through the real server, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from annotation.server import control
from annotation.server.site_folder import Site
from plumbline.data.labels import read_labels
from plumbline.data.records import read_dataset

pytestmark = pytest.mark.slow

#: The chain's small model, and few pairs.
LABELING = """\
# recipe: human_preferences
simulate: true
senior: senior
site: {home: site, port: 0}
wait: {poll_seconds: 0.05}
gold_items: 4
rounds: {count: 2, ensemble: 2}
selection: {strategy: disagreement, count: 14, near_identical: null}
campaign: {gold_share: 0.1, repeat_share: 0.1, near_identical: 1}
adjudication: {min_share: 0.7, budget: 3}
aggregation: {held_out_share: 0.4}
labeling: {votes: 2}
"""
SHARED = ("world", "base", "sft", "pairs", "reward")


@pytest.fixture
def config(small_config, tmp_path):
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe")
    small, own = yaml.load(small_config.read_text()), yaml.load(LABELING)
    del small["world"]["ppo_prompts"]  # nothing here is trained by PPO
    path = tmp_path / "labelling.yaml"
    with path.open("w") as out:
        YAML().dump({**own, **{name: small[name] for name in SHARED}}, out)
    return path


@pytest.fixture
def start(config, tmp_path, warm_start):
    """Start the recipe in the folder, as the leader of a group; returns the process."""

    def go():
        files = ["--config", str(config), "--home", "home", "--name", "people"]
        return warm_start.start(
            "run", "human_preferences", *files, cwd=tmp_path, one_stream=True, new_session=True
        )

    return go


def test_rounds_of_labels_from_the_server_make_a_reward_model(start, tmp_path):
    site = Site(tmp_path / "site")
    process = start()
    try:
        # Killed while people label: the whole process group, and the server with it.
        deadline = time.monotonic() + 300
        journal = site.home / "campaigns" / "preferences" / "labels.jsonl"
        while not (journal.exists() and journal.stat().st_size > 0):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()[0]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        running = control.running(site)
        if running is not None:
            os.kill(running.pid, signal.SIGKILL)

        process = start()
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output

        # Every vote that was asked for is there once, also those from before the kill.
        stages = tmp_path / "home" / "people" / "stages"
        chosen = [
            row
            for number in (1, 2)
            for row in read_dataset(stages / f"round-{number}-pairs", "train")
        ]
        assert len(chosen) == len({row["pair_id"] for row in chosen}) == 28
        # What no page can show (an untrained model writes NUL) is kept apart, with the reason.
        lines = (journal.parent / "left_out.jsonl").read_text().splitlines()
        left_out = {row["record"]["pair_id"]: row["reason"] for row in map(json.loads, lines)}
        assert all(left_out.values())
        asked = [row["pair_id"] for row in chosen if row["pair_id"] not in left_out]
        assert len(asked) >= 24
        labels = read_labels(stages / "labels")
        votes = [(x.pair_id, x.annotator) for x in labels if x.purpose == "vote"]
        assert len(votes) == len(set(votes))
        assert sorted(pair for pair, _ in votes) == sorted(asked * 2)
        assert {x.source for x in labels} == {"argilla"}
        assert {x.purpose for x in labels} >= {"vote", "gold", "repeat"}
        decided = {x.pair_id for x in labels if x.purpose == "adjudication"}
        queued = {row["pair_id"] for row in read_dataset(stages / "doubtful", "train")}
        assert decided == queued
        summary = json.loads((tmp_path / "home" / "people" / "summary.json").read_text())
        assert summary["votes"] == len(votes)
        assert (tmp_path / "home" / "people" / "agreement.html").exists()
        assert control.running(site) is None  # what the recipe started, it stopped
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        control.down(site)
