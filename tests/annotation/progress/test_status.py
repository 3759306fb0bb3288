"""``plumbline annotate status`` on a real server: once, live, and while the server is away."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection, RefusedError
from annotation.campaign.items import pseudonym
from annotation.campaign.pairs import Pair
from annotation.progress.monitor import ProgressMonitor
from plumbline.commands.annotate.status import status
from plumbline.commands.app import main
from plumbline.data.records import user
from plumbline.errors import ConfigError, DataError


@pytest.fixture
def home(tmp_path, argilla_site):
    """A folder for campaigns; and the server's key in a file, as for another server."""
    (tmp_path / "key").write_text(argilla_site.api_key)
    return tmp_path


@pytest.fixture
def ground(ground, home):
    return replace(ground, folder=home / "campaigns" / ground.name)


@pytest.fixture
def words(home, argilla_site):
    """What the command line needs to know of the server."""
    return ["--home", str(home), "--server", argilla_site.url, "--api-key-file", str(home / "key")]


@pytest.fixture
def type_(words, capsys, monkeypatch):
    """Type a command; return its exit code and what it says."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*more):
        code = 0
        try:
            main(["annotate", "status", *map(str, more), *words])
        except SystemExit as ended:
            code = ended.code or 0
        return code, capsys.readouterr().out

    return run


GOLD = [Pair("gold", [user("Two and two?")], "The better one: four.", "I think five", answer="a")]


def test_progress_of_everybody_in_the_terminal_as_json_and_as_a_page(
    ground, pairs, better, type_, tmp_path, words
):
    ana, ben = ground.person(), ground.person()
    ground.push(pairs(10), [ana, ben], GOLD, overlap=2, gold_share=0.1, repeat_share=0.1,
                repeat_distance=2)  # fmt: skip
    code, said = type_()  # the only campaign need not be named
    assert code == 0
    assert "0.0% done: of 24 answers, 0 are given, and 24 are missing" in said
    assert "The time that the rest takes is unknown" in said
    assert "nobody has answered yet" in said
    assert f"Site: a server of Argilla at {words[3]}" in said
    assert f"These people have answered nothing yet: {ana}, {ben}." in said

    ground.answer(ana, better)
    ground.answer(ben, better, count=5)
    page = tmp_path / "status.html"
    code, said = type_("-n", ground.name, "--html", page)
    assert code == 0
    assert "of 24 answers, 17 are given, and 7 are missing" in said
    assert re.search(rf"^{ana} .*100\.0%\s+12/12\s+0\s+0\s+12\s+12\s", said, re.MULTILINE)
    assert re.search(rf"^{ben} .*5/12\s+0\s+7\s+5\s+5\s", said, re.MULTILINE)
    assert "two votes on the same pair are equal in 100.0%" in said.lower()
    ids = {name: id_ for id_, name in ground.campaign.people().items()}
    shown = pseudonym(ground.campaign.secret, ids[ana])
    text = page.read_text()
    assert shown in text and ana not in text and ben not in text
    assert "refresh" not in text

    code, said = type_("--json", "--html", page, "--names")
    found = json.loads(said)
    assert code == 0
    assert (found["open"], found["submitted"], found["finished"]) == (7, 17, False)
    first = found["people"][0]
    assert (first["name"], first["person"]) == (ana, shown)
    assert (first["gold_accuracy"]["value"], first["self_consistency"]["value"]) == (1.0, 1.0)
    assert first["pace"]["timed"] == 11
    assert ana in page.read_text()
    assert {label.annotator for label in ground.labels()} == {
        person["person"] for person in found["people"]
    }
    assert ana not in type_("--json")[1]


def test_a_shared_queue_tells_who_may_still_take_and_where_people_are_wanting(
    ground, pairs, type_, argilla_site
):
    ground.push(pairs(4), overlap=2)
    place = ground.campaign.places["shared"]
    workspace = ground.site.workspaces()[place.workspace]
    ana, ben = (argilla_site.person(workspace)["username"] for _ in range(2))
    argilla_site.person(workspace, role="admin")  # sees the queue, and is not there to label
    ground.answer(ana, count=3)
    code, said = type_("--json", "--names")
    found = json.loads(said)
    assert code == 0
    assert (found["wanted"], found["open"], found["out_of_reach"]) == (8, 5, 0)
    assert {p["name"]: (p["assigned"], p["open"], p["submitted"]) for p in found["people"]} == {
        ana: (None, 1, 3), ben: (None, 4, 0),
    }  # fmt: skip
    argilla_site.request("DELETE", f"/workspaces/{workspace}/users/{_id(argilla_site, ben)}")
    overview = ProgressMonitor(ground.folder, lambda: ground.site)
    totals = overview.look().progress.totals
    assert (totals.open, totals.out_of_reach) == (5, 4)


def _id(site, name):
    return next(u["id"] for u in site.request("GET", "/users")["items"] if u["username"] == name)


def test_campaigns_are_listed_and_near_names_suggested(ground, pairs, type_, home):
    with pytest.raises(DataError, match="There is no campaign in"):
        status(home=home)
    other = replace(ground, name=f"{ground.name}-b", folder=ground.folder.with_name("second"))
    ground.push(pairs(3), [ground.person()])
    other.push(pairs(2), [other.person()])
    code, said = type_()
    assert code == 0
    assert re.search(rf"^{ground.name} +3 +0 +3 +0\.0%", said, re.MULTILINE)
    assert re.search(r"^second +2 +0 +2 +0\.0%", said, re.MULTILINE)
    assert "--campaign NAME" in said
    with pytest.raises(ConfigError, match="several campaigns"):
        status(live=True, home=home)
    with pytest.raises(DataError, match=r"no campaign 'secnd'.*Did you mean 'second'\?"):
        status("secnd", home=home)


def test_a_server_that_is_away_is_told_with_what_the_last_pull_knew(
    ground, pairs, home, capsys, monkeypatch
):
    monkeypatch.setattr("plumbline.commands.annotate.status._ONCE_PATIENCE", 0.2)
    ana = ground.person()
    ground.push(pairs(4), [ana])
    ground.answer(ana, count=1)
    ground.labels()
    away = ["--server", "http://127.0.0.1:9", "--api-key-file", str(home / "key")]
    page = home / "status.html"
    with pytest.raises(SystemExit) as ended:
        main(["annotate", "status", "--home", str(home), *away, "--html", str(page)])
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert "These numbers are of the last pull" in said.out
    assert "of 4 answers, 1 are given" in said.out
    assert "does not answer" in said.err
    assert "These numbers are of the last pull" in page.read_text()


def test_a_server_that_refuses_is_not_one_that_is_away(ground, pairs):
    ground.push(pairs(2), [ground.person()])
    wrong = Connection(ground.server.url, "a-wrong-key")
    with pytest.raises(RefusedError, match="does not know this API key"):
        ProgressMonitor(ground.folder, lambda: Argilla(wrong, patience=5)).look()


def start(words, *more):
    """Start the command in a process of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "plumbline", "annotate", "status", "--live"]
    return subprocess.Popen(
        [*command, "--every", "0.5", *more, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def test_ctrl_c_ends_it_cleanly_and_the_page_stands_still(ground, pairs, words, tmp_path):
    ground.push(pairs(3), [ground.person()])
    page = tmp_path / "status.html"
    process = start(words, "--html", str(page))
    line = process.stdout.readline()
    assert "0.0% done: of 3 answers" in line
    wait_for(lambda: page.exists() and 'http-equiv="refresh" content="1"' in page.read_text())
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in out + error
    assert "Stopped. The same command resumes" in error
    assert "These people have answered nothing yet" in out  # the tables, once more
    assert "refresh" not in page.read_text()


@pytest.mark.slow
def test_it_goes_on_while_the_server_restarts_until_all_is_answered(
    own_ground, pairs, better, tmp_path
):
    site = own_ground.server
    ground = replace(own_ground, folder=site.home / "campaigns" / own_ground.name)
    ana = ground.person()
    ground.push(pairs(4), [ana])
    process = start(["--home", str(site.home)], "--json")
    try:
        assert json.loads(process.stdout.readline())["open"] == 4
        ground.answer(ana, better, count=1)
        site.kill()
        seen = []
        while not seen or seen[-1]["warning"] is None:
            seen.append(json.loads(process.stdout.readline()))
        site.start()
        ground.answer(ana, better)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, error
    last = json.loads(out.splitlines()[-1])
    assert (last["open"], last["finished"], last["warning"]) == (0, True, None)
    assert "Traceback" not in error


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
