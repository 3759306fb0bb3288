"""What `plumbline config` keeps of a recipe, so that it need not import all of it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from plumbline.commands import settings
from plumbline.commands.recipe_book import Recipe, find
from plumbline.commands.settings import shown_settings
from plumbline.runs import code_version

RECIPE = "build_data"


@pytest.fixture
def reads(monkeypatch, tmp_path):
    """Count how often settings are read from the recipe; the cache is a folder of the test."""
    counted = []
    real = settings.resolved
    monkeypatch.setattr(settings, "resolved", lambda *a: counted.append(a) or real(*a))
    monkeypatch.setattr(settings, "user_cache_path", lambda _: tmp_path / "cache")
    return counted


def test_settings_are_read_once_until_a_source_file_changes(reads, tmp_path, monkeypatch):
    recipe = find(RECIPE)
    first = shown_settings(recipe, None, [])
    assert shown_settings(recipe, None, []) == first
    assert len(reads) == 1
    assert any(setting.mentions("seed") and setting.value for setting in first)

    changed = shown_settings(recipe, None, ["data_seed=7"])
    assert {s.value for s in changed if s.changed} - {s.value for s in first} == {"7"}
    assert len(reads) == 2

    monkeypatch.setattr(code_version, "PACKAGES", ("plumbline",))  # as if files were removed
    assert shown_settings(recipe, None, []) == first
    assert len(reads) == 3

    (kept,) = {file.parent for file in tmp_path.glob("cache/settings/*.json")}
    for file in kept.iterdir():
        file.write_text('[["half')
    assert shown_settings(recipe, None, []) == first
    assert len(reads) == 4


def test_a_cache_that_cannot_be_written_and_a_recipe_of_ones_own(reads, tmp_path):
    (tmp_path / "cache").write_text("a file")
    recipe = find(RECIPE)
    assert shown_settings(recipe, None, []) == shown_settings(recipe, None, [])
    assert len(reads) == 2
    own = tmp_path / "own.py"
    own.write_text(Path(recipe.path).read_text())
    assert settings._kept_at(Recipe("own", own), None, []) is None
