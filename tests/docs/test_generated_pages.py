"""Pages that are made from the code: settings, commands and the Python API."""

from typing import Literal

import pytest

from plumbline.config import Config, declared, only_when
from site_builder import modules
from site_builder.command_pages import all_commands, command_pages
from site_builder.mathematics import with_mathml
from site_builder.pages import SiteError, code, table
from site_builder.settings_pages import settings_page, settings_pages


class Inner(Config):
    """Inside."""

    rate: float = 0.1
    """How fast."""


class Person(Config):
    """Somebody."""

    name: str
    """What they are called."""


class Outer(Config):
    """Outside."""

    kind: Literal["a", "b"] = "a"
    """Which way."""
    weight: float = only_when(lambda config: config.kind == "b", "kind: b", 1.0, ge=0)
    """How much."""
    inner: Inner = Inner(rate=0.5)
    """A part."""
    files: Person | None = None
    """Another part."""
    people: tuple[Person, ...] = (Person(name="ana"),)
    """Who."""


def test_every_setting_is_declared_with_the_value_of_its_place():
    found = {setting.key: setting.value for setting in declared(Outer)}
    assert found == {
        "kind": "a",
        "weight": 1.0,
        "inner.rate": 0.5,
        "files": None,
        "files.name": "(required)",
        "people": (Person(name="ana"),),
        "people[].name": "(required)",
    }


def test_a_settings_page_has_type_default_condition_and_documentation():
    page = settings_page("Settings", "About.", Outer)
    rows = {
        line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| <")
    }
    weight = rows['<span id="weight"></span>`weight`']
    assert "`float (>= 0)`" in weight and "`1.0`" in weight and "How much." in weight
    assert "only with kind: b" in weight
    assert "`settings | null`" in rows['<span id="files"></span>`files`']
    assert "`list of settings`" in rows['<span id="people"></span>`people`']
    assert "`a | b`" in rows['<span id="kind"></span>`kind`']
    assert "`[{name: ana}]`" in rows['<span id="people"></span>`people`']
    assert page.index("## `inner`") < page.index("A part.") < page.index("`inner.rate`")


def test_every_recipe_has_a_page_of_settings():
    pages = {page.path: page.text for page in settings_pages()}
    assert "`ppo.kl.coefficient`" in pages["settings/dpo_vs_ppo.md"]
    assert "`files.preferences`" in pages["settings/dpo_vs_ppo.md"]
    assert {"settings/sweep.md", "settings/evaluate.md", "settings/annotate-push.md"} <= set(pages)


def test_every_command_has_a_page_with_all_its_options():
    pages = {page.path: page.text for page in command_pages()}
    assert "`--config`, `-c` `TEXT`" in pages["commands/run.md"]
    assert "`--set`, `-s` `KEY=VALUE`" in pages["commands/run.md"]
    assert "`PLUMBLINE_HOME`" in pages["commands/run.md"]
    assert "plumbline run RECIPE [OPTIONS]" in pages["commands/run.md"]
    for name, command in all_commands():
        page = pages[f"commands/{name.removeprefix('plumbline ').replace(' ', '-')}.md"]
        for parameter in command.params:
            if parameter.opts[0].startswith("-") and not parameter.hidden:
                assert f"`{parameter.opts[0]}`" in page
        assert name in pages["commands/index.md"]


def test_a_package_stands_before_its_modules_and_private_ones_are_left_out():
    names = modules.public_modules()
    assert names.index("rl") < names.index("rl.ppo")
    assert "plumbline.config" in names and modules.page_path("plumbline.config").endswith(
        "index.md"
    )
    assert not [n for n in names if n.startswith(("plumbline.commands", "plumbline.__main__"))]
    assert not [n for n in names if "embedded" in n or "._" in n]


def test_a_public_function_without_a_docstring_is_refused(tmp_path):
    for room in modules.PACKAGES:
        (tmp_path / room).mkdir()
    (tmp_path / "rl" / "__init__.py").write_text('"""A room."""\n')
    (tmp_path / "rl" / "a.py").write_text(
        '"""A."""\n\n\nclass Thing:\n    """One."""\n\n    def act(self):\n        pass\n\n'
        "    def _hide(self):\n        pass\n"
    )
    with pytest.raises(SiteError, match=r"^rl\.a\.Thing\.act has no docstring$"):
        modules.api_pages(tmp_path)


def test_tables_keep_bars_as_text_and_leave_code_alone():
    text = table(["a|b"], [["x | `y | z`\nw"]])
    assert text.splitlines() == ["| a\\|b |", "| --- |", "| x \\| `y | z` w |"]
    assert code("a`b") == "``a`b``" and code("") == ""


def test_tables_in_docstrings_become_markdown():
    pytest.importorskip("griffe", reason="the extra `docs` is not installed")
    from site_builder.docstrings import with_markdown_tables

    text = """A folder.

=====  ==========
file   what
=====  ==========
a      one, and
       more
``b``  two
=====  ==========

After."""
    assert with_markdown_tables(text).split("\n") == [
        "A folder.", "", "",
        "| file | what |", "| --- | --- |", "| a | one, and more |", "| ``b`` | two |",
        "", "", "After.",
    ]  # fmt: skip
    bare = "=====  ==\na      1\n=====  =="
    assert "|  |  |\n| --- | --- |\n| a | 1 |" in with_markdown_tables(bare)
    assert with_markdown_tables("a == b\n\n====\n") == "a == b\n\n====\n"


def test_a_comment_above_a_variable_is_its_documentation(tmp_path):
    pytest.importorskip("griffe", reason="the extra `docs` is not installed")
    from site_builder.docstrings import comment_above

    lines = ["x = 1", "#: The rate,", "#: per step.", "rate = 1", "y = 2"]
    assert comment_above(lines, 4) == "The rate,\nper step."
    assert comment_above(lines, 1) == comment_above(lines, 5) == ""


def test_mathematics_becomes_mathml():
    pytest.importorskip("latex2mathml", reason="the extra `docs` is not installed")
    page = r'<p>So <span class="arithmatex">\(a &lt; b\)</span>.</p>'
    assert "<mo>&#x0003C;</mo>" in with_mathml(page) and "arithmatex" not in with_mathml(page)
    block = '<div class="arithmatex">\\[\\frac{1}{2}\\]</div>'
    assert 'display="block"' in with_mathml(block) and "<mfrac>" in with_mathml(block)
