"""A copy of a site while people label, and a site from a copy."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import signal
import sqlite3
import stat
import tarfile
import threading

import pytest

from annotation.private_files import replace, write_private
from annotation.server import backup as backup_module
from annotation.server.backup import backup, restore
from annotation.server.site_folder import Reach, Site
from plumbline.errors import BusyError, ConfigError, DataError


@pytest.fixture(scope="module")
def restored(argilla_site, site_in, tmp_path_factory):
    """A copy made while somebody labels, and another site made from it."""
    site = argilla_site
    folder = tmp_path_factory.mktemp("backup")
    workspace = site.workspace()
    (person,) = site.crowd(workspace, 1)
    dataset = site.dataset(workspace)
    records = site.texts(dataset, *(f"heron {n}" for n in range(60)))
    campaign = site.home / "campaigns" / "first"
    for private in (campaign.parent, campaign):  # as a push makes them
        private.mkdir(exist_ok=True, mode=0o700)
    write_private(campaign / "items.jsonl", '{"id": 1}\n')
    answered, before = [], []
    enough, stop = threading.Event(), threading.Event()

    def label():
        for record in records:
            if stop.is_set():
                return
            assert site.submit(person, record, better="a").status_code == 201
            answered.append(record)
            if len(answered) == 8:
                enough.set()

    worker = threading.Thread(target=label)
    worker.start()
    assert enough.wait(60)
    before += answered
    archive = backup(site.site, folder / "copies" / "site.tar.gz")
    stop.set()
    worker.join()
    assert len(answered) > len(before) - 1
    other = site_in(folder / "other")
    assert restore(other.site, archive) is None
    other.start()
    return {"site": site, "other": other, "archive": archive, "before": before,
            "dataset": dataset, "person": person, "records": records}  # fmt: skip


def test_every_answer_from_before_is_in_the_copy(restored):
    other = restored["other"]
    path = f"/datasets/{restored['dataset']}/records"
    stored = other.request("GET", path, params={"include": "responses", "limit": 1000})["items"]
    assert [record["id"] for record in stored] == restored["records"]
    answered = {record["id"] for record in stored if record["responses"]}
    assert set(restored["before"]) <= answered
    for record in stored:
        assert record["status"] == ("completed" if record["id"] in answered else "pending")
    assert other.found(restored["dataset"], "heron") == restored["records"]


def test_people_and_keys_are_in_the_copy(restored):
    other, person = restored["other"], restored["person"]
    assert other.api_key == restored["site"].api_key
    assert other.sign_in(person["username"], person["password"]).status_code == 201
    token = restored["site"].sign_in(person["username"], person["password"]).json()
    with other.client(token=token["access_token"]) as client:  # the secret of sessions as well
        assert client.get("/me").json()["username"] == person["username"]


def test_campaigns_are_in_the_copy(restored):
    file = restored["other"].home / "campaigns" / "first" / "items.jsonl"
    assert file.read_text() == '{"id": 1}\n'


def test_nobody_else_reads_the_copy_or_what_came_of_it(restored):
    assert stat.S_IMODE(restored["archive"].stat().st_mode) == 0o600
    other = restored["other"].home
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    for path in (*(other / "secrets").iterdir(), other / "argilla" / "argilla.db"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_copy_leaves_nothing_behind(restored):
    site, archive = restored["site"], restored["archive"]
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    known = {"secrets", "credentials", "argilla", "campaigns", "corrections", "tmp"}
    assert {path.name for path in site.home.iterdir() if path.is_dir()} <= known


def test_a_site_that_is_up_is_not_restored_over(restored):
    with pytest.raises(BusyError, match="annotate down"):
        restore(restored["other"].site, restored["archive"], replace=True)


# Without a server.


@pytest.fixture
def site(tmp_path):
    """A site with a small database, which is not up."""
    made = Site(tmp_path / "home" / "site")
    made.prepare()
    made.write_settings(Reach(port=4444))
    made.database.parent.mkdir()
    with contextlib.closing(sqlite3.connect(made.database)) as database:
        database.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, text TEXT)")
        rows = [(f"record {number} " * 20,) for number in range(200)]
        database.executemany("INSERT INTO records (text) VALUES (?)", rows)
        database.commit()
    (made.credentials / "ana.json").write_text("{}")
    (made.home / "campaigns" / "c").mkdir(parents=True)
    (made.home / "campaigns" / "c" / "items.jsonl").write_text("{}\n")
    return made


@pytest.fixture
def archive(site, tmp_path):
    return backup(site, tmp_path / "site.tar.gz")


def _contents(site):
    with contextlib.closing(sqlite3.connect(site.database)) as database:
        rows = database.execute("SELECT * FROM records").fetchall()
    parts = ("secrets", "credentials", "campaigns")
    files = {
        str(path.relative_to(site.home)): path.read_bytes()
        for part in parts
        for path in sorted((site.home / part).rglob("*"))
        if path.is_file()
    }
    return rows, files


def test_there_and_back(site, archive, tmp_path):
    other = Site(tmp_path / "elsewhere" / "deep" / "site")
    restore(other, archive)
    assert _contents(other) == _contents(site)
    assert not other.settings_file.exists()  # how it is reached is each machine's own affair
    assert not (other.home / "contents.json").exists()
    assert [path.name for path in other.home.parent.iterdir()] == ["site"]


def test_files_that_go_or_are_written_meanwhile_are_not_in_the_copy(site, tmp_path, monkeypatch):
    """Somebody is removed, and a pull replaces a file."""
    _, before = _contents(site)
    (site.home / "campaigns" / "c" / ".pulled.json.new").write_text('{"half')
    add = backup_module._add

    def remove_ana(*arguments):
        (site.credentials / "ana.json").unlink(missing_ok=True)
        add(*arguments)

    monkeypatch.setattr(backup_module, "_add", remove_ana)
    other = Site(tmp_path / "elsewhere" / "site")
    restore(other, backup(site, tmp_path / "site.tar.gz"))
    assert _contents(other)[1].keys() == before.keys() - {"credentials/ana.json"}


def killed_at(monkeypatch, name, call):
    """Call something in another process, which is killed where it comes to a function."""
    with monkeypatch.context() as patch:
        patch.setattr(backup_module, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        child = os.fork()
        if child == 0:
            call()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_the_next_attempt_deletes_the_copy_that_a_killed_one_left(site, tmp_path, monkeypatch):
    """It holds people's answers and the site's secrets."""
    before = set(site.home.iterdir())
    killed_at(monkeypatch, "_add", lambda: backup(site, tmp_path / "first.tar.gz"))
    assert len(set(site.home.rglob("argilla.db")) - {site.database}) == 1
    archive = backup(site, tmp_path / "second.tar.gz")
    assert set(site.home.iterdir()) == before

    other = Site(tmp_path / "elsewhere" / "site")
    killed_at(monkeypatch, "stored_file", lambda: restore(site, archive, replace=True))
    assert len(list(site.home.parent.rglob("argilla.db"))) == 2
    restore(site, archive, replace=True)
    assert len(list(site.home.parent.glob("plumbline-*"))) == 0
    restore(other, archive)
    assert stat.S_IMODE(other.home.stat().st_mode) == 0o700


def test_processes_replace_a_file_at_a_time(tmp_path, monkeypatch):
    """None takes the half that another one has written so far."""
    file, fsync = tmp_path / "page.html", os.fsync
    second = threading.Thread(target=write_private, args=(file, "b" * 9))

    def let_another_begin(descriptor):
        if not second.ident:
            second.start()
            second.join(0.2)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", let_another_begin)
    replace(file, "a")
    second.join()
    assert file.read_text() == "b" * 9
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


def test_replacing_keeps_what_was_there(site, archive):
    (site.home / "credentials" / "ben.json").write_text("later")
    with pytest.raises(DataError, match="--replace"):
        restore(site, archive)
    assert (site.home / "credentials" / "ben.json").exists()
    aside = restore(site, archive, replace=True)
    assert aside is not None
    assert aside.parent == site.home.parent
    assert (aside / "credentials" / "ben.json").read_text() == "later"
    assert stat.S_IMODE(aside.stat().st_mode) == 0o700
    assert not (site.home / "credentials" / "ben.json").exists()
    assert site.reach().port == 4444  # this machine's settings stay
    again = restore(site, archive, replace=True)  # within the same second
    assert again not in (None, aside)
    assert aside.exists()


def test_what_is_not_there_or_is_in_the_way_is_said(site, archive, tmp_path):
    with pytest.raises(DataError, match="does not overwrite"):
        backup(site, archive)
    with pytest.raises(DataError, match="no file"):
        restore(Site(tmp_path / "x"), tmp_path / "nowhere.tar.gz")
    with pytest.raises(ConfigError, match="no labelling site"):
        backup(Site(tmp_path / "x"), tmp_path / "y.tar.gz")
    never_up = Site(tmp_path / "never-up")
    never_up.prepare()
    with pytest.raises(DataError, match="never ran"):
        backup(never_up, tmp_path / "y.tar.gz")
    assert not never_up.database.exists()
    assert not (tmp_path / "y.tar.gz").exists()


def _refused(archive, tmp_path, match):
    home = tmp_path / "new" / "site"
    with pytest.raises(DataError, match=match):
        restore(Site(home), archive)
    assert not home.exists()
    assert list(home.parent.iterdir()) == []  # nor anything half done
    assert not (tmp_path / "evil").exists()


def test_any_flipped_byte_is_noticed_or_harmless(site, archive, tmp_path):
    good = archive.read_bytes()
    before = _contents(site)
    choose = random.Random(2)
    places = [*choose.sample(range(len(good)), 60), *range(0, 40, 3), *range(-9, 0)]
    refused = 0
    for number, place in enumerate(places):
        damaged = bytearray(good)
        damaged[place] ^= 1 << choose.randrange(8)
        file = tmp_path / "damaged.tar.gz"
        file.write_bytes(damaged)
        other = Site(tmp_path / f"from-{number}" / "site")
        try:
            restore(other, file)
        except DataError as error:
            refused += 1
            assert "Use an earlier" in str(error)
            assert list(other.home.parent.iterdir()) == []
        else:  # in what gzip says of the file's name and time
            assert _contents(other) == before
    assert refused > len(places) - 20


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.95])
def test_a_cut_archive_is_refused(archive, tmp_path, share):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    _refused(archive, tmp_path, "not a complete backup")


def test_what_is_no_archive_is_refused(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("my notes")
    _refused(file, tmp_path, "not a complete backup")
    file.write_bytes(gzip.compress(b"my notes"))
    _refused(file, tmp_path, "not a complete backup")


def _rewritten(archive, change):
    """Write the archive again with other members: a list of headers and contents."""
    with tarfile.open(archive) as opened:
        members = [
            (member, opened.extractfile(member).read() if member.isfile() else b"")
            for member in opened
        ]
    members = change(members)
    with tarfile.open(archive, "w:gz") as written:
        for member, data in members:
            member.size = len(data)
            written.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    "missing", ["argilla/argilla.db", "secrets/owner.json", "secrets/session.key", "contents.json",
                "credentials/ana.json"],
)  # fmt: skip
def test_an_archive_without_a_file_is_refused(archive, tmp_path, missing):
    _rewritten(archive, lambda members: [one for one in members if one[0].name != missing])
    _refused(archive, tmp_path, f"(?s){missing}|not a complete backup")


@pytest.mark.parametrize("needed", ["argilla/argilla.db", "secrets/session.key"])
def test_an_archive_that_never_held_a_needed_file_is_refused(archive, tmp_path, needed):
    def without(members):
        kept = []
        for member, data in members:
            if member.name == "contents.json":
                contents = json.loads(data)
                del contents["sha256"][needed]
                data = json.dumps(contents).encode()
            if member.name != needed:
                kept.append((member, data))
        return kept

    _rewritten(archive, without)
    _refused(archive, tmp_path, f"{needed} is not in it")


def _made(name, data=b"evil", **more):
    member = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(member, key, value)
    return member, data if member.isfile() else b""


@pytest.mark.parametrize(
    "member",
    [
        _made("../../evil"),
        _made("/tmp/evil-of-a-plumbline-test"),
        _made("credentials/../../../evil"),
        _made("site.json"),
        _made("argilla/argilla.db-wal"),
        _made("secrets/owner.json"),
        _made("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        _made("credentials/link", type=tarfile.SYMTYPE, linkname="../secrets/owner.json"),
        _made("hard", type=tarfile.LNKTYPE, linkname="secrets/owner.json"),
        _made("device", type=tarfile.CHRTYPE),
        _made("pipe", type=tarfile.FIFOTYPE),
    ],
    ids=lambda one: one[0].name,
)
def test_what_does_not_belong_into_an_archive_is_refused(archive, tmp_path, member):
    _rewritten(archive, lambda members: [*members, member])
    _refused(archive, tmp_path, "holds|damaged|not a complete backup")


@pytest.mark.parametrize("contents", [b"", b"[]", b"{}", b'{"sha256": []}', b"\xff", b"3"])
def test_a_list_of_contents_that_is_none_is_refused(archive, tmp_path, contents):
    def change(members):
        return [(m, contents if m.name == "contents.json" else data) for m, data in members]

    _rewritten(archive, change)
    _refused(archive, tmp_path, "not a complete backup")


def test_a_damaged_database_is_refused_though_its_sum_is_right(site, tmp_path):
    data = bytearray(site.database.read_bytes())
    data[4096:12288] = b"\xff" * 8192
    site.database.write_bytes(data)
    _refused(backup(site, tmp_path / "site.tar.gz"), tmp_path, "database in .* is damaged")
