"""Names that become files never lead out of their folder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.config import Config
from plumbline.errors import ConfigError
from plumbline.runs.names import check_run_name, safe_file_name
from plumbline.runs.run import Run

BAD = ["", ".", "..", "../x", "a/b", "a\\b", "/tmp/x", "a b", "-a", ".a", "a.", "a\n", "x\0", "é",
       "\u202ea", "a" * 101, "store", "Store", "comparisons"]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_such_a_run_is_refused_before_anything_is_written(name, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        check_run_name(name)
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        Run(home, name, "recipe", Config())
    assert list(tmp_path.rglob("*")) == [home]


@pytest.mark.parametrize("name", ["dpo_vs_ppo-quickstart", "a", "0.1", "My-run_2.b"])
def test_good_names_are_accepted(name, tmp_path):
    assert check_run_name(name) == name
    assert Run(tmp_path, name, "recipe", Config()).folder == tmp_path / name


def test_a_run_that_exists_keeps_its_name(tmp_path):
    (tmp_path / "my old run").mkdir()
    (tmp_path / "my old run" / "run.json").write_text("{}")
    assert Run(tmp_path, "my old run", "recipe", Config()).folder.name == "my old run"


@given(st.text(max_size=200))
def test_any_text_becomes_one_safe_file_name(text):
    name = safe_file_name(text)
    assert name.isascii() and 1 <= len(name) <= 80
    assert not name.startswith((".", "-")) and not set(name) & set('/\\:*?"<>| \0\n')
    assert safe_file_name(name) == name


def test_safe_texts_stay_as_they_are_and_others_stay_apart():
    assert safe_file_name("gold-against-kl") == "gold-against-kl"
    texts = ["a?", "a!", "a", "a-", "../a", "..\\a", "a" * 90, "a" * 91, ""]
    assert len({safe_file_name(text) for text in texts}) == len(texts)
