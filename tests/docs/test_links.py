"""Links of pages: checked against the repository's files and the modules' names, then rewritten."""

import pytest

from site_builder.links import Links, lines
from site_builder.pages import ROOT, SiteError

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(file for file in sorted((ROOT / "docs").rglob("*.md")) if "example-report" not in file.parts),
]


@pytest.fixture
def repository(tmp_path):
    """Make a small repository with one module, a config and a page."""
    for name, text in {
        "README.md": "# A\n",
        "rl/__init__.py": '"""A room."""\n',
        "rl/losses.py": '"""Losses."""\n\n\ndef clipped(x):\n    """Clip."""\n\n\n'
        'class Loss:\n    """A loss."""\n\n    def ratio(self):\n        """Return it."""\n\n\n'
        "def _inner():\n    pass\n\n\n#: Documented.\nRATE = 1\n\nOTHER = 2\n",
        "recipes/configs/small.yaml": "seed: 0\n",
        "docs/ppo.md": "# PPO\n",
        "docs/report.md": "# Report\n",
        "docs/example/report.md": "# Example\n",
        "docs/example/report.html": "<p>",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for room in ("plumbline", "sft", "preference", "annotation", "reward", "evaluation"):
        (tmp_path / room).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[a](../rl/losses.py)", "[a](api/rl/losses.md)"),
        ("[`clipped`](../rl/losses.py)", "[`clipped`](api/rl/losses.md#rl.losses.clipped)"),
        ("[`Loss`](../rl/losses.py)", "[`Loss`](api/rl/losses.md#rl.losses.Loss)"),
        ("[`ratio`](../rl/losses.py)", "[`ratio`](api/rl/losses.md#rl.losses.Loss.ratio)"),
        ("[`RATE`](../rl/losses.py)", "[`RATE`](api/rl/losses.md#rl.losses.RATE)"),
        ("[`OTHER`](../rl/losses.py)", "[`OTHER`](api/rl/losses.md)"),
        ("[`_inner`](../rl/losses.py)", "[`_inner`](api/rl/losses.md)"),
        ("[`rl/losses.py`](../rl/losses.py)", "[`rl/losses.py`](api/rl/losses.md)"),
        ("[`losses.py`](../rl/losses.py)", "[`losses.py`](api/rl/losses.md)"),
        ("[the room](../rl)", "[the room](api/rl/index.md)"),
        ("[`rl/`](../rl/)", "[`rl/`](api/rl/index.md)"),
        ("[home](../README.md#map)", "[home](index.md#map)"),
        ("[report](report.md#keys)", "[report](report.md#keys)"),
        ("[example](example/report.md)", "[example](example/report.html)"),
        ("[c](../recipes/configs/small.yaml)", "[c](source/recipes/configs/small.yaml.md)"),
        ("[cs](../recipes/configs)", "[cs](source/recipes/configs/index.md)"),
        ("[here](#keys)", "[here](#keys)"),
        ("[far](https://example.org/a.py)", "[far](https://example.org/a.py)"),
        ("[a](report.md), [b](../rl)", "[a](report.md), [b](api/rl/index.md)"),
    ],
)
def test_a_link_leads_to_its_place_on_the_site(repository, written, expected):
    assert Links(repository).rewrite(written, "docs/ppo.md", "ppo.md") == expected


def test_links_are_relative_to_where_a_page_lies_on_the_site(repository):
    links = Links(repository)
    assert links.rewrite("[a](rl/losses.py)", "README.md", "index.md") == "[a](api/rl/losses.md)"
    text = links.rewrite("[a](../../rl/losses.py)", "docs/deep/a.md", "deep/a.md")
    assert text == "[a](../api/rl/losses.md)"


def test_code_is_left_alone(repository):
    text = (
        "```\n[a](nowhere.py)\n```\n\n    [a](nowhere.py)\n\n~~~text\n```\n[a](nowhere.py)\n~~~\n"
    )
    assert Links(repository).rewrite(text, "docs/ppo.md", "ppo.md") == text


def test_code_ends_where_its_fence_or_its_indentation_ends():
    text = "a\n    still a\n\n    code\n\n    code\nb\n```\ncode\n```\nc\n"
    assert [line.strip() for line, is_code in lines(text) if not is_code and line.strip()] == [
        "a", "still a", "b", "c",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("[a](../rl/gone.py)", r"docs/ppo.md: \[a\]\(../rl/gone.py\): there is no rl/gone.py"),
        ("[`gone`](../rl/losses.py)", "rl.losses defines no gone"),
        ("[a](../../etc/passwd)", "leaves the repository"),
    ],
)
def test_a_link_that_leads_nowhere_is_refused(repository, written, complaint):
    with pytest.raises(SiteError, match=complaint):
        Links(repository).rewrite(written, "docs/ppo.md", "ppo.md")


def test_all_broken_links_of_a_page_are_named_at_once(repository):
    with pytest.raises(SiteError) as error:
        Links(repository).rewrite("[a](a.md)\n[b](b.md)\n", "docs/ppo.md", "ppo.md")
    assert "no docs/a.md" in str(error.value) and "no docs/b.md" in str(error.value)


def test_a_file_that_is_no_page_gets_one_with_its_text(repository):
    links = Links(repository)
    links.rewrite("[c](../recipes/configs/small.yaml) [f](../recipes)", "docs/ppo.md", "ppo.md")
    pages = {page.path: page.text for page in links.source_pages()}
    assert "```yaml\nseed: 0\n```" in pages["source/recipes/configs/small.yaml.md"]
    assert "- `configs/`" in pages["source/recipes/index.md"]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_of_every_page_leads_somewhere(file):
    name = str(file.relative_to(ROOT))
    Links().rewrite(file.read_text(encoding="utf-8"), name, name.removeprefix("docs/"))
