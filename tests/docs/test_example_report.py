"""The example in docs/example-report is what the present code writes, and pages quote its figures.

To mend it: the two commands in docs/comparison.md, "An example".
"""

import json
import re

import pytest

from evaluation.comparison.page import render
from plumbline import __version__
from plumbline.config import declared
from preference.config import DPOConfig
from rl.config import PPOConfig
from site_builder.pages import ROOT

FOLDER = ROOT / "docs" / "example-report"
PAGE = (FOLDER / "report.html").read_text("utf-8")
SUMMARY = json.loads((FOLDER / "summary.json").read_text("utf-8"))


def test_the_page_has_the_parts_of_a_page_of_today():
    # Settings are those of a recipe's own report; a comparison has the ones that differ.
    shown = [place for place, *_ in render._SECTIONS if place != "settings"]
    assert re.findall(r'<section id="(\w+)"', PAGE) == shown
    assert '<p class="headline">' in PAGE and f"Made by Plumbline {__version__}" in PAGE


def test_the_folder_has_what_is_written_today_and_nothing_older():
    assert {entry.name for entry in FOLDER.iterdir()} == {
        "report.html", "report.md", "summary.json", "plots", render.TABLES_FOLDER,
    }  # fmt: skip
    tables = {file.stem for file in (FOLDER / render.TABLES_FOLDER).iterdir()}
    assert tables <= {*render._TABLES, "frontier", "training", "parts"}
    charts = {file.stem for file in (FOLDER / "plots").iterdir()}
    assert charts == set(re.findall(r"plots/([\w-]+)\.svg", (FOLDER / "report.md").read_text()))


def test_its_settings_have_the_names_of_today():
    text = (FOLDER / "report.md").read_text("utf-8")
    shown = re.findall(r"^\| `([\w.]+)` \|", text.partition("the methods differ")[2], re.MULTILINE)
    today = {setting.key for schema in (DPOConfig, PPOConfig) for setting in declared(schema)}
    assert len(shown) > 50 and set(shown) - today == set()


@pytest.mark.parametrize("at", ["matched", "final"])
def test_the_page_on_comparisons_quotes_its_figures(at):
    text = (ROOT / "docs" / "comparison.md").read_text("utf-8")
    (row,) = (r for r in SUMMARY["contrasts"] if r["scorer"] == "gold" and r["at"] == at)
    shown = [f"{row[name]:+.2f}".replace("-", "−") for name in ("difference", "low", "high")]
    assert f"{shown[1]} to {shown[2]}" in text and shown[0] in text
    assert f"{row['detectable']:.2f}" in text


@pytest.mark.parametrize("method", ["dpo", "ppo"])
def test_the_readme_quotes_its_figures(method):
    text = (ROOT / "README.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| {method.upper()} \| (.*) \| (.*) \|$", text, re.MULTILINE)
    quoted = [[float(number) for number in re.findall(r"[\d.]+", cell)] for cell in row]
    seeds = SUMMARY["methods"][method].values()
    wins = [100 * share for s in seeds for share in (s["gold_win_rate"], *s["gold_win_rate_ci"])]
    assert quoted[0] == pytest.approx(wins, abs=0.501)
    assert quoted[1] == pytest.approx([seed["kl"] for seed in seeds], abs=0.0501)
