"""A lost or damaged database is not served."""

from __future__ import annotations

import sqlite3

import pytest

from annotation.server.embedded.plumbline_site import database
from plumbline.errors import PlumblineError


def _make(home, people=1):
    file = home / "argilla" / "argilla.db"
    file.parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
    connection.execute("CREATE INDEX names ON users (name)")
    connection.executemany("INSERT INTO users (name) VALUES (?)", [("x" * 900,)] * people)
    connection.commit()
    connection.close()
    return file


def test_a_new_site_has_no_database_yet(tmp_path):
    assert database.problem(tmp_path) is None


def test_a_sound_one_is_served(tmp_path):
    _make(tmp_path)
    database.mark_as_used(tmp_path)
    assert database.problem(tmp_path) is None


@pytest.mark.parametrize("in_use", ["marker", "credentials", "campaigns"])
@pytest.mark.parametrize("left", ["nothing", "empty file", "no people", "no tables"])
def test_a_site_in_use_does_not_start_empty(tmp_path, left, in_use):
    if left == "empty file":
        (tmp_path / "argilla").mkdir()
        (tmp_path / "argilla" / "argilla.db").touch()
    elif left == "no people":
        _make(tmp_path, people=0)
    elif left == "no tables":
        (tmp_path / "argilla").mkdir()
        connection = sqlite3.connect(tmp_path / "argilla" / "argilla.db")
        connection.execute("CREATE TABLE x (y)")
        connection.close()
    assert database.problem(tmp_path) is None
    if in_use == "marker":
        database.mark_as_used(tmp_path)
    else:  # a site of an older version has no marker
        (tmp_path / in_use).mkdir()
        assert database.problem(tmp_path) is None
        (tmp_path / in_use / "ana.json").touch()
    problem = database.problem(tmp_path)
    assert problem is not None
    assert "restore --replace" in problem


def test_a_damaged_page_is_noticed_though_the_file_opens(tmp_path):
    file = _make(tmp_path, people=400)
    content = bytearray(file.read_bytes())
    content[40 * 4096 : 41 * 4096] = bytes(4096)
    file.write_bytes(content)
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (2,)
    connection.close()
    assert "is damaged" in database.problem(tmp_path)


def test_the_site_says_so_and_goes_on_after_its_database_is_back(own_site):
    own_site.start()
    own_site.stop()
    file = own_site.site.database
    aside = file.with_name("aside")
    file.rename(aside)
    for _ in range(2):  # refusing does not make an empty one
        with pytest.raises(PlumblineError, match=r"(?s)is missing.*Nothing was.*changed"):
            own_site.start()
        assert not file.exists()
    aside.rename(file)
    own_site.start()
    assert own_site.request("GET", "/me")["username"] == "owner"
