"""In which order people see records, and what else is read from the tables: likeness, counts."""

from __future__ import annotations

import itertools
import random
import sqlite3

import numpy as np
import pytest

from annotation.server.embedded.plumbline_site.shuffle import shuffled

SIZE = 120


@pytest.fixture(scope="module")
def queue(argilla_site):
    """A dataset that several people share."""
    site = argilla_site
    workspace = site.workspace()
    dataset = site.dataset(workspace)
    people = site.crowd(workspace, 4)
    return site, dataset, people, site.texts(dataset, *(f"text {n}" for n in range(SIZE)))


def _order(site, person, dataset, step=SIZE, **body):
    seen = []
    with site.client(person["api_key"]) as client:
        for offset in range(0, SIZE, step):
            page = client.post(
                f"/me/datasets/{dataset}/records/search",
                json=body,
                params={"offset": offset, "limit": step},
            ).json()
            seen += [item["record"]["id"] for item in page["items"]]
    return seen


def test_each_person_has_an_order_and_keeps_it(queue):
    site, dataset, people, ids = queue
    for person in people:
        order = _order(site, person, dataset)
        assert sorted(order) == sorted(ids)  # every record, once
        assert order == _order(site, person, dataset, step=17)


def test_orders_of_two_people_have_nothing_to_do_with_each_other(queue):
    site, dataset, people, ids = queue
    orders = [_order(site, person, dataset) for person in people]
    ranks = [[order.index(record) for record in ids] for order in [*orders, ids]]
    for one, two in itertools.combinations(ranks, 2):
        # Of two random orders, Spearman's correlation has a standard deviation of 1/sqrt(n - 1):
        # 0.09. People's ids are random, so the bound is wide: 5 of them.
        assert abs(np.corrcoef(one, two)[0, 1]) < 5 / np.sqrt(SIZE - 1)
        assert one != two


def test_the_shuffle_spreads_whoever_comes():
    """The formula by itself, for many more people than a test can make."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE records (x)")
    database.executemany("INSERT INTO records VALUES (?)", [(n,) for n in range(500)])
    choose = random.Random(3)
    heads = np.zeros(500)
    people = 400
    for _ in range(people):
        user = "".join(choose.choices("0123456789abcdef", k=32))
        order = database.execute(
            f"SELECT rowid - 1 FROM records ORDER BY {shuffled(user)}, rowid"
        ).fetchall()
        assert len({row[0] for row in order}) == 500
        heads[[row[0] for row in order[:50]]] += 1
    # Each record is among a person's first 50 with probability 0.1: 40 times of 400, sd 6.
    assert heads.min() > 40 - 5 * 6
    assert heads.max() < 40 + 5 * 6
    assert abs(np.corrcoef(heads, np.arange(500))[0, 1]) < 5 / np.sqrt(500)


def test_answering_leaves_the_rest_in_order(queue):
    site, dataset, people, _ = queue
    person = people[0]
    before = _order(site, person, dataset)
    answered = before[2]
    assert site.submit(person, answered, better="a").status_code == 201
    pending = {
        "type": "terms",
        "scope": {"entity": "response", "property": "status"},
        "values": ["pending"],
    }
    left = _order(site, person, dataset, filters={"and": [pending]})
    assert left == [record for record in before if record != answered]


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        ({"plumbline": {"order": "as-pushed"}}, True),
        ({"plumbline": {"order": "as-pushed", "queue": "ana"}, "x": 1}, True),
        ({"plumbline": {"order": "shuffled"}}, False),
        ({"plumbline": "as-pushed"}, False),
        ({}, False),
    ],
)
def test_a_dataset_may_keep_the_order_it_was_pushed_in(argilla_site, queue, metadata, kept):
    site = argilla_site
    workspace = site.workspace()
    (person,) = site.crowd(workspace, 1)
    dataset = site.dataset(workspace, metadata=metadata)
    ids = [*site.texts(dataset, *"abcdefgh"), *site.texts(dataset, *"ijklmnop")]
    assert (_order(site, person, dataset) == ids) == kept
    assert site.found(dataset) == ids  # for the owner it always is


# Likeness.


@pytest.fixture(scope="module")
def vectors(argilla_site):
    site = argilla_site
    dataset = site.dataset(site.workspace(), vectors={"meaning": 6})
    drawn = np.random.default_rng(5).normal(size=(30, 6))
    drawn[7] = 0
    items = [
        {"fields": {"text": "even" if n % 2 == 0 else "odd"}, "vectors": {"meaning": list(v)}}
        for n, v in enumerate(drawn)
    ]
    ids = [record["id"] for record in site.push(dataset, [*items, {"fields": {"text": "none"}}])]
    return site, dataset, dict(zip(ids, drawn, strict=False)), ids


def _alike(site, dataset, limit=1000, offset=0, text=None, status=200, **vector):
    query = {"vector": {"name": "meaning", **vector}}
    if text:
        query["text"] = {"q": text}
    with site.client() as client:
        answer = client.post(
            f"/datasets/{dataset}/records/search",
            json={"query": query},
            params={"limit": limit, "offset": offset},
        )
    assert answer.status_code == status, answer.text
    if status != 200:
        return answer.json()
    return [(item["record"]["id"], item["query_score"]) for item in answer.json()["items"]]


def _cosine(one, two):
    length = np.linalg.norm(one) * np.linalg.norm(two)
    return 0.0 if length == 0 else float(one @ two / length)


@pytest.mark.parametrize("order", ["most_similar", "least_similar"])
def test_likeness_is_the_cosine(vectors, order):
    site, dataset, by_id, _ = vectors
    target = np.array([1.0, -2, 0.5, 0, 3, 1])
    sign = 1 if order == "most_similar" else -1
    expected = {record: sign * _cosine(vector, target) for record, vector in by_id.items()}
    found = _alike(site, dataset, value=list(target), order=order)
    assert [record for record, _ in found] == sorted(expected, key=lambda r: -expected[r])
    assert dict(found) == pytest.approx(expected)
    assert _alike(site, dataset, value=list(target), order=order, limit=5, offset=5) == found[5:10]


def test_likeness_to_a_record_leaves_it_out(vectors):
    site, dataset, by_id, ids = vectors
    found = [record for record, _ in _alike(site, dataset, record_id=ids[3])]
    expected = sorted(by_id, key=lambda r: -_cosine(by_id[r], by_id[ids[3]]))
    assert found == [record for record in expected if record != ids[3]]


def test_likeness_among_what_a_query_finds(vectors):
    site, dataset, by_id, ids = vectors
    found = [record for record, _ in _alike(site, dataset, text="odd", value=[1.0] * 6)]
    expected = sorted(ids[1:30:2], key=lambda r: -_cosine(by_id[r], np.ones(6)))
    assert found == expected


def test_likeness_of_what_has_none_is_refused(vectors):
    site, dataset, _, ids = vectors
    assert "does not have a vector" in str(_alike(site, dataset, record_id=ids[30], status=422))
    assert "6" in _alike(site, dataset, value=[1.0, 2.0], status=422)["detail"]


def test_a_record_with_vectors_can_be_read(vectors):
    site, _, by_id, ids = vectors
    assert site.request("GET", f"/records/{ids[0]}")["vectors"]["meaning"] == pytest.approx(
        list(by_id[ids[0]])
    )
    patched = site.request("PATCH", f"/records/{ids[0]}", json={"metadata": {"seen": "yes"}})
    assert patched["metadata"] == {"seen": "yes"}


# Counts.


def test_metrics_of_metadata(argilla_site):
    site = argilla_site
    dataset = site.dataset(
        site.workspace(),
        properties=[
            {"name": "topic", "settings": {"type": "terms"}},
            {"name": "words", "settings": {"type": "integer"}},
            {"name": "margin", "settings": {"type": "float"}},
            {"name": "never", "settings": {"type": "float"}},
        ],
    )
    metadata = [
        {"topic": "law", "words": 3},
        {"topic": ["law", "art"], "margin": -0.5},
        {"topic": "food", "words": -7, "margin": 2.5},
        {},
    ]
    site.push(dataset, [{"fields": {"text": "x"}, "metadata": one} for one in metadata])
    properties = site.request("GET", f"/me/datasets/{dataset}/metadata-properties")["items"]
    metrics = {
        one["name"]: site.request("GET", f"/metadata-properties/{one['id']}/metrics")
        for one in properties
    }
    assert metrics == {
        "topic": {
            "type": "terms",
            "total": 4,
            "values": [
                {"term": "law", "count": 2},
                {"term": "art", "count": 1},
                {"term": "food", "count": 1},
            ],
        },
        "words": {"type": "integer", "min": -7, "max": 3},
        "margin": {"type": "float", "min": -0.5, "max": 2.5},
        "never": {"type": "float", "min": None, "max": None},
    }


def test_progress_of_a_dataset_and_of_each_person(argilla_site):
    site = argilla_site
    workspace = site.workspace()
    dataset = site.dataset(workspace, overlap=2)
    ana, ben = site.crowd(workspace, 2)
    one, two, three = site.texts(dataset, "1", "2", "3")
    for person, record in ((ana, one), (ben, one), (ana, two)):
        assert site.submit(person, record, better="a").status_code == 201
    with site.client(ben["api_key"]) as client:
        client.post(f"/records/{two}/responses", json={"status": "discarded"})
        draft = {"status": "draft", "values": {"better": {"value": "b"}}}
        client.post(f"/records/{three}/responses", json=draft)
        mine = client.get(f"/me/datasets/{dataset}/metrics").json()
    assert mine["responses"] == {
        "total": 3, "submitted": 1, "draft": 1, "discarded": 1, "pending": 0,
    }  # fmt: skip
    progress = site.request("GET", f"/datasets/{dataset}/progress")
    people = [{"username": person["username"]} for person in (ana, ben)]
    assert progress == {"total": 3, "completed": 1, "pending": 2, "users": people}
    # An answer taken back is one fewer.
    stored = site.request("GET", f"/records/{one}")["responses"]
    for response in stored[:1]:
        site.request("DELETE", f"/responses/{response['id']}")
    progress = site.request("GET", f"/datasets/{dataset}/progress")
    assert (progress["completed"], progress["pending"]) == (0, 3)
