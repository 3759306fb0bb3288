"""What the labelling page gets from the server: texts that are safe, and only one's own queues."""

from __future__ import annotations

import re
from html import unescape

import pytest

from annotation.campaign.pairs import Pair
from plumbline.data.records import user


@pytest.fixture
def asked(ground):
    """Ask the server what the page asks, as a person."""

    def ask(name, path, status=200):
        with ground.server.client() as owner:
            keys = {u["username"]: u["api_key"] for u in owner.get("/users").json()["items"]}
        with ground.server.client(keys[name]) as client:
            response = client.get(f"/labelling{path}")
        assert response.status_code == status, response.text
        return response.json()

    return ask


def records(asked, name, limit=10):
    (queue,) = asked(name, "/queues")["queues"]
    return asked(name, f"/queues/{queue['id']}/records?limit={limit}")["records"]


def html_of(ground, asked, text, **settings):
    """Return a text as the page shows it."""
    name = ground.person()
    ground.push([Pair("p", [user("What?")], text, "nothing like it at all")], [name], **settings)
    (record,) = records(asked, name)
    (side,) = (record[s] for s in "ab" if record[s]["text"] == text)
    return side["html"]


HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> <b>bold</b> <!-- hidden -->\n\n"
    "<details>secret</details>\n\n[run](javascript:alert(3)) "
    "![pixel](https://tracker.example/p.png) "
    '[a](https://ok.example/?q="><script>alert(4)</script>) '
    r"$\text{<script>alert(5)</script>}$ $\href{javascript:alert(6)}{x}$ "
    r"$\style{position:fixed}{y}$ $\href{elsewhere}{z}$ $\boxed{w}$"
    "\n\n```html\n<script>alert(7)</script>\n```\n[ref]: https://hidden.example \"gone\"\n"
)  # fmt: skip


def test_nothing_in_a_text_runs_loads_or_disappears(ground, asked):
    html = html_of(ground, asked, HOSTILE)
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)", html))
    assert tags <= {"p", "br", "a", "span", "div", "pre", "code", "math", "mrow", "mtext", "mi"}
    assert not re.search(r"<[^>]*\s(on\w+|style|src)\s*=", html)
    assert re.findall(r'href="([^"]*)"', html) == [
        "https://ok.example/?q=%22%3E%3Cscript%3Ealert(4)%3C/script%3E"
    ]
    shown = unescape(re.sub(r"<[^>]*>", "", html))
    for number in (1, 2, 3, 5, 7):
        assert f"alert({number})" in shown
    for word in ("<b>bold</b>", "<!-- hidden -->", "secret", "tracker.example", "hidden.example"):
        assert word in shown


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("| a | b |\n|---|---|\n| 1 | 2 |", ["<th>a</th>", "<td>2</td>"]),
        ("1. one\n   - two\n2. three", ["<ol>", "<ul>"]),
        ("```python\nx = 1\n```", ['<span class="language">python</span>', '<span class="mi">1']),
        ("$\\frac{a}{b}$", ["<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>"]),
        ("\\(x^2\\) and\n\n\\[\ny\n+ z\n\\]", ["<msup>", 'display="block"', "<mo>+</mo>"]),
        ("$$\\begin{aligned}a&=b\\\\c&=d\\end{aligned}$$", ["<mtable>", "<mtr>"]),
        ("$\\boxed{42}$", ['<mrow class="boxed"><mrow><mn>42</mn></mrow></mrow>']),
        ("It is $5 or $6.", ["<p>It is $5 or $6.</p>"]),
        ("$\\frac{$", ['<code class="formula">\\frac{</code>']),
        ("**推荐：**苏轼", ["<strong>推荐：</strong>苏轼"]),
        ("😀 line\nnext", ["😀 line<br />\nnext"]),
        ("a < b & c", ["a &lt; b &amp; c"]),
        (">" * 5000 + " deep", ["&gt; deep"]),
    ],
)
def test_markdown_is_shown_as_it_is_meant(ground, asked, text, parts):
    html = html_of(ground, asked, text)
    for part in parts:
        assert part in html


def test_without_markdown_a_text_is_shown_as_it_is_written(ground, asked):
    html = html_of(ground, asked, "**a** <b>\nc", markdown=False)
    assert html == '<div class="plain">**a** &lt;b&gt;\nc</div>'


def test_a_text_of_openers_only_takes_no_time_to_speak_of(ground, asked):
    name = ground.person()
    texts = ["\\[\n" * 20_000, "$a" * 40_000, "[" * 60_000, "`" * 9_000 + "a`" * 9_000]
    ground.push([Pair(f"p-{n}", [user("?")], text, "b") for n, text in enumerate(texts)], [name])
    assert len(records(asked, name)) == len(texts)  # within the client's 30 seconds


def test_a_person_sees_their_own_queues_and_nobody_else_s(ground, asked, pairs):
    ana, ben = ground.person(), ground.person()
    ground.push(pairs(4), [ana, ben])
    (of_ana,), (of_ben,) = (asked(name, "/queues")["queues"] for name in (ana, ben))
    assert of_ana["id"] != of_ben["id"]
    assert of_ana["progress"] == {"answered": 0, "open": 2}
    assert [question["name"] for question in of_ana["questions"]][:2] == ["choice", "strength"]
    assert of_ana["questions"][1]["only_after"] == {"question": "choice", "values": ["a", "b"]}
    for path in ("records", "answered"):
        asked(ben, f"/queues/{of_ana['id']}/{path}", status=404)


def test_answers_are_found_again_from_the_last_to_the_first(ground, asked, pairs):
    ana = ground.person()
    ground.push(pairs(4), [ana])
    order = [record["id"] for record in records(asked, ana)]
    client = ground.client(ana)
    for record in order[:3]:
        client.submit(record, {"choice": "tie"})
    client.submit(order[0], {"choice": "a", "strength": "1"})  # a change keeps its place
    assert [record["id"] for record in records(asked, ana)] == order[3:]
    (queue,) = asked(ana, "/queues")["queues"]
    assert queue["progress"] == {"answered": 3, "open": 1}
    found = [
        asked(ana, f"/queues/{queue['id']}/answered?back={back}")["record"] for back in (1, 2, 3, 4)
    ]
    assert [record and record["id"] for record in found] == [order[2], order[1], order[0], None]
    assert found[2]["answer"] == {"status": "submitted", "values": {"choice": "a", "strength": "1"}}


def test_feedback_on_a_practice_pair_comes_after_its_answer(ground, asked, pairs):
    ana = ground.person()
    lesson = Pair("lesson", [user("Hi?")], "Good day to you.", "Go.", "a", ("It is polite.",))
    ground.push(pairs(2), [ana], training=[lesson])
    practice, real = sorted(
        asked(ana, "/queues")["queues"], key=lambda queue: queue["kind"] == "labels"
    )
    assert (practice["kind"], real["kind"]) == ("training", "labels")
    (record,) = asked(ana, f"/queues/{practice['id']}/records")["records"]
    asked(ana, f"/records/{record['id']}/feedback", status=404)
    ground.client(ana).submit(record["id"], {"choice": "tie"})
    feedback = asked(ana, f"/records/{record['id']}/feedback")["feedback"]
    right = "a" if record["a"]["text"] == "Good day to you." else "b"
    assert feedback == {"choice": right, "explanation": "It is polite."}
    assert ground.labels() == []
