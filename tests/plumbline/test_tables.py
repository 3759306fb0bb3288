"""Tables of algorithms: one list of names, and a user's own function beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from plumbline.config import Config, load, settings
from plumbline.errors import ConfigError
from plumbline.tables import Table


@dataclass(frozen=True)
class Loss:
    name: str
    function: Any


LOSSES = Table(
    "loss",
    [Loss("clip", min), Loss("square", max)],
    from_function=Loss,
    renamed={"quadratic": "square"},
)
NAMES = Table("measure", [Loss("length", len)])


class LossConfig(Config):
    """A loss by name."""

    kind: Annotated[str, LOSSES] = "clip"
    """Which loss."""
    second: Annotated[str | None, LOSSES] = None
    """Which other loss."""
    measure: Annotated[str, NAMES] = "length"
    """Which measure."""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own, in the folder where the command is given."""
    (tmp_path / "own_losses.py").write_text("def half(x):\n    return x / 2\n\nnumber = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    yield tmp_path
    __import__("sys").modules.pop("own_losses", None)


def test_rows_are_found_by_name_in_the_order_of_declaration():
    assert list(LOSSES) == ["clip", "square"] and LOSSES["square"].function is max
    assert "clip" in LOSSES and "own.loss" not in LOSSES


def test_an_unknown_name_is_refused_with_the_nearest_and_all():
    with pytest.raises(ConfigError) as caught:
        load(LossConfig, None, ["kind=squar"])
    assert "there is no loss 'squar'. Did you mean 'square'? There are: clip, square, or" in str(
        caught.value
    )


def test_a_user_s_own_function_is_a_row(own):
    config = load(LossConfig, None, ["kind=own_losses.half"])
    assert LOSSES[config.kind].function(3) == 1.5


def test_an_old_name_is_refused_with_the_new_one():
    with pytest.raises(ConfigError, match="'quadratic' is now called 'square'"):
        load(LossConfig, None, ["kind=quadratic"])


def test_a_setting_may_admit_none():
    assert load(LossConfig, None, ["second=null"]).second is None
    assert load(LossConfig, None, ["second=square"]).second == "square"
    with pytest.raises(ConfigError, match="there is no loss 'squar'"):
        load(LossConfig, None, ["second=squar"])


def test_rows_with_a_property_are_named_for_people():
    assert LOSSES.where(lambda row: row.function is max) == "square"
    assert LOSSES.where(lambda row: True) == "clip or square"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("own_losses.third", "has no function 'third'"),
        ("own_losses.number", "has no function 'number'"),
        ("nowhere.half", "cannot be imported"),
    ],
)
def test_what_cannot_be_imported_is_said_before_anything_runs(own, name, reason):
    with pytest.raises(ConfigError, match=reason):
        load(LossConfig, None, [f"kind={name}"])


def test_a_table_without_a_way_to_make_rows_takes_none(own):
    with pytest.raises(ConfigError, match="there is no measure"):
        load(LossConfig, None, ["measure=own_losses.half"])


def test_the_code_of_a_user_s_own_function_is_part_of_the_identity(own):
    before = LossConfig(kind="own_losses.half").identity()["kind"]
    assert before["function"] == "own_losses.half"
    (own / "own_losses.py").write_text("def half(x):\n    return x / 2.5\n")
    assert LossConfig(kind="own_losses.half").identity()["kind"] != before
    assert LossConfig(kind="clip").identity()["kind"] == "clip"


def test_the_choices_are_shown_to_people():
    shown = {setting.key: setting.type for setting in settings(LossConfig())}
    assert shown == {
        "kind": "clip | square | your_module.your_function",
        "second": "clip | square | your_module.your_function | null",
        "measure": "length",
    }
