"""Search by words: what a query asks for, against a plain reading of the same records."""

from __future__ import annotations

import random
import re
import sqlite3
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.server.embedded.plumbline_site.text_index import MOST_TERMS, parse, statements

WORDS = (
    "river", "rivers", "Zürich", "naïve", "well-known", "cat", "catalogue", "ÉCOLE", "42", "3.5",
)  # fmt: skip
TEXTS, CHATS = 40, 20


def _tokens(text: str) -> list[str]:
    """Letters and digits in a row, in small letters and without marks."""
    plain = unicodedata.normalize("NFD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).lower()
    return re.findall(r"[^\W_]+", plain)


def _holds(tokens: list[str], words: list[str], prefix: bool) -> bool:
    for start in range(len(tokens) - len(words) + 1):
        here = tokens[start : start + len(words)]
        last = here[-1].startswith(words[-1]) if prefix else here[-1] == words[-1]
        if here[:-1] == words[:-1] and last:
            return True
    return False


@pytest.fixture(scope="module")
def library(argilla_site):
    """A dataset with a text and a chat, and what its records say."""
    site = argilla_site
    dataset = site.dataset(site.workspace(), fields={"text": "text", "talk": "chat"})
    choose = random.Random(1)
    items = []
    for number in range(TEXTS):
        said = [" ".join(choose.choices(WORDS, k=choose.randint(1, 3))) for _ in range(3)]
        talk = [
            {"role": role, "content": content}
            for role, content in zip(("user", "assistant"), said[1:], strict=True)
        ]
        fields = {"text": said[0]} | ({"talk": talk} if number < CHATS else {})
        items.append({"fields": fields})
    stored = site.push(dataset, items)
    texts = {
        record["id"]: {
            "text": record["fields"]["text"],
            "talk": "\n".join(part["content"] for part in record["fields"].get("talk") or ()),
        }
        for record in stored
    }
    return site, dataset, texts


terms = st.tuples(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=2),  # a word, or a phrase of two
    st.booleans(),  # begins with
    st.booleans(),  # without
)
queries = st.lists(st.lists(terms, min_size=1, max_size=2), min_size=1, max_size=3)


def _written(query) -> str:
    def term(words, prefix, without):
        text = f'"{" ".join(words)}"' if len(words) > 1 else words[0] + ("*" if prefix else "")
        return ("-" if without else "") + text

    return " ".join("|".join(term(*one) for one in group) for group in query)


@settings(max_examples=60, deadline=None)
@given(queries, st.sampled_from([None, "text", "talk"]))
def test_finds_what_a_plain_reading_finds(library, query, field):
    site, dataset, texts = library

    def matches(fields, words, prefix, without):
        phrase = len(words) > 1
        wanted = _tokens(" ".join(words))
        read = fields.values() if field is None else [fields[field]]
        return any(_holds(_tokens(text), wanted, prefix and not phrase) for text in read) != without

    expected = [
        record
        for record, fields in texts.items()
        if all(any(matches(fields, *term) for term in group) for group in query)
    ]
    assert site.found(dataset, _written(query), field=field) == expected


def test_words_may_stand_in_different_fields(argilla_site):
    site = argilla_site
    dataset = site.dataset(site.workspace(), fields={"one": "text", "two": "text"})
    (record,) = site.push(dataset, [{"fields": {"one": "sun and", "two": "moon"}}])
    assert site.found(dataset, "sun moon") == [record["id"]]
    assert site.found(dataset, '"and moon"') == []  # a phrase stands in one of them
    assert site.found(dataset, "sun", field="two") == []


@pytest.mark.parametrize(
    "query",
    ["", "   ", '"', '""', "*", "-", "|", "_", "- | *", "???", "\0", "({[]})", ";--", "\u200b"],
)
def test_a_query_without_a_word_finds_everything(library, query):
    site, dataset, texts = library
    assert site.found(dataset, query) == list(texts)


@pytest.mark.parametrize(
    "query",
    [
        "river OR zzz", "river AND zzz", "NEAR(river zzz)", "content:river", "{text}:river",
        "river NOT zzz", "^zzz", "'; DROP TABLE records; --", "river\0zzz", 'zzz" OR "river',
        "zzz') OR 1=1 --", "zzz%", ":p1", ":dataset", "zzz\\", "z" * 5000,
    ],
)  # fmt: skip
def test_operators_and_sql_are_words_like_others(library, query):
    site, dataset, _ = library
    assert site.found(dataset, query) == []
    assert len(site.found(dataset)) == TEXTS  # nothing came of it


@pytest.mark.parametrize("query", ["user", "assistant", "role"])
def test_roles_of_a_chat_are_not_searched(library, query):
    site, dataset, _ = library
    assert site.found(dataset, query) == []


def test_a_role_that_somebody_speaks_of_is_searched(argilla_site):
    site = argilla_site
    fields = {"talk": "chat", "page": "custom"}
    dataset = site.dataset(site.workspace(), fields=fields)
    speaks = [{"role": "user", "content": "the assistant was kind"}]
    silent = [{"role": "user", "content": "good morning"}]
    chat, page = site.push(
        dataset,
        [{"fields": {"talk": speaks}}, {"fields": {"talk": silent, "page": {"role": "nurse"}}}],
    )
    assert site.found(dataset, "assistant") == [chat["id"]]
    assert site.found(dataset, "nurse") == [page["id"]]


def test_pictures_are_not_text(argilla_site):
    site = argilla_site
    dataset = site.dataset(site.workspace(), fields={"text": "text", "picture": "image"})
    site.push(dataset, [{"fields": {"text": "x", "picture": "https://example.org/pelican.png"}}])
    assert site.found(dataset, "pelican") == []
    assert site.number("SELECT count(*) FROM plumbline_texts WHERE content LIKE '%pelican%'") == 0


def test_scripts_without_spaces_are_found_by_their_parts(argilla_site):
    site = argilla_site
    dataset = site.dataset(site.workspace())
    japanese, thai = site.texts(dataset, "今日は晴れです 100%", "สวัสดี")
    for query, found in {
        "晴れ": [japanese],
        "今日": [japanese],
        "-晴れ": [thai],
        "雨": [],
        "ดี": [thai],
        "今_は": [],  # no wildcard of SQL's
        "晴%です": [],
        "晴れ 100": [japanese],
    }.items():
        assert site.found(dataset, query) == found, query


def test_too_long_a_query_is_refused_with_the_reason(library):
    site, dataset, _ = library
    longest = " ".join(["river"] * MOST_TERMS)
    assert site.found(dataset, longest) == site.found(dataset, "river")
    with site.client() as client:
        body = {"query": {"text": {"q": longest + " river"}}}
        answer = client.post(f"/datasets/{dataset}/records/search", json=body)
    assert answer.status_code == 422
    assert str(MOST_TERMS) in answer.json()["detail"]


def test_another_dataset_is_not_searched(argilla_site):
    site = argilla_site
    workspace = site.workspace()
    one, two = site.dataset(workspace), site.dataset(workspace)
    (here,) = site.texts(one, "heron")
    site.texts(two, "heron")
    assert site.found(one, "heron") == [here]


def test_the_index_follows_every_change(argilla_site):
    site = argilla_site
    dataset = site.dataset(site.workspace())
    kept, changed, upserted, removed = site.texts(dataset, *["heron"] * 4)
    site.request("PATCH", f"/records/{changed}", json={"fields": {"text": "egret"}})
    put = {"items": [{"id": upserted, "fields": {"text": "stork"}}]}
    site.request("PUT", f"/datasets/{dataset}/records/bulk", json=put)
    site.request("PATCH", f"/records/{kept}", json={"metadata": {"x": "egret"}})  # no text of it
    site.request("DELETE", f"/datasets/{dataset}/records", params={"ids": removed})
    assert site.found(dataset, "heron") == [kept]
    assert site.found(dataset, "egret") == [changed]
    assert site.found(dataset, "stork") == [upserted]
    ids = ", ".join(f"'{record.replace('-', '')}'" for record in (kept, changed, upserted, removed))
    rows = f"SELECT count(*) FROM plumbline_texts WHERE record_id IN ({ids})"
    assert site.number(rows) == 3
    site.request("DELETE", f"/datasets/{dataset}")
    assert site.number(rows) == 0


# The language and the SQL by themselves.


@pytest.mark.parametrize(
    ("query", "groups"),
    [
        ("a b", [["a"], ["b"]]),
        ('"a b" c', [["a b"], ["c"]]),
        ('"never closed', [["never closed"]]),
        ("a|b c", [["a", "b"], ["c"]]),
        ("|a", [["a"]]),
        ("a|", [["a"]]),
        ("a | -b", [["a", "-b"]]),
        ("pre*", [["pre*"]]),
        ('"pre*"', [["pre*!"]]),  # within quotes a star is a sign like others
        ("a+b", [["a"], ["b"]]),
        ("well-known", [["well-known"]]),
    ],
)
def test_the_language(query, groups):
    def shown(term):
        quoted = "!" if term.words.endswith("*") else ""
        return ("-" if term.excluded else "") + term.words + ("*" if term.prefix else "") + quoted

    assert [[shown(term) for term in group] for group in parse(query)] == groups


@pytest.fixture
def tables():
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE records (id CHAR(32), dataset_id CHAR(32), fields JSON)")
    database.execute("CREATE TABLE fields (name TEXT, dataset_id CHAR(32), settings JSON)")
    yield database
    database.close()


def _content(database) -> list[tuple[str, str, str]]:
    return database.execute("SELECT record_id, field, content FROM plumbline_texts").fetchall()


def test_records_from_before_the_index_are_caught_up_with_once(tables):
    tables.execute(
        """INSERT INTO records VALUES ('r', 'd', '{"a": "old", "n": null, "b": ["x"]}')"""
    )
    for _ in range(3):  # as at three starts
        for statement in statements():
            tables.execute(statement)
    assert sorted(_content(tables)) == [("r", "a", "old"), ("r", "b", "x")]
    tables.execute("""INSERT INTO records VALUES ('s', 'd', '{"a": "new"}')""")
    assert ("s", "a", "new") in _content(tables)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("iud"), st.integers(0, 4), st.sampled_from(WORDS))))
def test_index_and_texts_never_part(changes):
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE records (id TEXT PRIMARY KEY, dataset_id TEXT, fields JSON)")
    database.execute("CREATE TABLE fields (name TEXT, dataset_id TEXT, settings JSON)")
    for statement in statements():
        database.execute(statement)
    there = {}
    for kind, number, word in changes:
        fields = f'{{"text": "{word}"}}'
        if kind == "i" and number not in there:
            database.execute("INSERT INTO records VALUES (?, 'd', ?)", (number, fields))
            there[number] = word
        elif kind == "u" and number in there:
            database.execute("UPDATE records SET fields = ? WHERE id = ?", (fields, number))
            there[number] = word
        elif kind == "d":
            database.execute("DELETE FROM records WHERE id = ?", (number,))
            there.pop(number, None)
    assert sorted(_content(database)) == sorted((str(n), "text", w) for n, w in there.items())
    # FTS5's own comparison of its index with the texts; it raises where they differ.
    check = "INSERT INTO plumbline_search (plumbline_search, rank) VALUES ('integrity-check', 1)"
    database.execute(check)
    database.close()
