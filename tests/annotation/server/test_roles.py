"""Who sees and does what, asked of the API itself.

Wherever something is refused, what was asked for must not be in the answer either.
"""

from __future__ import annotations

import json
import uuid

import pytest

PRIVATE = "what-ana-said-in-confidence"
GOLD = "known-answer-b"
FOREIGN = "text-of-the-other-workspace"


@pytest.fixture(scope="module")
def world(argilla_site):
    """Two workspaces; in one, two labellers and an admin, and what one of them has said."""
    site = argilla_site
    here, there = site.workspace(), site.workspace()
    questions = {"better": site.labels("a", "b"), "why": {"type": "text"}}
    properties = [
        {"name": "gold", "settings": {"type": "terms"}, "visible_for_annotators": False},
        {"name": "topic", "settings": {"type": "terms"}, "visible_for_annotators": True},
    ]
    dataset = site.dataset(here, questions=questions, properties=properties, overlap=2)
    foreign = site.dataset(there, properties=properties[:1])
    (record,) = site.push(
        dataset, [{"fields": {"text": "one"}, "metadata": {"gold": GOLD, "topic": "law"}}]
    )
    (foreign_record,) = site.push(foreign, [{"fields": {"text": FOREIGN}}])
    people = {
        "ana": site.person(here),
        "ben": site.person(here),
        "admin": site.person(here, "admin"),
        "stranger": site.person(there),
    }
    answer = site.submit(people["ana"], record["id"], better="a", why=PRIVATE)
    assert answer.status_code == 201
    assert site.submit(people["stranger"], foreign_record["id"], better="b").status_code == 201
    assert site.submit(people["ben"], record["id"], better="b", why="ben's").status_code == 201
    return {
        "site": site, "here": here, "there": there, "dataset": dataset, "foreign": foreign,
        "record": record["id"], "foreign_record": foreign_record["id"],
        "response": answer.json()["id"], **people,
    }  # fmt: skip


def _ask(world, who, method, path, **content):
    with world["site"].client(world[who]["api_key"]) as client:
        return client.request(method, path.format_map(world), **content)


def _secrets(world, who):
    """What must not reach somebody, whatever they ask."""
    keys = [world["site"].api_key] + [
        world[name]["api_key"] for name in ("ana", "ben", "admin", "stranger") if name != who
    ]
    return keys


ALL = {"include": "responses"}
REFUSED_TO_LABELERS = [
    ("GET", "/datasets/{dataset}/records", {"params": ALL}),
    ("POST", "/datasets/{dataset}/records/search", {"json": {}, "params": ALL}),
    ("PUT", "/responses/{response}", {"json": {"status": "discarded"}}),
    ("DELETE", "/responses/{response}", {}),
    ("GET", "/users", {}),
    ("GET", "/users/{ana[id]}", {}),
    ("GET", "/users/{ana[id]}/workspaces", {}),
    ("POST", "/users", {"json": {"username": "eve", "first_name": "e", "password": "x" * 9}}),
    ("PATCH", "/users/{ana[id]}", {"json": {"password": "taken-over"}}),
    ("PATCH", "/users/{ben[id]}", {"json": {"role": "owner"}}),
    ("DELETE", "/users/{ana[id]}", {}),
    ("POST", "/users/{ana[id]}/api-key", {}),
    ("POST", "/users/{ben[id]}/api-key", {}),
    ("GET", "/workspaces/{here}/users", {}),
    ("POST", "/workspaces/{there}/users", {"json": {"user_id": "{ben[id]}"}}),
    ("DELETE", "/workspaces/{here}/users/{ana[id]}", {}),
    ("POST", "/workspaces", {"json": {"name": "mine"}}),
    ("DELETE", "/workspaces/{here}", {}),
    ("GET", "/workspaces/{there}", {}),
    ("GET", "/webhooks", {}),
    ("POST", "/webhooks", {"json": {"url": "http://127.0.0.1:1", "events": ["response.created"]}}),
    ("POST", "/datasets", {"json": {"name": "mine", "workspace_id": "{here}"}}),
    ("PATCH", "/datasets/{dataset}", {"json": {"guidelines": "choose a"}}),
    ("DELETE", "/datasets/{dataset}", {}),
    ("POST", "/datasets/{dataset}/records/bulk", {"json": {"items": [{"fields": {"text": "x"}}]}}),
    ("PUT", "/datasets/{dataset}/records/bulk", {"json": {"items": [{"fields": {"text": "x"}}]}}),
    ("DELETE", "/datasets/{dataset}/records", {"params": {"ids": "{record}"}}),
    ("PATCH", "/records/{record}", {"json": {"metadata": {}}}),
    ("DELETE", "/records/{record}", {}),
    ("DELETE", "/records/{record}/suggestions", {"params": {"ids": str(uuid.uuid4())}}),
]
OF_ANOTHER_WORKSPACE = [
    ("GET", "/datasets/{foreign}", {}),
    ("GET", "/datasets/{foreign}/fields", {}),
    ("GET", "/datasets/{foreign}/questions", {}),
    ("GET", "/datasets/{foreign}/progress", {}),
    ("GET", "/datasets/{foreign}/users/progress", {}),
    ("GET", "/me/datasets/{foreign}/metrics", {}),
    ("GET", "/me/datasets/{foreign}/metadata-properties", {}),
    ("GET", "/datasets/{foreign}/records", {"params": ALL}),
    ("POST", "/datasets/{foreign}/records/search", {"json": {}, "params": ALL}),
    ("POST", "/me/datasets/{foreign}/records/search", {"json": {}, "params": ALL}),
    ("GET", "/datasets/{foreign}/records/search/suggestions/options", {}),
    ("GET", "/records/{foreign_record}", {}),
    ("GET", "/records/{foreign_record}/suggestions", {}),
    ("POST", "/records/{foreign_record}/responses",
     {"json": {"status": "submitted", "values": {"better": {"value": "a"}}}}),
    ("GET", "/workspaces/{there}", {}),
    ("GET", "/workspaces/{there}/users", {}),
    ("PATCH", "/datasets/{foreign}", {"json": {"guidelines": "choose a"}}),
    ("DELETE", "/datasets/{foreign}", {}),
    ("DELETE", "/datasets/{foreign}/records", {"params": {"ids": "{foreign_record}"}}),
    ("POST", "/datasets/{foreign}/records/bulk", {"json": {"items": [{"fields": {"text": "x"}}]}}),
    ("DELETE", "/workspaces/{there}/users/{stranger[id]}", {}),
    ("POST", "/datasets", {"json": {"name": "mine", "workspace_id": "{there}"}}),
]  # fmt: skip


def _filled(world, content):
    if isinstance(content, dict):
        return {name: _filled(world, value) for name, value in content.items()}
    if isinstance(content, list):
        return [_filled(world, value) for value in content]
    return content.format_map(world) if isinstance(content, str) else content


def _refused(world, who, asked):
    method, path, content = asked
    answer = _ask(world, who, method, path, **_filled(world, content))
    assert answer.status_code in (403, 404), answer.text
    for secret in (PRIVATE, GOLD, FOREIGN, *_secrets(world, who)):
        assert secret not in answer.text


@pytest.mark.parametrize("asked", REFUSED_TO_LABELERS, ids=lambda one: f"{one[0]} {one[1]}")
def test_a_labeler_may_not(world, asked):
    _refused(world, "ben", asked)


@pytest.mark.parametrize("asked", OF_ANOTHER_WORKSPACE, ids=lambda one: f"{one[0]} {one[1]}")
@pytest.mark.parametrize("who", ["ben", "admin"])
def test_nobody_reaches_another_workspace(world, who, asked):
    _refused(world, who, asked)


ONLY_OWNERS = [
    asked
    for asked in REFUSED_TO_LABELERS
    if asked[1].startswith(("/users", "/webhooks")) or asked[:2] == ("POST", "/workspaces")
]


@pytest.mark.parametrize("asked", ONLY_OWNERS, ids=lambda one: f"{one[0]} {one[1]}")
def test_an_admin_runs_a_workspace_and_not_the_site(world, asked):
    _refused(world, "admin", asked)


def test_after_all_that_nothing_has_changed(world):
    site = world["site"]
    record = site.request("GET", f"/records/{world['record']}")
    said = {r["user_id"]: r["values"]["better"]["value"] for r in record["responses"]}
    assert said == {world["ana"]["id"]: "a", world["ben"]["id"]: "b"}
    assert record["metadata"] == {"gold": GOLD, "topic": "law"}
    for name in ("ana", "ben", "admin", "stranger"):
        assert (
            site.request("GET", f"/users/{world[name]['id']}")["api_key"] == world[name]["api_key"]
        )
        assert site.sign_in(world[name]["username"], world[name]["password"]).status_code == 201
    assert len(site.request("GET", f"/datasets/{world['foreign']}/records")["items"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "/records/{record}", {}),
        ("POST", "/me/datasets/{dataset}/records/search", {"json": {}, "params": ALL}),
    ],
)
def test_a_labeler_reads_a_record_with_their_own_answer_alone(world, method, path, content):
    answer = _ask(world, "ben", method, path, **content)
    assert answer.status_code == 200
    body = answer.json()
    record = body["items"][0]["record"] if "items" in body else body
    assert [response["user_id"] for response in record["responses"]] == [world["ben"]["id"]]
    assert record["metadata"] == {"topic": "law"}
    assert PRIVATE not in answer.text
    assert GOLD not in answer.text
    # Whoever runs the workspace reads all of it.
    shown = _ask(world, "admin", "GET", "/records/{record}").json()
    assert len(shown["responses"]) == 2
    assert shown["metadata"]["gold"] == GOLD


@pytest.mark.parametrize(
    "body",
    [
        {"filters": {"and": [{
            "type": "terms", "scope": {"entity": "metadata", "metadata_property": "gold"},
            "values": [GOLD],
        }]}},
        {"sort": [{"scope": {"entity": "metadata", "metadata_property": "gold"}, "order": "asc"}]},
    ],
)  # fmt: skip
def test_hidden_metadata_is_not_found_out_by_asking_for_it(world, body):
    answer = _ask(world, "ben", "POST", "/me/datasets/{dataset}/records/search", json=body)
    assert answer.status_code == 422
    unknown = json.loads(json.dumps(body).replace('"gold"', '"unknown"'))
    like = _ask(world, "ben", "POST", "/me/datasets/{dataset}/records/search", json=unknown)
    assert answer.text == like.text.replace("unknown", "gold")  # as of one that is not there
    allowed = _ask(world, "admin", "POST", "/me/datasets/{dataset}/records/search", json=body)
    assert allowed.json()["total"] == 1


def test_hidden_metadata_is_neither_listed_nor_counted(world):
    listed = _ask(world, "ben", "GET", "/me/datasets/{dataset}/metadata-properties").json()
    assert [one["name"] for one in listed["items"]] == ["topic"]
    path = "/me/datasets/{dataset}/metadata-properties"
    everything = _ask(world, "admin", "GET", path).json()["items"]
    hidden = next(one["id"] for one in everything if one["name"] == "gold")
    answer = _ask(world, "ben", "GET", f"/metadata-properties/{hidden}/metrics")
    assert answer.status_code == 403
    assert GOLD not in answer.text


def test_an_admin_sees_who_is_in_the_workspace_but_nobodys_key(world):
    answer = _ask(world, "admin", "GET", "/workspaces/{here}/users")
    found = {user["username"]: user["api_key"] for user in answer.json()["items"]}
    assert found == {
        world["ana"]["username"]: "",
        world["ben"]["username"]: "",
        world["admin"]["username"]: world["admin"]["api_key"],
    }
    for secret in _secrets(world, "admin"):
        assert secret not in answer.text


def test_an_admin_who_puts_somebody_out_is_not_handed_their_key(world):
    site = world["site"]
    leaver = site.person(world["here"])
    answer = _ask(world, "admin", "DELETE", f"/workspaces/{{here}}/users/{leaver['id']}")
    assert answer.status_code == 200
    assert answer.json()["username"] == leaver["username"]
    assert leaver["api_key"] not in answer.text


def test_somebody_put_out_reads_nothing_more(world):
    site = world["site"]
    leaver = site.person(world["here"])
    with site.client(leaver["api_key"]) as client:
        path = f"/records/{world['record']}"
        assert client.get(path).status_code == 200
        site.request("DELETE", f"/workspaces/{world['here']}/users/{leaver['id']}")
        assert client.get(path).status_code == 403
        assert client.get("/me/datasets").json() == {"items": []}


def test_everybody_sees_their_own_datasets_alone(world):
    for who, expected in (("ben", "dataset"), ("admin", "dataset"), ("stranger", "foreign")):
        listed = _ask(world, who, "GET", "/me/datasets").json()["items"]
        assert [one["id"] for one in listed] == [world[expected]]
        spaces = _ask(world, who, "GET", "/me/workspaces").json()["items"]
        assert [one["id"] for one in spaces] == [world["there" if who == "stranger" else "here"]]


def test_the_owner_sees_and_does_everything(world):
    site = world["site"]
    for dataset in (world["dataset"], world["foreign"]):
        assert site.request("GET", f"/datasets/{dataset}/records", params=ALL)["items"]
    assert PRIVATE in str(site.request("GET", f"/records/{world['record']}"))
    keys = {user["username"]: user["api_key"] for user in site.request("GET", "/users")["items"]}
    assert keys[world["ana"]["username"]] == world["ana"]["api_key"]
    members = site.request("GET", f"/workspaces/{world['here']}/users")["items"]
    assert world["ana"]["api_key"] in [user["api_key"] for user in members]


def test_answers_in_bulk_are_ones_own_and_in_ones_workspace(world):
    items = [
        {"record_id": world[name], "status": "submitted", "values": {"better": {"value": "b"}}}
        for name in ("record", "foreign_record")
    ]
    answer = _ask(world, "ben", "POST", "/me/responses/bulk", json={"items": items}).json()
    here, elsewhere = answer["items"]
    assert here["item"]["user_id"] == world["ben"]["id"]
    assert elsewhere["item"] is None
    assert elsewhere["error"]
    assert FOREIGN not in str(answer)
