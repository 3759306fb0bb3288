"""The table of formats: every row of it is complete, and each is told from all others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from plumbline.data.examples import example_from
from plumbline.data.format import parts_in
from plumbline.data.formats import FORMATS, MAPPED, format_of, recognize
from plumbline.data.parts import PARTS
from plumbline.data.uses import USES

ROOT = Path(__file__).parents[3]
FORMATS_PAGE = ROOT / "docs" / "formats.md"


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_complete_and_reads_its_own_example(name):
    form = FORMATS[name]
    assert form.about[0].isalpha()
    assert not form.about.endswith(".")
    assert set(form.marks) <= set(form.columns)
    assert form.is_of(form.example)
    assert {derived.part for derived in form.derives} <= set(PARTS)
    if name == "votes":
        return
    found = form.read(parts_in(form.example, form.find_columns(form.example), form.marks))
    examples = [example_from(found)] if isinstance(found, dict) else list(map(example_from, found))
    assert all(example.prompt for example in examples)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_recognized_by_its_example_for_every_use_that_it_suits(name):
    form = FORMATS[name]
    suited = [use for use in USES.values() if use.needs <= form.gives(form.example)]
    assert suited
    for use in suited:
        found = recognize([form.example], use)
        assert found is form or name == "samples", use.name


def test_formats_are_told_apart():
    told = {form.name: format_of(form.example) for form in FORMATS.values()}
    others = {name: form.name for name, form in told.items() if form.name != name}
    # Samples are prompts with completions, too; only their use tells them apart.
    assert others == {"samples": "prompt_completion"}


def test_every_part_is_in_the_mapped_format():
    assert set(MAPPED.columns) == set(PARTS)


def test_the_page_s_table_is_that_of_the_code():
    from plumbline.commands.data_show import formats_as_markdown

    text = FORMATS_PAGE.read_text(encoding="utf-8")
    table = re.search(r"<!-- made from the code -->\n(.*?)\n<!-- end -->", text, re.DOTALL)[1]
    assert table == formats_as_markdown(), "run: plumbline data formats --markdown"


def test_the_example_of_a_format_of_your_own_works(read, worked_example):
    example = worked_example("data-format")
    (row,) = re.findall(r"```json\n(.*?)```", example.text, re.DOTALL)
    function = example.settings["demonstrations"]["format"]
    examples, report = read([json.loads(row), {"essay": "x"}], format=function)
    (essay,) = examples
    assert essay.messages[0]["content"] == "Write a short essay on: Saws."
    assert report.dropped.rows[0]["reason"] == "has an essay without a title"

    declared = re.findall(r"```python\n(.*?)```", example.text, re.DOTALL)[-1]
    space = {}
    exec(declared, space)
    tickets = space["TICKETS"]
    assert tickets.is_of(tickets.example)
    parts = parts_in(tickets.example, tickets.find_columns(tickets.example), tickets.marks)
    assert example_from(parts).subset == "tools"
