"""The comparison's page as files: what stands in them, whatever the content lacks."""

from __future__ import annotations

import base64
import copy
import csv
import gzip
import hashlib
import json
import math
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace

import pytest

from evaluation.comparison import page
from evaluation.comparison.page import charts, packed_responses, tables, view
from evaluation.comparison.page.table import p_value
from evaluation.comparison.page.view import View, finite
from evaluation.plots import for_script
from plumbline.pages import number

maker = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("content_maker.py"))))
SMALL = {"seeds": 3, "checkpoints": 2, "prompts": 12, "steps": 5}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    content = maker.content(**SMALL)
    page.write(content, folder)
    return content, folder


class Elements(HTMLParser):
    """Counts elements and keeps the text of scripts, as a browser would cut them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[tuple[dict, str]] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.attributes += attributes
        self._open = tag == "script"
        if self._open:
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self._open = False

    def handle_data(self, data):
        if self._open:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)

    def named(self, name: str) -> str:
        return next(text for found, text in self.scripts if found.get("id") == name)


def policy_of(found: Elements) -> str:
    (policy,) = [v for name, v in found.attributes if name == "content" and "default-src" in v]
    return policy


def unpacked(folder: Path) -> dict:
    packed = Elements((folder / "report.html").read_text("utf-8")).named("samples")
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_the_page_needs_nothing_from_elsewhere(written):
    _, folder = written
    text = (folder / "report.html").read_text("utf-8")
    found = Elements(text)
    assert "link" not in found.counts
    assert not [value for name, value in found.attributes if name in ("src", "srcset")]
    assert "@import" not in text[: text.index("<body>")]
    policy = policy_of(found)
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy


def test_only_the_pages_own_scripts_may_run(written):
    _, folder = written
    found = Elements((folder / "report.html").read_text("utf-8"))
    policy = policy_of(found)
    run = [text for attributes, text in found.scripts if "type" not in attributes]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in run]
    assert digests == allowed
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


def test_equal_content_gives_equal_bytes(written, tmp_path):
    content, folder = written
    page.write(copy.deepcopy(content), tmp_path)
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
    again = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert first == again
    assert len(first) > 25


def test_the_table_of_results_means_over_seeds(written):
    content, folder = written
    final = [p for p in content["policies"] if p["method"] == "ppo" and p["final"]]
    golds = [p["metrics"]["gold"] for p in final]
    rows = list(csv.DictReader((folder / "tables" / "results.csv").open()))
    (row,) = [r for r in rows if r["method"] == "PPO" and r["at"] == "end of training"]
    assert float(row["gold"]) == pytest.approx(fmean(golds))
    assert float(row["gold_seed_std"]) == pytest.approx(stdev(golds))
    assert int(row["seeds"]) == 3
    budget = [p for p in content["policies"] if p["method"] == "ppo" and p["matched"]]
    (row,) = [r for r in rows if r["method"] == "PPO" and r["at"] == "the budget"]
    assert float(row["kl"]) == pytest.approx(fmean(p["metrics"]["kl"] for p in budget))
    shown = f"{fmean(golds):.2f}"
    for name in ("report.html", "report.md"):
        assert shown in (folder / name).read_text("utf-8")


def test_every_policy_is_kept_with_every_digit(written):
    content, folder = written
    rows = list(csv.DictReader((folder / "tables" / "policies.csv").open()))
    assert [row["id"] for row in rows] == [p["id"] for p in content["policies"]]
    for row, policy in zip(rows, content["policies"], strict=True):
        assert float(row["kl"]) == policy["metrics"]["kl"]
        assert float(row["cost_tokens"]) == policy["costs"]["tokens"]
    lines = (folder / "tables" / "training.csv").read_text().count("\n")
    assert lines == len(content["training"]) + 1


def test_verdict_flags_and_what_could_not_be_told_come_first(written):
    content, folder = written
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text("utf-8").replace("&#39;", "'")
        places = [
            text.index(s) for s in (*content["verdict"], *(f["text"] for f in content["flags"]))
        ]
        assert max(places) < text.index(
            "Quality against KL", text.index("</nav>") if "</nav>" in text else 0
        )
        assert "Refused:" in text
        assert "0.26" in text


def test_the_markdown_names_plots_that_are_there(written):
    _, folder = written
    text = (folder / "report.md").read_text("utf-8")
    plots = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert sorted(plots) == sorted(f"plots/{p.name}" for p in (folder / "plots").iterdir())
    for plot in plots:
        drawn = (folder / plot).read_text("utf-8")
        assert drawn.startswith("<svg")
        assert "var(--" not in drawn
        assert any(color in drawn for color in view.COLORS[1:3])


def test_tables_of_the_markdown_are_whole(written):
    _, folder = written
    lines = (folder / "report.md").read_text("utf-8").splitlines()
    for place, line in enumerate(lines):
        if re.fullmatch(r"\|(---\|)+", line):
            width = line.count("|")
            assert len(re.findall(r"(?<!\\)\|", lines[place - 1])) == width
            assert len(re.findall(r"(?<!\\)\|", lines[place + 1])) == width


@pytest.mark.parametrize("make", [maker.minimal, maker.external])
def test_content_that_lacks_nearly_everything(make, tmp_path):
    page.write(make(), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert '<section id="frontier"' not in text
    assert '<p class="headline">Nothing to compare yet</p>' in text
    assert not (tmp_path / "metrics" / "frontier.csv").exists()


@pytest.mark.parametrize("make", [maker.content, maker.minimal, maker.external])
def test_every_link_leads_to_a_section_with_something_in_it(make, tmp_path):
    page.write(make(), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    links = re.findall(r'<a (?:class="skip" )?href="#(\w+)"', text)
    sections = dict(re.findall(r'<section id="(\w+)"(.*?)</section>', text, re.DOTALL))
    assert "notes" in links
    for place in links:
        tag, body = sections[place].split(">", 1)
        assert " hidden" not in tag
        shown = re.sub(r"<h2.*?</h2>|<[^>]*>", "", body, flags=re.DOTALL)
        assert shown.strip() or "data-chart" in body, place


def test_a_live_page_has_every_section_for_what_comes(tmp_path):
    text = page.live_page(maker.minimal())
    assert '<section id="cost" aria-labelledby="cost-heading" hidden>' in text
    assert '<a href="#cost" hidden>' in text
    assert 'href="training"' not in text
    assert '<a href="training">' in page.live_page(maker.minimal(), curves="training")


def without(content: dict) -> list[dict]:
    """Return the content once without each of its lists, and once without any number."""
    found = []
    for key, value in content.items():
        if isinstance(value, list):
            found.append(content | {key: []})
    found.append(content | {"baseline": None, "reward_model": None})
    return found


def nulled(value, keep=frozenset({"prompts", "step", "confidence", "count"})):
    """Return the same data without numbers."""
    if isinstance(value, dict):
        return {k: v if k in keep else nulled(v, keep) for k, v in value.items()}
    if isinstance(value, list):
        return [nulled(v, keep) for v in value]
    return value if isinstance(value, bool | str) else None


def test_any_list_may_be_empty_and_any_number_missing():
    content = maker.content(**SMALL)
    for less in [*without(content), nulled(content | {"samples": {}})]:
        made = page.sections(less)
        assert made[0].place == "verdict"
        assert len(made) == 15
        for chart in charts.charts(View(less)):
            assert json.dumps(chart.spec, allow_nan=False)
    assert all("None" not in s.html and "nan" not in s.html for s in page.sections(nulled(content)))


def test_not_a_number_is_no_number():
    given = {"a": math.nan, "b": [1.5, math.inf, {"c": -math.inf}], "d": True, "e": 3}
    assert finite(given) == {"a": None, "b": [1.5, None, {"c": None}], "d": True, "e": 3}


def test_hostile_text_stays_text(tmp_path):
    content = maker.hostile()
    page.write(content, tmp_path)
    found = Elements((tmp_path / "report.html").read_text("utf-8"))
    assert found.counts["script"] == 6
    assert "img" not in found.counts
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert json.loads(found.named("charts"))
    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert "<" not in markdown.replace("\\<", "").replace("`" + maker.HOSTILE[0] + "`", "")
    data = unpacked(tmp_path)
    place = [policy["id"] for policy in data["policies"]].index("dpo/0/20")
    for row, text in enumerate(maker.HOSTILE):
        assert data["texts"][place][row] == text.replace("\ud800", "?")
    assert data["scores"][place]["gold"][0] is None


def test_json_in_a_script_cannot_end_it():
    text = "</script><script>alert(1)</script>\u2028"
    assert "<" not in for_script({"text": text})
    assert json.loads(for_script({"text": text})) == {"text": text}


def test_samples_are_packed_whole(written):
    content, folder = written
    data, given = unpacked(folder), content["samples"]
    assert [p["id"] for p in data["policies"]] == given["policies"]
    assert data["policies"][0]["title"] == "SFT"
    assert data["policies"][1]["title"] == "DPO, seed 0, step 20"
    for place, name in enumerate(given["policies"]):
        for row, answer in enumerate(given["responses"][name]):
            if answer is None:
                assert data["texts"][place][row] is None
                assert data["scores"][place]["gold"][row] is None
                continue
            assert data["texts"][place][row] == answer["text"]
            gold = data["scores"][place]["gold"][row]
            assert gold == pytest.approx(answer["scores"]["gold"], abs=1e-4)
            assert (row in data["cut"][place]) == (not answer["finished"])


def test_the_selection_goes_from_loss_to_gain():
    chosen = packed_responses.selection(View(maker.content(**SMALL)), 5)
    gains = [
        one["responses"][1]["scores"]["gold"] - one["responses"][0]["scores"]["gold"]
        for one in chosen
        if all(response["text"] is not None for response in one["responses"])
    ]
    assert gains == sorted(gains)
    assert gains[0] < gains[-1]
    assert [answer["policy"] for answer in chosen[0]["responses"]] == [
        "SFT", "DPO, seed 0, step 20", "PPO, seed 0, step 20"
    ]  # fmt: skip


def test_the_fitted_curve_is_that_of_the_formula():
    content = maker.content(methods=1, **SMALL)
    content["frontier"][0]["fit"] = {"alpha": 0.5, "beta": 0.2, "form": "rl"}
    (chart,) = [c for c in charts.charts(View(content)) if c.name == "gold-against-kl"]
    (curve,) = [
        layer["data"]["values"]
        for layer in chart.spec["layer"]
        if "fit" in layer["data"]["values"][0]
    ]
    for point in curve:
        d = math.sqrt(point["kl"])
        assert point["fit"] == pytest.approx(3.0 + d * (0.5 - 0.2 * math.log(d)))


def test_points_of_the_frontier_are_the_policies():
    content = maker.content(**SMALL)
    (chart,) = [c for c in charts.charts(View(content)) if c.name == "reward-against-kl"]
    points = chart.spec["layer"][-2]["data"]["values"]
    assert {p["policy"] for p in points} == {"baseline", *(p["id"] for p in content["policies"])}
    assert {p["policy"] for p in points if p["size"] > 120} == {
        p["id"] for p in content["policies"] if p["matched"]
    }


def test_long_training_lines_are_thinned_and_keep_their_ends():
    content = maker.content(methods=1, seeds=1, prompts=1, steps=1001)
    drawn = [c for c in charts.charts(View(content)) if c.section == "metrics"]
    assert len(drawn) == 4
    steps = [row["step"] for row in drawn[0].spec["layer"][0]["data"]["values"]]
    assert steps[0] == 1
    assert steps[-1] == 1001
    assert len(steps) <= 301


def test_methods_differ_in_shape_where_colors_run_out():
    styles = View(maker.content(methods=9, seeds=1, checkpoints=1, prompts=1, steps=1)).styles
    assert len({(style.color, style.shape) for style in styles}) == 10
    assert len({style.color for style in styles}) == len(view.COLORS)


def test_no_column_shows_nothing():
    table = tables.policies(View(maker.external()))
    assert [column.title for column in table.columns] == ["policy", "reward-model score"]


def test_a_zero_has_no_sign():
    assert [number(-0.001), number(-1.5), number(-0.0, 0)] == ["0.00", "-1.50", "0"]


def test_small_p_values_are_not_zero():
    assert p_value(0.0004) == "< 0.001"
    assert p_value(0.0314) == "0.031"
