"""The comparison's page in a real browser, without a network: by hand, by keys, live."""

from __future__ import annotations

import csv
import runpy
import threading
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest

from evaluation.comparison import page
from evaluation.comparison.watch import Watch

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.slow

maker = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("content_maker.py"))))
SMALL = {"seeds": 2, "checkpoints": 2, "steps": 5}


class Reader:
    """Somebody at the page."""

    def __init__(self, driver) -> None:
        self.driver = driver
        self.run = driver.execute_script

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.until("return performance.getEntriesByName('responses-ready').length > 0")

    def until(self, script: str):
        return WebDriverWait(self.driver, 60, poll_frequency=0.05).until(lambda _: self.run(script))

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def set(self, field: str, value: str) -> None:
        self.run(
            "const f = document.getElementById(arguments[0]); f.value = arguments[1];"
            "f.dispatchEvent(new Event('input', {bubbles: true}))",
            field,
            value,
        )

    @property
    def count(self) -> int:
        return int(self.run("return document.getElementById('count').textContent.split(' ')[0]"))

    @property
    def chosen(self) -> str:
        """Id of the prompt that is shown."""
        return self.run("return document.querySelector('#sample .note').textContent").split(" · ")[
            1
        ]

    @property
    def columns(self) -> list[str]:
        return self.run(
            "return [...document.querySelectorAll('#columns select')]"
            ".map(s => s.selectedOptions[0].text)"
        )

    def texts(self) -> list[str]:
        return self.run(
            "return [...document.querySelectorAll('#sample .answer .text')].map(t => t.textContent)"
        )

    def complaints(self) -> list[str]:
        return [line["message"] for line in self.driver.get_log("browser")]

    def screen(self, width: int, height: int = 1000, scheme: str = "light") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


@pytest.fixture
def reader(shared_chromium):
    shared_chromium.get("about:blank")
    shared_chromium.get_log("browser")
    found = Reader(shared_chromium)
    found.screen(1280)
    return found


def made(content, folder) -> str:
    page.write(content, folder)
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def content():
    return maker.content(prompts=400, words=20, **SMALL)


@pytest.fixture(scope="module")
def url(content, tmp_path_factory):
    return made(content, tmp_path_factory.mktemp("page"))


def expected(content, keep, a="baseline", b="dpo/0/20"):
    """Return the prompts that pass, by a plain loop over the content."""
    samples = content["samples"]
    rows = zip(samples["prompts"], samples["responses"][a], samples["responses"][b], strict=True)
    return [prompt["id"] for prompt, one, other in rows if keep(prompt, one, other)]


def gain(one, other):
    """Return how much better the other answer is; the same answer is no better."""
    if one is None or other is None:
        return None
    same = one["text"] == other["text"]
    return 0.0 if same else other["scores"]["gold"] - one["scores"]["gold"]


def test_filters_and_orders_are_those_of_a_plain_loop(reader, content, url):
    reader.open(url)
    assert reader.columns == ["SFT", "DPO, seed 0, step 20", "PPO, seed 0, step 20"]
    reader.run("document.querySelector('[data-remove]').click()")
    assert reader.count == 400

    def said(prompt, *answers):
        texts = [prompt["messages"][1]["content"], *(x["text"] for x in answers if x)]
        return any("umbrella" in text for text in texts) and any("order eu" in t for t in texts)

    reader.set("search", 'UMBRELLA "order eu"')
    wanted = expected(content, said)
    assert 0 < len(wanted) < 200
    assert (reader.count, reader.chosen) == (len(wanted), wanted[0])
    assert reader.run("return document.querySelectorAll('#sample mark').length") > 0
    reader.set("search", "")

    def wins(_, one, other):
        return gain(one, other) is not None and gain(one, other) > 0

    same = expected(content, lambda _, one, other: gain(one, other) == 0)
    assert same
    reader.set("outcome", "tie")
    assert (reader.count, reader.chosen) == (len(same), same[0])
    reader.set("outcome", "win")
    assert reader.count == len(expected(content, wins))
    reader.set("subset", "returns")
    assert reader.count == len(
        expected(content, lambda p, a, b: wins(p, a, b) and p["subset"] == "returns")
    )
    reader.run("document.querySelector('[data-does=reset]').click()")
    assert reader.count == 400

    gains = {
        prompt["id"]: gain(one, other)
        for prompt, one, other in zip(
            content["samples"]["prompts"],
            content["samples"]["responses"]["baseline"],
            content["samples"]["responses"]["dpo/0/20"],
            strict=True,
        )
        if one and other
    }
    reader.set("order", "gain")
    assert reader.chosen == max(gains, key=gains.get)
    reader.set("order", "loss")
    assert reader.chosen == min(gains, key=gains.get)
    reader.set("flag", "missing")
    assert (reader.count, reader.chosen) == (1, "p00005")
    assert "no response" in reader.texts()[1]
    assert reader.complaints() == []


def test_everything_can_be_reached_by_keys(reader, url):
    reader.open(url)
    first = reader.chosen
    drawn = "return document.querySelectorAll('.row').length"
    assert 10 < reader.run(drawn) < 40
    reader.press("j")
    assert reader.chosen != first
    assert reader.run("return document.activeElement.id") == "list"
    reader.press(Keys.END)
    assert reader.chosen == "p00399"
    rows = reader.until("return document.querySelectorAll('.row[aria-selected=true]').length")
    assert rows == 1
    assert reader.run(drawn) < 40
    reader.press("k", Keys.HOME)
    assert reader.chosen == first
    marks = "return document.querySelectorAll('#sample ins, #sample del').length"
    assert reader.run(marks) > 0
    reader.press("d")
    assert reader.run(marks) == 0
    reader.press("x")
    assert reader.columns[:2] == ["DPO, seed 0, step 20", "SFT"]
    reader.press("a")
    assert len(reader.columns) == 4
    reader.press("/")
    reader.press("delivery")
    assert reader.run("return document.getElementById('search').value") == "delivery"
    assert reader.count < 400
    reader.press(Keys.ARROW_DOWN)
    reader.press("r")
    assert reader.count == 400

    # The frontier: from point to point, and from a point to that policy's answers.
    reader.run("document.getElementById('frontier').scrollIntoView()")
    reader.until("return document.querySelector('#frontier path[tabindex=\"0\"]')")
    reader.press("f")
    label = "return document.activeElement.getAttribute('aria-label')"
    before = reader.run(label)
    reader.press(Keys.ARROW_RIGHT)
    assert reader.run(label) != before
    assert not reader.run("return document.getElementById('chart-note').hidden")
    reader.press(Keys.END)
    policy = reader.run(label).split(":")[0]
    assert policy.startswith("PPO")
    assert policy in reader.run("return document.getElementById('chart-note').textContent")
    if "step 20" not in policy:
        pytest.fail("the farthest policy is a final one, whose answers are kept")
    reader.press(Keys.ENTER)
    assert reader.columns[:2] == ["SFT", policy]
    reader.press("?")
    assert reader.run("return document.getElementById('help').open")
    reader.press(Keys.ESCAPE)
    assert not reader.run("return document.getElementById('help').open")
    reader.run("document.getElementById('keys-on').checked = false")
    reader.press("x")
    assert reader.columns[:2] == ["SFT", policy]
    assert reader.complaints() == []


def test_words_that_differ_are_marked(reader, tmp_path):
    content = maker.external(prompts=1)
    answers = content["samples"]["responses"]
    answers["a"][0]["text"] = "the red umbrella costs ten euros"
    answers["b"][0]["text"] = "the blue umbrella costs ten dollars today"
    reader.open(made(content, tmp_path))
    both = (
        "return ['del', 'ins'].map(t => [...document.querySelectorAll('#sample ' + t)]"
        ".map(e => e.textContent))"
    )
    assert reader.run(both) == [["red", "euros"], ["blue", "dollars today"]]
    assert reader.texts() == [answers["a"][0]["text"], answers["b"][0]["text"]]


def test_no_text_becomes_markup(reader, tmp_path):
    reader.open(made(maker.hostile(), tmp_path))
    for row, text in enumerate(maker.HOSTILE):
        if row:
            reader.press("j")
        shown = reader.texts()[1]
        assert shown == {"": "(empty)"}.get(text.strip(), text.replace("\ud800", "?"))
    assert reader.run("return document.querySelectorAll('img').length") == 0
    assert reader.run("return window.hacked ?? null") is None
    assert reader.run("return document.querySelectorAll('script').length") == 6
    assert reader.complaints() == []


@pytest.fixture
def downloads(reader, tmp_path):
    """A folder that the browser saves files in."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    behavior = {"behavior": "allow", "downloadPath": str(folder)}
    reader.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)

    def saved(name: str) -> Path:
        WebDriverWait(reader.driver, 30).until(lambda _: (folder / name).exists())
        return folder / name

    return saved


def test_the_address_names_a_prompt(reader, content, url):
    reader.open(f"{url}#prompt=17")
    prompts = content["samples"]["prompts"]
    assert reader.chosen == prompts[16]["id"]
    assert (
        reader.run("return document.querySelector('#sample a').getAttribute('href')")
        == "#prompt=17"
    )
    reader.set("outcome", "win")  # a filter gives way to an address
    reader.run("location.hash = '#prompt=3'")
    reader.until("return document.querySelector('#sample a').textContent === 'prompt 3'")
    assert reader.chosen == prompts[2]["id"]
    reader.run("location.hash = '#prompt=99999'")
    assert reader.chosen == prompts[2]["id"] and not reader.complaints()


def test_a_chart_is_saved_as_svg_png_and_csv(reader, content, url, downloads):
    reader.open(url)
    reader.until("return document.querySelector('#frontier .exports') !== null")
    name = reader.run("return document.querySelector('#frontier [data-chart]').dataset.chart")
    for kind in ("SVG", "PNG", "CSV"):
        reader.run(f"document.querySelector('#frontier [data-export={kind}]').click()")
    svg = downloads(f"{name}.svg").read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "var(--" not in svg and "#0072b2" in svg
    assert downloads(f"{name}.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(downloads(f"{name}.csv").open()))
    points = [row for row in rows if row["policy"]]
    expected = {
        (row["id"], round(max(0, row["metrics"]["kl"]), 9))
        for row in content["policies"]
        if row["metrics"]["kl"] is not None
    }
    assert {(row["policy"], round(float(row["kl"]), 9)) for row in points} >= expected
    assert not reader.complaints()


def test_notes_are_kept_in_the_file(reader, url, downloads, tmp_path):
    reader.open(f"{url}#prompt=5")
    evil = "</script><img src=x onerror=alert(1)> Why so long?"
    for field, text in (("#page-note", evil), ("#sample [data-note]", "Odd one.")):
        reader.run(
            "const f = document.querySelector(arguments[0]); f.value = arguments[1];"
            "f.dispatchEvent(new Event('input', {bubbles: true}))",
            field,
            text,
        )
    assert "2 notes, not in the file yet" in reader.run(
        "return document.getElementById('note-state').textContent"
    )
    reader.run("document.querySelector('[data-does=save]').click()")
    copy = downloads("report.html")
    reader.until("return document.getElementById('note-state').textContent.includes('in this')")
    moved = tmp_path / "moved.html"  # another place has no drafts
    moved.write_bytes(copy.read_bytes())
    reader.open(f"{moved.as_uri()}#prompt=5")
    assert reader.run("return document.getElementById('page-note').value") == evil
    assert reader.run("return document.querySelector('#sample [data-note]').value") == "Odd one."
    reader.until("return document.querySelector('#frontier svg') !== null")
    assert reader.run("return document.querySelectorAll('img').length") == 0
    assert not reader.complaints()
    # But for the notes, the copy is the page itself.
    original = Path(unquote(urlsplit(url).path)).read_text("utf-8")
    assert len(copy.read_text("utf-8")) - len(original) == pytest.approx(len(evil), abs=5000)


def test_a_draft_of_a_note_survives_reloading(reader, url):
    reader.open(url)
    reader.run(
        "const f = document.getElementById('page-note'); f.value = 'draft';"
        "f.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    reader.open(url)
    assert reader.run("return document.getElementById('page-note').value") == "draft"
    reader.run("localStorage.clear()")


def test_phone_dark_and_paper(reader, url):
    reader.screen(420, 900, "dark")
    reader.open(url)
    charts = "return [...document.querySelectorAll('[data-chart]')]"
    reader.until(f"{charts}.every(place => place.querySelector('svg'))")
    assert reader.run("return document.documentElement.scrollWidth") == 420
    assert reader.run("return innerWidth") == 420
    color = "return getComputedStyle(document.querySelector('#frontier .mark-symbol path')).fill"
    dark = reader.run(color)
    reader.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert dark == "rgb(79, 159, 219)"
    assert reader.run(color) == "rgb(0, 114, 178)"
    assert reader.run("return getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert not reader.run("return document.getElementById('list').checkVisibility()")
    assert reader.run("return document.getElementById('sample').checkVisibility()")


def test_a_live_page_follows_and_keeps_the_readers_place(reader):
    state = {"content": maker.content(prompts=50, status="running", **SMALL)}
    looked = threading.Event()

    def build():
        looked.set()
        return state["content"]

    with Watch(build, every=0.1) as watch:
        reader.open(watch.url)
        assert "Live" in reader.run("return document.getElementById('state').textContent")
        reader.set("search", '"question 1"')  # 1 and 10 to 19
        assert reader.count == 11
        reader.set("order", "gain")
        reader.press("j")
        reader.run("document.getElementById('browser').scrollIntoView({behavior: 'instant'})")
        reader.until("return document.querySelector('#frontier svg')")
        before = reader.chosen
        top = "return Math.round(document.getElementById('browser').getBoundingClientRect().top)"
        held = reader.run(top)
        points = "return document.querySelectorAll('#frontier .mark-symbol path').length"
        few = reader.run(points)

        after = maker.content(prompts=80, **(SMALL | {"checkpoints": 3}))
        answers = state["content"]["samples"]["responses"]
        after["samples"]["responses"] = {
            name: answers[old] + rows[50:]
            for (name, rows), old in zip(
                after["samples"]["responses"].items(), answers, strict=True
            )
        }
        after["samples"]["prompts"][:50] = state["content"]["samples"]["prompts"]
        after["verdict"] = ["It is over."]
        state["content"] = after
        reader.until("return document.getElementById('state').textContent.includes('finished')")
        reader.until("return document.getElementById('count').textContent.includes('of 80')")
        assert "It is over." in reader.run("return document.body.textContent")
        assert reader.run("return document.getElementById('search').value") == '"question 1"'
        assert reader.count == 11
        assert reader.run("return document.getElementById('order').value") == "gain"
        assert reader.chosen == before
        assert reader.run(top) == pytest.approx(held, abs=3)
        reader.until(points.replace("length", f"length > {few}"))
    reader.until("return document.getElementById('state').textContent.includes('not respond')")
