"""Starting, stopping and killing the site, and many people at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from annotation.server import control
from annotation.server.environment import python
from annotation.server.site_folder import Reach, Site
from plumbline.errors import PlumblineError

WORKERS = 4


@pytest.fixture(scope="module")
def revived(site_in, tmp_path_factory):
    """A site that was killed while people answered and records came in, and what came of it."""
    site = site_in(tmp_path_factory.mktemp("killed") / "site")
    site.start()
    workspace = site.workspace()
    dataset = site.dataset(workspace, overlap=2)
    people = [site.person(workspace) for _ in range(3)]
    records = site.texts(dataset, *(f"heron {n}" for n in range(60)))
    token = site.sign_in(people[0]["username"], people[0]["password"]).json()["access_token"]
    locked = site.person(workspace)
    wrong = [site.sign_in(locked["username"], "wrong-password") for _ in range(6)]
    assert [response.status_code for response in wrong] == [401] * 5 + [429]
    answered, pushed = [], []
    stop = threading.Event()

    def answer(person):
        for record in records:
            try:
                response = site.submit(person, record, better="a")
            except httpx.TransportError:
                return
            if response.status_code == 201:
                answered.append(response.json()["id"])

    def push():
        number = 0
        while not stop.is_set():
            try:
                pushed.extend(site.texts(dataset, *(f"egret {number}" for _ in range(7))))
            except httpx.TransportError:
                return
            number += 1

    with ThreadPoolExecutor(WORKERS) as pool:
        work = [pool.submit(answer, person) for person in people] + [pool.submit(push)]
        while len(answered) < 40 or len(pushed) < 14:
            time.sleep(0.01)
        killed = control.running(site.site)
        site.kill()
        stop.set()
        for one in work:
            one.result()
    assert control.running(site.site) is None
    assert site.site.running_file.exists()  # what a killed server leaves
    # The job that sets statuses right after a change of the overlap died with the server.
    with sqlite3.connect(site.site.database) as database:
        database.execute(
            "UPDATE records SET status = CASE status WHEN 'pending' THEN 'completed' "
            "ELSE 'pending' END WHERE rowid % 2 = 0"
        )
    database.close()
    # As if the owner had been reset, and the file written after that was not any more.
    before = site.site.owner()
    opens = {**before, "password": "of-the-file-alone", "api_key": "key-of-the-file-" + "x" * 50}
    site.site.owner_file.write_text(json.dumps(opens))
    site.start()
    stored = site.request(
        "GET", f"/datasets/{dataset}/records", params={"limit": 1000, "include": "responses"}
    )["items"]
    return {
        "site": site, "dataset": dataset, "answered": answered, "pushed": pushed,
        "stored": stored, "killed": killed, "token": token, "people": people,
        "locked": locked, "owner_before": before,
    }  # fmt: skip


def test_every_acknowledged_answer_is_there_once(revived):
    there = Counter(
        response["id"] for record in revived["stored"] for response in record["responses"]
    )
    assert set(revived["answered"]) <= set(there)
    by = Counter(
        (record["id"], response["user_id"])
        for record in revived["stored"]
        for response in record["responses"]
    )
    assert set(by.values()) == {1}


def test_every_acknowledged_record_is_there_and_found(revived):
    stored = {record["id"]: record["fields"]["text"] for record in revived["stored"]}
    assert set(revived["pushed"]) <= set(stored)
    for word in ("heron", "egret"):
        found = revived["site"].found(revived["dataset"], word)
        assert sorted(found) == sorted(r for r, text in stored.items() if text.startswith(word))


def test_statuses_are_set_right_at_the_start(revived):
    statuses = {"pending": 0, "completed": 0}
    for record in revived["stored"]:
        submitted = sum(response["status"] == "submitted" for response in record["responses"])
        assert record["status"] == ("completed" if submitted >= 2 else "pending")
        statuses[record["status"]] += 1
    assert all(statuses.values())


def test_nobody_has_to_sign_in_again(revived):
    with revived["site"].client(token=revived["token"]) as client:
        assert client.get("/me").json()["username"] == revived["people"][0]["username"]


def test_who_was_locked_out_still_is(revived):
    site, person = revived["site"], revived["locked"]
    assert site.sign_in(person["username"], person["password"]).status_code == 429


def test_the_owner_is_who_the_file_says(revived):
    site, before = revived["site"], revived["owner_before"]
    with site.client(before["api_key"]) as client:
        assert client.get("/me").status_code == 401
    assert site.request("GET", "/me")["username"] == "owner"
    assert site.sign_in("owner", before["password"]).status_code == 401
    assert site.sign_in("owner", "of-the-file-alone").status_code == 201


def test_it_is_another_process_and_starting_again_is_not(revived):
    site = revived["site"]
    now = control.running(site.site)
    assert now.pid != revived["killed"].pid
    assert control.up(site.site, site.reach) == now
    assert now.memory() > 10_000_000


def test_one_folder_has_one_server(revived):
    site = revived["site"]
    before = control.running(site.site)
    command = [python(), *control._command(site.site)]
    environment = {"PYTHONPATH": str(control.EMBEDDED), "PATH": os.environ["PATH"]}
    second = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode != 0
    assert "already running" in second.stderr
    assert control.running(site.site) == before
    assert site.request("GET", "/me")["username"] == "owner"


def test_a_damaged_pid_file_says_nothing(revived):
    site = revived["site"]
    good = site.site.running_file.read_text()
    running = json.loads(good)
    try:
        for damaged in ("", "{", "[]", '{"pid": 1}', json.dumps({**running, "pid": "x"})):
            site.site.running_file.write_text(damaged)
            assert control.running(site.site) is None
    finally:
        site.site.running_file.write_text(good)
    assert control.running(site.site).pid == running["pid"]


def test_somebody_elses_process_is_not_taken_for_the_server(tmp_path):
    """After a reboot a number may be anybody's; it must not be stopped."""
    site = Site(tmp_path / "site")
    site.prepare()
    with subprocess.Popen(["sleep", "60"]) as other:
        stored = {"pid": other.pid, "url": "http://127.0.0.1:1", "started": time.time()}
        site.running_file.write_text(json.dumps(stored))
        assert control.running(site) is None
        assert control.down(site) is False
        assert other.poll() is None
        other.kill()
    assert not site.running_file.exists()


def test_down_where_nothing_is_up(tmp_path):
    assert control.down(Site(tmp_path / "site")) is False


def _left(site) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter()
        if str(site.settings_file) in " ".join(_command(process))
    ]


def _command(process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _nothing_is_left(site):
    assert _left(site) == []
    assert not site.running_file.exists()
    assert control.running(site) is None


def test_a_port_in_use_is_refused_with_the_reason(tmp_path):
    site = Site(tmp_path / "site")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PlumblineError, match=rf"port {port}.*--port"):
            control.up(site, Reach(port=port))
    _nothing_is_left(site)
    assert not site.settings_file.exists()


def test_an_address_of_another_machine_is_refused_with_the_reason(tmp_path):
    reach = Reach(host="192.0.2.1", proxies=("192.0.2.2",))
    with pytest.raises(PlumblineError, match=r"cannot listen on 192\.0\.2\.1"):
        control.up(Site(tmp_path / "site"), reach)


def test_a_broken_database_stops_the_start_and_says_so(own_site):
    site = own_site.site
    site.prepare()
    site.database.parent.mkdir()
    site.database.write_bytes(b"no database at all" * 100)
    site.write_settings(Reach(port=4444))
    stale = {"pid": 1, "url": "x", "started": 0}
    site.running_file.write_text(json.dumps(stale))
    with pytest.raises(
        PlumblineError, match=r"(?s)stopped with code 1 .*file is not a database.*restore"
    ):
        own_site.start()
    _nothing_is_left(site)
    assert site.reach() == Reach(port=4444)  # settings that did not work are not kept
    assert site.database.read_bytes().startswith(b"no database")  # nor anything made of it


def test_a_start_that_takes_too_long_is_ended(own_site, monkeypatch):
    monkeypatch.setattr(control, "START_SECONDS", 0.3)
    with pytest.raises(PlumblineError, match="did not answer"):
        own_site.start()
    _nothing_is_left(own_site.site)


def test_a_start_that_is_interrupted_leaves_nothing(own_site, monkeypatch):
    def interrupted(*_):
        assert control.running(own_site.site) is not None  # `down` would find it by now
        raise KeyboardInterrupt

    monkeypatch.setattr(control, "_wait_until_ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        own_site.start()
    _nothing_is_left(own_site.site)


def test_a_server_that_does_not_stop_is_ended(own_site, monkeypatch):
    """One that hangs, here because it is stopped by a signal."""
    monkeypatch.setattr(control, "STOP_SECONDS", 1)
    monkeypatch.setattr(control, "_wait_until_ready", lambda *_: time.sleep(0.3))
    own_site.start()
    os.kill(control.running(own_site.site).pid, signal.SIGSTOP)
    assert control.down(own_site.site) is True
    _nothing_is_left(own_site.site)


# Many at once.


def test_a_change_of_the_overlap_sets_statuses(argilla_site):
    site = argilla_site
    workspace = site.workspace()
    dataset = site.dataset(workspace, overlap=2)
    (person,) = site.crowd(workspace, 1)
    one, two = site.texts(dataset, "one", "two")
    assert site.submit(person, one, better="a").status_code == 201

    def statuses():
        return {r: site.request("GET", f"/records/{r}")["status"] for r in (one, two)}

    assert statuses() == {one: "pending", two: "pending"}
    for overlap, expected in ((1, "completed"), (3, "pending")):
        distribution = {"strategy": "overlap", "min_submitted": overlap}
        site.request("PATCH", f"/datasets/{dataset}", json={"distribution": distribution})
        deadline = time.monotonic() + 10
        while statuses()[one] != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        assert statuses() == {one: expected, two: "pending"}


def test_deleting_a_person_counts_records_again(argilla_site):
    site = argilla_site
    workspace = site.workspace()
    dataset = site.dataset(workspace)
    person = site.person(workspace)
    (record,) = site.texts(dataset, "one")
    assert site.submit(person, record, better="a").status_code == 201
    assert site.request("GET", f"/records/{record}")["status"] == "completed"
    site.request("DELETE", f"/users/{person['id']}")
    left = site.request("GET", f"/records/{record}")
    assert (left["status"], left["responses"]) == ("pending", [])


def test_twenty_at_once_lose_nothing(argilla_site):
    """All on the same records, so that they stand in each other's way."""
    site = argilla_site
    workspace = site.workspace()
    people = site.crowd(workspace, 10)
    datasets = [site.dataset(workspace, overlap=len(people)) for _ in range(2)]
    work = [
        (person, record)
        for dataset in datasets
        for record in site.texts(dataset, "one", "two", "three")
        for person in people
    ]
    begin = threading.Barrier(20)

    def answer(part):
        begin.wait()
        return [
            (person["id"], record, site.submit(person, record, better="a"))
            for person, record in work[part::20]
        ]

    with ThreadPoolExecutor(20) as pool:
        given = [one for part in pool.map(answer, range(20)) for one in part]
    assert {response.status_code for _, _, response in given} == {201}
    stored = [
        (response["user_id"], record["id"], record["status"])
        for dataset in datasets
        for record in site.request(
            "GET", f"/datasets/{dataset}/records", params={"include": "responses"}
        )["items"]
        for response in record["responses"]
    ]
    assert sorted(stored) == sorted((user, record, "completed") for user, record, _ in given)
