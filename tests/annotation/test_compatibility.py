"""What earlier versions made is still read: a site of commit 5b3c0e6, with all its labels."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest

from annotation.agreement.report import report_on
from annotation.argilla.api import Argilla
from annotation.campaign.folder import Campaign
from annotation.campaign.pull import labels_of, pull
from annotation.server.backup import restore
from annotation.server.site_folder import connection
from plumbline.data.labels import read_labels
from plumbline.data.records import read_dataset

FIXTURE = Path(__file__).parent / "fixtures" / "site-5b3c0e6"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))


def as_json(labels):
    return json.loads(json.dumps([asdict(label) for label in labels]))


@pytest.fixture(scope="module")
def old_home(tmp_path_factory):
    """The folder of the old site, unpacked without any code of today's."""
    home = tmp_path_factory.mktemp("old") / "labelling"
    with tarfile.open(FIXTURE / "site.tar.gz") as archive:
        archive.extractall(home, filter="data")
    return home


def test_the_labels_of_an_old_campaign_folder_are_the_same_labels(old_home):
    found = labels_of(Campaign(old_home / "campaigns" / "old"))
    assert as_json(found.labels) == EXPECTED["labels"]
    assert found.gold == EXPECTED["gold"]


def test_every_version_of_every_answer_in_an_old_journal_is_read(old_home):
    campaign = Campaign(old_home / "campaigns" / "old")
    versions = campaign.ledger().versions()
    lines = (campaign.folder / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(map(len, versions)) == len(lines)
    assert max(map(len, versions)) == 2  # one answer was changed


def test_an_old_labels_artefact_is_read_and_measured_as_then():
    assert as_json(read_labels(FIXTURE / "labels")) == EXPECTED["labels"]
    report = report_on(FIXTURE / "labels")
    assert report.agreement.agreement.value == EXPECTED["agreement"]
    assert report.agreement.alpha.value == EXPECTED["alpha"]
    assert report.agreement.fleiss_kappa.value == EXPECTED["fleiss"]


def test_old_votes_make_the_same_preferences_and_doubtful_pairs(old_home, tmp_path, run_cli):
    run_cli("annotate", "aggregate", "-n", "old", "--home", old_home, "--out", tmp_path / "made")
    rows = [row for split in ("train", "test") for row in read_dataset(tmp_path / "made", split)]
    kept = [{key: row[key] for key in EXPECTED["preferences"][0]} for row in rows]
    assert sorted(kept, key=lambda row: row["pair_id"]) == EXPECTED["preferences"]
    lines = (tmp_path / "made" / "undecided.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["pair_id"] for line in lines] == EXPECTED["undecided"]
    run_cli("annotate", "doubtful", "-n", "old", "--home", old_home, "--out", tmp_path / "queue")
    queue = [[row["pair_id"], row["reasons"]] for row in read_dataset(tmp_path / "queue", "train")]
    assert queue == EXPECTED["doubtful"]


def test_an_old_backup_is_restored_started_and_pulled_without_losing_a_label(own_site):
    shutil.rmtree(own_site.home, ignore_errors=True)
    restore(own_site.site, FIXTURE / "site.tar.gz")
    own_site.start()
    server = Argilla(connection(own_site.home), patience=10)
    campaign = Campaign(own_site.home / "campaigns" / "shared")
    before = {answer.id for answer in campaign.ledger().current()}
    found = pull(campaign, server)
    after = {answer.id for answer in campaign.ledger().current()}
    assert (found.new, found.gone) == (3, 0)  # what ben had answered and nobody had pulled
    assert before < after
    assert len(labels_of(campaign).labels) == 6
    old = Campaign(own_site.home / "campaigns" / "old")
    pull(old, server, everything=True)
    assert as_json(labels_of(old).labels) == EXPECTED["labels"]
