"""Filters and orders of the search, against the same done in plain Python."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = 60
PEOPLE = 3
TOPICS, FLAGS, SIDES = ("food", "law", "art"), ("unsafe", "private", "rude"), ("a", "b", "tie")
AGENTS = ("gpt", "judge-7b")


@pytest.fixture(scope="module")
def library(argilla_site):
    """A dataset of everything that can be filtered by, its people, and its records."""
    site = argilla_site
    workspace = site.workspace()
    dataset = site.dataset(
        workspace,
        questions={
            "better": site.labels(*SIDES),
            "flags": site.labels(*FLAGS, kind="multi_label_selection"),
            "rating": {"type": "rating", "options": [{"value": v} for v in range(1, 8)]},
        },
        properties=[
            {"name": "topic", "settings": {"type": "terms"}},
            {"name": "words", "settings": {"type": "integer"}},
            {"name": "margin", "settings": {"type": "float"}},
        ],
        overlap=2,
    )
    people = site.crowd(workspace, PEOPLE)
    questions = {
        q["name"]: q["id"] for q in site.request("GET", f"/datasets/{dataset}/questions")["items"]
    }
    choose = random.Random(7)

    def sometimes(value):
        return value if choose.random() < 0.7 else None

    def answer(person):
        values = {
            "better": choose.choice(SIDES),
            "flags": choose.sample(FLAGS, k=choose.randint(1, 3)),
            "rating": choose.randint(1, 7),
        }
        status = choose.choice(["submitted", "draft", "discarded"])
        if status != "submitted":  # which alone must answer what is required
            values = {name: value for name, value in values.items() if choose.random() < 0.5}
        return {
            "user_id": person["id"],
            "status": status,
            "values": {name: {"value": value} for name, value in values.items()},
        }

    def suggestion():
        return {
            "question_id": questions["rating"],
            "value": choose.randint(1, 7),
            "score": sometimes(round(choose.random(), 2)),
            "agent": sometimes(choose.choice(AGENTS)),
            "type": choose.choice(["model", "human"]),
        }

    items = []
    for number in range(SIZE):
        metadata = {
            "topic": sometimes(choose.choice([*TOPICS, list(TOPICS[:2])])),
            "words": sometimes(choose.randint(0, 20)),
            "margin": sometimes(choose.randint(-4, 4) / 2),
        }
        items.append(
            {
                "fields": {"text": f"record {number}"},
                "external_id": sometimes(f"item {choose.random():.6f}"),
                "metadata": {name: value for name, value in metadata.items() if value is not None},
                "suggestions": [one for one in [sometimes(suggestion())] if one],
                "responses": [answer(p) for p in people if choose.random() < 0.6],
            }
        )
    stored = [record for half in (items[:30], items[30:]) for record in site.push(dataset, half)]
    for record, item in zip(stored, items, strict=True):
        record["responses"], record["suggestions"] = item["responses"], item["suggestions"]
        record["metadata"] = item["metadata"]
    return site, dataset, people, stored


def _values(record, scope, user=None):
    """All that a record has of what a filter or an order looks at."""
    kind = scope["entity"]
    if kind == "record":
        return [record[scope["property"]]] if record[scope["property"]] is not None else []
    if kind == "metadata":
        value = record["metadata"].get(scope["metadata_property"])
        return value if isinstance(value, list) else [] if value is None else [value]
    if kind == "suggestion":
        found = [one[scope["property"]] for one in record["suggestions"]]
        return [value for value in found if value is not None]
    responses = [r for r in record["responses"] if user in (None, r["user_id"])]
    if "property" in scope:
        return [response["status"] for response in responses] or ["pending"]
    answers = [response["values"].get(scope["question"]) for response in responses]
    found = [answer["value"] for answer in answers if answer]
    return [one for value in found for one in (value if isinstance(value, list) else [value])]


def _keeps(record, filter_, user=None):
    values = _values(record, filter_["scope"], user)
    if filter_["type"] == "terms":
        asked = set(filter_["values"])
        return any(str(v) in asked or _as_number(v) in map(_as_number, asked) for v in values)
    low, high = filter_.get("ge"), filter_.get("le")
    return any((low is None or v >= low) and (high is None or v <= high) for v in values)


def _as_number(value):
    try:
        return float(value)
    except ValueError:
        return str(value)


def _scope(entity, **more):
    return st.just({"entity": entity} | more)


def _terms(scope, *values):
    chosen = st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)
    return st.fixed_dictionaries({"type": st.just("terms"), "scope": scope, "values": chosen})


def _range(scope, low, high, step=1):
    bound = st.integers(low, high).map(lambda value: value * step)
    bounds = st.tuples(st.none() | bound, bound, st.booleans())

    def made(drawn):
        scope_, (one, two, only_low) = drawn
        if one is None:
            return {"type": "range", "scope": scope_, "ge" if only_low else "le": two}
        return {"type": "range", "scope": scope_, "ge": min(one, two), "le": max(one, two)}

    return st.tuples(scope, bounds).map(made)


STATUS = _scope("response", property="status")
filters = st.one_of(
    _terms(STATUS, "pending", "submitted", "draft", "discarded"),
    _terms(_scope("response", question="better"), *SIDES, "neither"),
    _terms(_scope("response", question="flags"), *FLAGS),
    _terms(_scope("response", question="rating"), "1", "3", "5", "7.0"),
    _range(_scope("response", question="rating"), 0, 8),
    _terms(_scope("metadata", metadata_property="topic"), *TOPICS, "none"),
    _terms(_scope("metadata", metadata_property="words"), "3", "4", "5.0", "x"),
    _range(_scope("metadata", metadata_property="words"), -1, 21),
    _terms(_scope("metadata", metadata_property="margin"), "0.5", "1", "-2.0", "1e0"),
    _range(_scope("metadata", metadata_property="margin"), -9, 9, 0.25),
    _terms(_scope("suggestion", question="rating", property="value"), "1", "2", "6"),
    _range(_scope("suggestion", question="rating", property="value"), 0, 8),
    _range(_scope("suggestion", question="rating", property="score"), 0, 10, 0.1),
    _terms(_scope("suggestion", question="rating", property="agent"), *AGENTS, "nobody"),
    _terms(_scope("suggestion", question="rating", property="type"), "model", "human"),
    _terms(_scope("record", property="status"), "pending", "completed"),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(filters, min_size=1, max_size=3), st.none() | st.integers(0, PEOPLE - 1))
def test_filters_like_plain_python(library, asked, number):
    site, dataset, people, stored = library
    person = None if number is None else people[number]
    user = None if person is None else person["id"]
    expected = {r["id"] for r in stored if all(_keeps(r, one, user) for one in asked)}
    if person is None:  # the owner sees everybody's answers
        found = site.found(dataset, filters={"and": asked})
    else:  # people filter by their own
        with site.client(person["api_key"]) as client:
            answer = client.post(
                f"/me/datasets/{dataset}/records/search",
                json={"filters": {"and": asked}},
                params={"limit": 1000},
            ).json()
        assert answer["total"] == len(expected)
        found = [item["record"]["id"] for item in answer["items"]]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_records_are_completed_by_two_submitted_answers(library):
    _, _, _, stored = library
    for record in stored:
        submitted = sum(response["status"] == "submitted" for response in record["responses"])
        assert record["status"] == ("completed" if submitted >= 2 else "pending")


SORTS = [
    {"entity": "record", "property": "inserted_at"},
    {"entity": "record", "property": "id"},
    {"entity": "record", "property": "external_id"},
    {"entity": "record", "property": "status"},
    {"entity": "metadata", "metadata_property": "words"},
    {"entity": "metadata", "metadata_property": "margin"},
    {"entity": "suggestion", "question": "rating", "property": "value"},
    {"entity": "suggestion", "question": "rating", "property": "score"},
    {"entity": "suggestion", "question": "rating", "property": "agent"},
    {"entity": "response", "question": "rating"},
    {"entity": "response", "question": "better"},
]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(SORTS), st.booleans()),
        min_size=1,
        max_size=3,
        unique_by=lambda one: str(one[0]),
    )
)
def test_sorts_like_plain_python_and_puts_what_has_no_value_last(library, asked):
    site, dataset, _, stored = library

    def value(record, scope):
        values = _values(record, scope)
        if not values:
            return None
        if isinstance(values[0], str):
            return min(values)
        return sum(values) / len(values)

    expected = stored
    for scope, descending in reversed(asked):  # a stable sort by the last first
        having = [r for r in expected if value(r, scope) is not None]
        without = [r for r in expected if value(r, scope) is None]
        # Of equals the first comes first, descending as well.
        key = {r["id"]: value(r, scope) for r in having}
        having = sorted(having[::-1] if descending else having, key=lambda r: key[r["id"]])
        expected = (having[::-1] if descending else having) + without
    sort = [{"scope": s, "order": "desc" if descending else "asc"} for s, descending in asked]
    assert site.found(dataset, sort=sort) == [r["id"] for r in expected]


def test_pages_neither_overlap_nor_leave_gaps(library):
    site, dataset, people, stored = library
    sort = [{"scope": {"entity": "metadata", "metadata_property": "words"}, "order": "desc"}]
    with site.client(people[0]["api_key"]) as client:
        for path, body in (
            (f"/datasets/{dataset}/records/search", {"sort": sort}),  # many have the same words
            (f"/datasets/{dataset}/records/search", {}),
            (f"/me/datasets/{dataset}/records/search", {}),
        ):
            headers = {} if "/me/" in path else {"X-Argilla-Api-Key": site.api_key}
            seen = []
            for offset in range(0, SIZE, 7):
                page = client.post(
                    path, json=body, params={"offset": offset, "limit": 7}, headers=headers
                ).json()
                assert page["total"] == SIZE
                seen += [item["record"]["id"] for item in page["items"]]
            assert sorted(seen) == sorted(record["id"] for record in stored)
            far = client.post(path, json=body, params={"offset": 10**30}, headers=headers)
            assert far.json() == {"items": [], "total": SIZE}


def test_filters_by_ids(library):
    site, dataset, _, stored = library
    wanted = [stored[40]["id"], stored[3]["id"]]
    assert _found(site, dataset, "terms", "id", values=wanted) == wanted[::-1]
    assert _found(site, dataset, "terms", "id", values=[w.upper() for w in wanted]) == wanted[::-1]
    with_name = next(record for record in stored if record["external_id"])
    names = [with_name["external_id"], "nobody's"]
    assert _found(site, dataset, "terms", "external_id", values=names) == [with_name["id"]]


def _found(site, dataset, kind, name, **asked):
    scope = {"entity": "record", "property": name}
    return site.found(dataset, filters={"and": [{"type": kind, "scope": scope, **asked}]})


def test_filters_by_times_in_whatever_way_they_are_written(library):
    site, dataset, _, stored = library
    ids = [record["id"] for record in stored]
    # The two pushes have a time each.
    first, second = (datetime.fromisoformat(stored[n]["inserted_at"]) for n in (0, SIZE - 1))
    early = [record["id"] for record in stored if record["inserted_at"] < stored[30]["inserted_at"]]
    assert _found(site, dataset, "range", "inserted_at", le=first.isoformat())[:1] == ids[:1]
    late = stored[30]["inserted_at"]
    assert _found(site, dataset, "range", "inserted_at", ge=late) == ids[len(early) :]
    before = (datetime.fromisoformat(late) - timedelta(microseconds=1)).isoformat()
    assert _found(site, dataset, "range", "inserted_at", le=before) == early
    assert _found(site, dataset, "range", "inserted_at", le=before + "Z") == early
    elsewhere = datetime.fromisoformat(before).replace(tzinfo=UTC)
    elsewhere = (elsewhere + timedelta(hours=5)).isoformat().replace("+00:00", "+05:00")
    assert _found(site, dataset, "range", "inserted_at", le=elsewhere) == early
    day = second.date().isoformat()
    assert _found(site, dataset, "range", "inserted_at", ge=day, le=day) == [
        record["id"] for record in stored if record["inserted_at"].startswith(day)
    ]
    assert _found(site, dataset, "range", "inserted_at", ge="2100-01-01") == []


def _record(name):
    return {"entity": "record", "property": name}


@pytest.mark.parametrize(
    ("scope", "asked", "word"),
    [
        ({"entity": "response", "property": "status"}, {"ge": 1}, "status"),
        (_record("inserted_at"), {"ge": "soon"}, "soon"),
        (_record("updated_at"), {"values": ["x"]}, "time"),
        ({"entity": "metadata", "metadata_property": "unknown"}, {"values": ["x"]}, "unknown"),
        ({"entity": "response", "question": "unknown"}, {"values": ["x"]}, "unknown"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason(library, scope, asked, word):
    site, dataset, _, _ = library
    kind = "terms" if "values" in asked else "range"
    with site.client() as client:
        body = {"filters": {"and": [{"type": kind, "scope": scope, **asked}]}}
        answer = client.post(f"/datasets/{dataset}/records/search", json=body)
    assert answer.status_code == 422
    assert word in answer.json()["detail"]


@pytest.mark.parametrize("bound", [1e300, -1e300, "9" * 400, 10**30])
def test_numbers_beyond_the_database_are_numbers(library, bound):
    site, dataset, _, stored = library
    scope = {"entity": "metadata", "metadata_property": "words"}
    found = site.found(dataset, filters={"and": [{"type": "range", "scope": scope, "ge": bound}]})
    having = sum("words" in record["metadata"] for record in stored)
    assert len(found) == (having if float(bound) < 0 else 0)
    terms = {"type": "terms", "scope": scope, "values": [str(bound)]}
    assert site.found(dataset, filters={"and": [terms]}) == []
