"""The pages of docs/extending: one shape, and the page's own test passes.

That each example works in a real run is tested in its room (``worked_example`` there).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "extending"
#: The page that runs a whole recipe is tested in tests/recipes.
PAGES = ("data-format", "labelling-question", "measure", "policy-loss", "preference-loss", "recipe")
HEADINGS = [
    r"A .+ of your own",
    r"1\. Write the \w+",
    r"2\. Name it",
    r"3\. Test it",
    "For everyone",
]


def test_there_are_these_pages():
    assert sorted(file.stem for file in FOLDER.glob("*.md")) == list(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_shape_of_all(page):
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    assert len(headings) == len(HEADINGS)
    for heading, pattern in zip(headings, HEADINGS, strict=True):
        assert re.fullmatch(pattern, heading)
    assert "Files touched: one, plus its test." in prose


@pytest.mark.parametrize("page", [page for page in PAGES if page != "recipe"])
def test_the_test_on_the_page_passes(worked_example, page):
    assert worked_example(page).run_its_test() >= 2


def test_a_test_on_a_page_that_fails_is_seen(worked_example):
    example = worked_example("data-format")
    changed = example.source.replace("a short essay", "a long essay")
    (example.folder / "my_formats.py").write_text(changed)
    with pytest.raises(AssertionError):
        example.run_its_test()
