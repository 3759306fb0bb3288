"""Settings: every mistake is named with its place and the nearest right key."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from plumbline.commands.recipe_book import all_recipes
from plumbline.config import Config, changed, load, not_in_identity, only_when, settings, to_yaml
from plumbline.errors import ConfigError


class Inner(Config):
    """Inner."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    workers: int = not_in_identity(2, ge=1)
    """How many."""


class Outer(Config):
    """Outer."""

    ppo: Inner = Inner()
    """PPO."""
    dpo: Inner = Inner()
    """DPO."""
    seeds: tuple[int, ...] = (0,)
    """Seeds."""


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


class Stage(Config):
    """A stage with defaults of its own for a shared config."""

    inner: Inner = Inner(learning_rate=0.7, workers=5)
    """Inner."""


class Recipe(Config):
    """A recipe with a stage."""

    stage: Stage = Stage()
    """Stage."""


def test_setting_one_key_keeps_the_defaults_beside_it(tmp_path):
    path = write(tmp_path, "stage: {inner: {workers: 9}}\n")
    assert load(Recipe, path).stage.inner == Inner(learning_rate=0.7, workers=9)
    assert load(Recipe, None, ["stage.inner.workers=9"]) == load(Recipe, path)
    assert load(Recipe, path, ["stage.inner.learning_rate=0.1"]).stage.inner.workers == 9


def problem(*arguments):
    with pytest.raises(ConfigError) as caught:
        load(Outer, *arguments)
    return str(caught.value)


def test_values_come_from_the_file_and_then_from_set(tmp_path):
    path = write(tmp_path, "ppo: {learning_rate: 0.5, workers: 3}\nseeds: [1, 2]\n")
    config = load(Outer, path, ["ppo.learning_rate=1e-5", "seeds=[7]"])
    assert config.ppo.learning_rate == 1e-5
    assert config.ppo.workers == 3
    assert config.seeds == (7,)
    assert config.dpo == Inner()


def test_a_misspelt_key_names_file_line_key_value_and_the_right_key(tmp_path):
    path = write(tmp_path, "seeds: [0]\nppo:\n  learning_rat: 0.5\n")
    message = problem(path)
    assert f"{path}, line 3" in message
    assert "'ppo.learning_rat'" in message
    assert "0.5" in message
    assert "Did you mean 'ppo.learning_rate'?" in message


def test_the_right_key_at_the_wrong_place_is_found(tmp_path):
    message = problem(write(tmp_path, "learning_rate: 0.5\n"))
    assert "'ppo.learning_rate' or 'dpo.learning_rate'" in message


def test_a_misspelt_override_says_so():
    message = problem(None, ["ppo.lerning_rate=1"])
    assert message.startswith("--set")
    assert "'ppo.learning_rate'" in message


def test_all_problems_are_reported_at_once(tmp_path):
    message = problem(write(tmp_path, "ppo: {learning_rate: -1, workers: many}\nseed: 3\n"))
    assert len(message.splitlines()) == 3
    assert "greater than 0" in message
    assert "Did you mean 'seeds'?" in message


@pytest.mark.parametrize("value", ["'3'", "2.5", "true", "[1]"])
def test_a_wrong_type_is_not_bent_into_the_right_one(tmp_path, value):
    assert "ppo.workers" in problem(write(tmp_path, f"ppo: {{workers: {value}}}\n"))


@pytest.mark.parametrize("override", ["ppo", "=3", "ppo..x=3", "ppo.workers=[1"])
def test_an_override_that_does_not_parse_is_quoted(override):
    assert repr(override) in problem(None, [override])


def test_an_override_below_a_value_is_refused():
    assert "no settings of its own" in problem(None, ["seeds=3", "seeds.more=4"])


def test_invalid_yaml_is_reported_with_its_line(tmp_path):
    assert "line 2" in problem(write(tmp_path, "seeds: [0]\nppo: {a: b: c}\n"))


def test_a_missing_file_and_a_list_are_refused(tmp_path):
    assert "There is no config file" in problem(tmp_path / "none.yaml")
    assert "keys and values" in problem(write(tmp_path, "- a\n- b\n"))


def test_an_empty_file_means_the_defaults(tmp_path):
    assert load(Outer, write(tmp_path, "# nothing set\n")) == Outer()


def test_identity_leaves_out_what_does_not_change_the_result():
    one, other = Outer(), Outer(ppo=Inner(workers=9))
    assert one != other
    assert one.identity() == other.identity()
    assert Outer(ppo=Inner(learning_rate=0.1)).identity() != one.identity()


def test_what_is_written_reads_back(tmp_path):
    config = Outer(ppo=Inner(learning_rate=0.25), seeds=(3, 4))
    assert load(Outer, write(tmp_path, to_yaml(config))) == config


RECIPES = all_recipes()
SHIPPED = [(recipe, name) for recipe in RECIPES for name in recipe.configs]


@pytest.mark.parametrize(("recipe", "name"), SHIPPED, ids=lambda value: str(value)[:40])
def test_every_shipped_config_loads_and_every_knob_is_documented(recipe, name):
    config = recipe.load(name, [])
    undocumented = [knob.key for knob in settings(config) if not knob.documentation]
    assert not undocumented


def test_the_recipes_that_the_readme_names_are_there():
    assert {(recipe.name, name) for recipe, name in SHIPPED} >= {
        ("dpo_vs_ppo", "quickstart"),
        ("dpo_vs_ppo", "hh"),
    }


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("ppo.minibatch_size=48", "must divide batch_size"),
        ("pairs.pairs_per_prompt=9", "responses make only 6 pairs"),
        ("labeling.votes=9", "nobody votes twice"),
        ("evaluation.prompts_during_training=900", "cannot be more"),
        ("base.scratch.heads=5", "must divide hidden_size"),
        ("dpo.training.checkpoint_every=33", "multiple of"),
    ],
)
def test_impossible_combinations_are_refused_with_both_values(override, expected):
    with pytest.raises(ConfigError, match=expected):
        recipe = next(recipe for recipe in RECIPES if recipe.name == "dpo_vs_ppo")
        recipe.load("quickstart", [override])


class Places(Config):
    """Where files lie."""

    folder: Path = Path("data")
    """Folder."""
    file: Path
    """File."""


class WithPlaces(Config):
    """A recipe of one's own with paths."""

    out: Path = Path("out")
    """Where to."""
    places: Places | None = None
    """Where from."""


def test_a_path_has_its_default_wherever_it_stands():
    config = load(WithPlaces, None, ["places.file=a.json"])
    assert (config.out, config.places) == (
        Path("out"),
        Places(folder=Path("data"), file=Path("a.json")),
    )
    assert load(WithPlaces, None, ["out=there"]).out == Path("there")
    with pytest.raises(ConfigError, match=r"'places\.file' must be set"):
        load(WithPlaces, None, ["places.folder=there"])


class Loss(Config):
    """A loss with settings that belong to one of its kinds."""

    renamed: ClassVar = {"cap": "limit", "weights.text": "word_weight"}

    kind: str = "clip"
    """Kind."""
    limit: float = only_when(lambda loss: loss.kind == "clip", "kind: clip", 0.2, gt=0)
    """Limit."""


class Method(Config):
    """A method whose losses count only when it trains."""

    trains: bool = True
    """Trains."""
    loss: Loss = only_when(lambda method: method.trains, "trains: true", Loss(limit=0.3))
    """Loss."""


class Methods(Config):
    """Two methods."""

    first: Method = Method()
    """First."""


def test_an_override_takes_the_effect_of_what_the_file_sets(tmp_path):
    path = write(tmp_path, "first:\n  loss:\n    kind: clip\n    limit: 0.9\n")
    assert load(Methods, path).first.loss.limit == 0.9
    loss = load(Methods, path, ["first.loss.kind=other"]).first.loss
    assert (loss.kind, loss.limit) == ("other", Method().loss.limit)
    # Two overrides that contradict each other are refused, and so is a file that does.
    with pytest.raises(ConfigError, match=r"first\.loss\.limit is 0\.5.*needs kind: clip"):
        load(Methods, path, ["first.loss.kind=other", "first.loss.limit=0.5"])
    path = write(tmp_path, "first:\n  trains: true\n  loss:\n    kind: other\n    limit: 0.9\n")
    with pytest.raises(ConfigError, match=r"first\.loss\.limit is 0\.9.*needs kind: clip"):
        load(Methods, path, ["first.trains=true"])


def test_a_setting_without_effect_is_refused_with_what_it_needs(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(Methods, write(tmp_path, "first:\n  loss:\n    kind: other\n    limit: 0.9\n"))
    assert "config.yaml, line 4: first.loss.limit is 0.9, which has no effect here" in str(
        caught.value
    )
    assert "it needs kind: clip" in str(caught.value)
    assert "its default is 0.3" in str(caught.value)


def test_a_group_of_settings_without_effect_names_each_that_was_given():
    with pytest.raises(ConfigError) as caught:
        load(Methods, None, ["first.trains=false", "first.loss.limit=0.5", "first.loss.kind=b"])
    assert len(str(caught.value).splitlines()) == 2
    assert "--set: first.loss.limit is 0.5" in str(caught.value)


@pytest.mark.parametrize(
    "overrides", [["first.loss.kind=b"], ["first.loss.kind=b", "first.loss.limit=0.3"], []]
)
def test_a_default_that_has_no_effect_is_not_held_against_anybody(overrides):
    assert load(Methods, None, overrides).first.loss.limit == 0.3


def test_the_constructor_refuses_what_has_no_effect_too():
    with pytest.raises(ValueError, match=r"limit is 0.5, which has no effect"):
        Loss(kind="other", limit=0.5)
    with pytest.raises(ValueError, match=r"loss.limit is 0.5, which has no effect"):
        Method(trains=False, loss=Loss(limit=0.5))
    assert Loss(kind="other", limit=0.2).kind == "other"


def test_changes_are_held_to_the_same_rule():
    with pytest.raises(ConfigError, match=r"the changes: loss.limit is 0.5"):
        changed(Method(), {"trains": False, "loss": {"limit": 0.5}})
    # What was set before the change, and the change takes the effect of, was right when it was set.
    assert changed(Loss(limit=0.5), {"kind": "b"}).limit == 0.5


def test_a_renamed_setting_is_refused_under_its_old_name_with_the_new_one(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(Methods, write(tmp_path, "first: {loss: {cap: 0.1}}\n"))
    assert "'first.loss.cap' is now called 'first.loss.limit'" in str(caught.value)


def test_the_documentation_of_a_setting_says_what_it_needs():
    shown = {setting.key: setting.documentation for setting in settings(Loss())}
    assert shown["limit"] == "Limit. Needs kind: clip."
