"""The report that a whole chain ends in: what stands in it, and that a browser draws it."""

from __future__ import annotations

import csv
import json

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from evaluation.plots import for_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(finished):
    return finished / "small" / "report.html"


@pytest.mark.parametrize("width", [1280, 500])
def test_every_chart_is_drawn(page, shared_chromium, width):
    shared_chromium.set_window_size(width, 2000)
    shared_chromium.get(page.as_uri())
    done = "return performance.getEntriesByName('charts-drawn').length > 0"
    WebDriverWait(shared_chromium, 60).until(lambda driver: driver.execute_script(done))
    drawn = shared_chromium.execute_script(
        "return [...document.querySelectorAll('[data-chart] svg.marks')].map("
        "(chart) => chart.closest('[data-chart]').dataset.chart)"
    )
    plots = {plot.stem for plot in (page.parent / "plots").glob("*.svg")}
    assert len(plots) >= 9
    assert set(drawn) >= plots


def test_the_page_is_whole_in_itself(page):
    text = page.read_text()
    head = text[: text.index("<script")]
    assert "src=" not in head
    assert "<link" not in head
    assert "@import" not in head


def test_lineage_costs_and_settings_are_in_it(page):
    text = page.read_text()
    for wanted in ("Responses side by side", "Lineage", "evaluation/ppo/seed-1", "ppo.kl.target"):
        assert wanted in text


def test_the_verdict_is_the_same_in_every_file(page):
    summary = json.loads((page.parent / "summary.json").read_text())
    markdown = (page.parent / "report.md").read_text()
    assert summary["verdict"]
    for sentence in summary["verdict"]:
        assert sentence in markdown


def test_it_says_that_its_judge_is_the_truth(page):
    text = (page.parent / "report.md").read_text()
    assert "The judge is the true utility of the embedded world, not a model." in text
    assert "may have been trained against it" not in text


def test_figures_are_there_with_every_digit(page):
    with (page.parent / "tables" / "policies.csv").open() as file:
        rows = list(csv.DictReader(file))
    final = [row for row in rows if row["final"] in ("True", "true", "1")]
    places = [tuple(row["id"].split("/")[:2]) for row in final]
    assert sorted(places) == [(m, s) for m in ("dpo", "ppo") for s in ("0", "1")]
    summary = json.loads((page.parent / "summary.json").read_text())
    for row, (method, seed) in zip(final, places, strict=True):
        figure = summary["methods"][method][seed]["gold_mean"]
        assert float(row["gold"]) == figure


def test_what_a_policy_says_cannot_run_as_script():
    hostile = "</script><script>alert(1)</script>"
    assert "<" not in for_script({"text": hostile})
    assert json.loads(for_script({"text": hostile})) == {"text": hostile}


def test_the_markdown_names_plots_that_are_there(page):
    text = (page.parent / "report.md").read_text()
    plots = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(plots) >= 9
    assert all((page.parent / plot).read_text().startswith("<svg") for plot in plots)
