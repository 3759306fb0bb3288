"""Accounts: added, closed, deleted, given a new password."""

from __future__ import annotations

import json
import stat

import httpx
import pytest
from typer.testing import CliRunner

from annotation.argilla.client import Connection, RefusedError
from annotation.server.accounts import Accounts
from annotation.server.site_folder import connection
from plumbline.commands.annotate import users
from plumbline.errors import ConfigError, DataError


@pytest.fixture
def people(argilla_site, tmp_path):
    return Accounts(connection(argilla_site.home), tmp_path / "credentials")


def _handed(file):
    return json.loads(file.read_text())


def _person(people, name):
    return next((person for person in people.all() if person.name == name), None)


@pytest.fixture
def labeler(argilla_site, people):
    """Somebody in a workspace, who has labelled a record."""
    site = argilla_site
    workspace = site.workspace()
    dataset = site.dataset(workspace)
    (record,) = site.texts(dataset, "one")
    name = site.fresh("ana")
    spaces = site.request("GET", "/me/workspaces")["items"]
    space = next(one["name"] for one in spaces if one["id"] == workspace)
    file = people.add(name, workspaces=[space])
    user = next(u for u in site.request("GET", "/users")["items"] if u["username"] == name)
    assert site.submit(user, record, better="a").status_code == 201
    return {**user, **_handed(file), "file": file, "record": record, "space": space}


def test_who_is_added_signs_in_with_what_is_handed_over(argilla_site, people):
    name = argilla_site.fresh("ana")
    file = people.add(name)
    handed = _handed(file)
    assert handed == {"site": argilla_site.url, "username": name, "password": handed["password"]}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert argilla_site.sign_in(name, handed["password"]).status_code == 201
    person = _person(people, name)
    assert (person.role, person.workspaces) == ("annotator", ())
    other = _handed(people.add(argilla_site.fresh("ben")))
    assert other["password"] != handed["password"]


def test_adding_again_changes_nothing_and_says_so(argilla_site, people):
    name = argilla_site.fresh("ana")
    handed = _handed(people.add(name))
    assert people.add(name) is None
    assert argilla_site.sign_in(name, handed["password"]).status_code == 201
    with pytest.raises(ConfigError, match="the role annotator"):
        people.add(name, role="admin")
    with pytest.raises(ConfigError, match="users reset"):
        people.add(name, password="another-password")
    assert argilla_site.sign_in(name, handed["password"]).status_code == 201


def test_adding_again_adds_workspaces(argilla_site, people, labeler):
    site = argilla_site
    other = site.request("POST", "/workspaces", json={"name": site.fresh("space")})["name"]
    assert people.add(labeler["username"], workspaces=[other, labeler["space"]]) is None
    assert set(_person(people, labeler["username"]).workspaces) == {other, labeler["space"]}


def test_an_unknown_workspace_makes_no_account(argilla_site, people):
    name = argilla_site.fresh("ana")
    with pytest.raises(ConfigError, match="no workspace 'nowhere'"):
        people.add(name, workspaces=["nowhere"])
    assert _person(people, name) is None


@pytest.mark.parametrize(
    "name", ["", "Ana", "../ana", "a b", "-ana", "a" * 61, "ana/x", "änn", "a\n", "."]
)
def test_names_that_could_lead_astray_are_refused(people, name):
    with pytest.raises(ConfigError, match="must be 1 to 60 lower-case"):
        people.add(name)


@pytest.mark.parametrize("password", ["short12", "x" * 73, "é" * 37, ""])
def test_passwords_that_protect_nothing_are_refused(argilla_site, people, password):
    name = argilla_site.fresh("ana")
    with pytest.raises(ConfigError, match="8 characters") as refused:
        people.add(name, password=password)
    assert not password or password not in str(refused.value)
    assert _person(people, name) is None
    with pytest.raises(ConfigError, match="8 characters"):
        people.reset("owner", password=password)


@pytest.mark.parametrize("password", ["12345678", "é" * 36, "x" * 72, "with spaces & signs; +%"])
def test_passwords_of_ones_own_work(argilla_site, people, password):
    name = argilla_site.fresh("ana")
    people.add(name, password=password)
    assert argilla_site.sign_in(name, password).status_code == 201


def test_an_account_that_is_refused_leaves_no_password_behind(argilla_site, people, monkeypatch):
    name = argilla_site.fresh("ana")
    ask = people._request

    def refusing(method, path, **content):
        if (method, path) == ("POST", "/users"):
            raise RefusedError.with_status(422, "no")
        return ask(method, path, **content)

    monkeypatch.setattr(people, "_request", refusing)
    with pytest.raises(RefusedError):
        people.add(name)
    assert not people._file(name).exists()


def test_who_is_removed_gets_in_no_more_and_the_labels_stay(argilla_site, people, labeler):
    site, name = argilla_site, labeler["username"]
    token = site.sign_in(name, labeler["password"]).json()["access_token"]
    people.remove(name)
    assert site.sign_in(name, labeler["password"]).status_code == 401
    with site.client(labeler["api_key"]) as by_key, site.client(token=token) as by_token:
        assert by_key.get("/me").status_code == 401
        assert by_token.get("/me").status_code == 401
    assert _person(people, name).workspaces == ()
    assert not labeler["file"].exists()
    record = site.request("GET", f"/records/{labeler['record']}")
    assert [response["user_id"] for response in record["responses"]] == [labeler["id"]]
    people.remove(name)  # again, after an interruption
    file = people.reset(name)  # and back
    assert site.sign_in(name, _handed(file)["password"]).status_code == 201


def test_a_removal_that_is_cut_short_shuts_out_first(argilla_site, people, labeler, monkeypatch):
    site, name = argilla_site, labeler["username"]
    ask = people._request

    def failing(method, path, **content):
        if method == "DELETE":
            raise RefusedError.with_status(500, "cut short")
        return ask(method, path, **content)

    monkeypatch.setattr(people, "_request", failing)
    with pytest.raises(RefusedError):
        people.remove(name)
    assert site.sign_in(name, labeler["password"]).status_code == 401


def test_deleting_takes_the_labels_along(argilla_site, people, labeler):
    people.remove(labeler["username"], delete_labels=True)
    assert _person(people, labeler["username"]) is None
    assert not labeler["file"].exists()
    record = argilla_site.request("GET", f"/records/{labeler['record']}")
    assert (record["responses"], record["status"]) == ([], "pending")


def test_a_reset_gives_a_new_password_and_key(argilla_site, people, labeler):
    site, name = argilla_site, labeler["username"]
    file = people.reset(name)
    assert site.sign_in(name, labeler["password"]).status_code == 401
    assert site.sign_in(name, _handed(file)["password"]).status_code == 201
    assert "api_key" not in _handed(file)
    with site.client(labeler["api_key"]) as client:
        assert client.get("/me").status_code == 401
    user = next(u for u in site.request("GET", "/users")["items"] if u["username"] == name)
    assert len(user["api_key"]) > 60
    people.reset(name, password="of-their-own-choice")
    assert site.sign_in(name, "of-their-own-choice").status_code == 201


def test_nobody_of_that_name(argilla_site, people, labeler):
    for act in (people.remove, people.reset):
        with pytest.raises(ConfigError, match=f"Did you mean '{labeler['username']}'"):
            act(labeler["username"] + "x")


def test_the_account_that_runs_the_site_is_not_removed(argilla_site, people):
    for delete in (False, True):
        with pytest.raises(ConfigError, match="These commands use the account"):
            people.remove("owner", delete_labels=delete)
    assert argilla_site.request("GET", "/me")["username"] == "owner"


def test_the_last_owner_is_not_removed(monkeypatch, argilla_site, people, tmp_path):
    site = argilla_site
    name = site.fresh("boss")
    people.add(name, role="owner")
    assert _person(people, name).workspaces == ("all",)
    key = next(
        u["api_key"] for u in site.request("GET", "/users")["items"] if u["username"] == name
    )
    other = Accounts(Connection(site.url, key), tmp_path)
    users_ = other._users
    monkeypatch.setattr(  # as if the other were an admin by now
        other,
        "_users",
        lambda: [u if u["username"] != name else {**u, "role": "admin"} for u in users_()],
    )
    with pytest.raises(ConfigError, match="only owner"):
        other.remove("owner")
    monkeypatch.undo()
    people.remove(name)
    with site.client(key) as client:
        assert client.get("/me").status_code == 401


# Another server, which has no way to change keys, and names of any kind.


def _elsewhere(tmp_path, names, asked):
    def handle(request):
        path = request.url.path.removeprefix("/api/v1")
        asked.append(f"{request.method} {path}")
        if path == "/me":
            return httpx.Response(200, json={"id": "0", "username": "boss", "role": "owner"})
        if path == "/users":
            found = [
                {"id": str(number), "username": name, "role": "annotator"}
                for number, name in enumerate(names, 1)
            ]
            return httpx.Response(200, json={"items": found})
        if path.endswith("/workspaces"):
            return httpx.Response(200, json={"items": [{"id": "w", "name": "w"}]})
        if path.endswith("/api-key"):
            return httpx.Response(404, json={"detail": "Not Found"})
        return httpx.Response(200, json={})

    people = Accounts(Connection("http://127.0.0.1:1", "key"), tmp_path / "credentials")
    people._server._http = httpx.Client(
        base_url="http://127.0.0.1:1", transport=httpx.MockTransport(handle)
    )
    return people


def test_a_server_without_new_keys_is_told_of(tmp_path):
    asked = []
    people = _elsewhere(tmp_path, ["ana"], asked)
    with pytest.raises(DataError, match="Anyone with the old key still has access"):
        people.remove("ana")
    assert "DELETE /workspaces/w/users/1" in asked  # all that can be done is done
    with pytest.raises(DataError, match="cannot change an API key"):
        people.reset("ana")
    assert people._file("ana").exists()  # the password is changed, so it must be known


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil-of-a-plumbline-test", "..", "a/b"])
def test_a_name_on_another_server_does_not_lead_out_of_the_folder(tmp_path, name):
    people = _elsewhere(tmp_path, [name], [])
    with pytest.raises(DataError):
        people.reset(name)
    (written,) = (tmp_path / "credentials").iterdir()
    assert json.loads(written.read_text())["username"] == name


# The commands.


def test_the_commands(argilla_site, monkeypatch):
    run = CliRunner()
    home = ["--home", str(argilla_site.home)]
    name = argilla_site.fresh("cy")

    def users_(*arguments, **more):
        result = run.invoke(users.app, [*arguments, *home], catch_exceptions=False, **more)
        assert result.exit_code == 0, result.output
        return result.output

    monkeypatch.setenv("COLUMNS", "200")
    output = users_("add", name, "--password-stdin", input="a-password-of-mine\n")
    assert f"{name}.json" in output.replace("\n", "")
    assert "a-password-of-mine" not in output
    assert argilla_site.sign_in(name, "a-password-of-mine").status_code == 201
    assert "keeps the password" in users_("add", name).replace("\n", " ")
    assert name in users_("list")
    assert "new password" in users_("reset", name)
    assert "may sign in again" in users_("unlock", name)
    assert "labels stay" in users_("remove", name)
    assert "are deleted" in users_("remove", name, "--delete-labels")
    assert name not in users_("list")
