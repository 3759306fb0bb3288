"""The page on a measure of your own: its code runs as it stands there, in a real evaluation."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from evaluation.config import EvaluationConfig
from evaluation.harness import Harness
from evaluation.measures.registry import (
    DEFAULT_MEASURES,
    MEASURES,
    MeasuresConfig,
    select_measures,
)
from plumbline.config import load
from plumbline.data.records import user
from plumbline.data.tasks import Item, Task
from plumbline.errors import ConfigError
from plumbline.runs.calls import describe, resolve


@pytest.fixture
def example(worked_example):
    """The user's one file, in the folder in which the command is given."""
    return worked_example("measure")


def test_both_are_taken_beside_a_row_of_the_table(example, policy):
    config = MeasuresConfig(**example.settings["measures"])
    measures = resolve(select_measures(config))
    assert [m.name for m in measures] == ["distinct_2", "exclamation_marks", "length_ratio"]
    items = tuple(Item([user(f"What is {n} + 1?")], ("two words",)) for n in range(3))
    harness = Harness(EvaluationConfig(), Task("sums", items), [], 0, measures=measures)
    rows = harness.evaluate(policy, None)
    metrics = harness.metrics(rows)
    assert metrics["length_ratio"] == pytest.approx(sum(r["words"] for r in rows) / 3 / 2)
    assert {"exclamation_marks", "exclamation_marks_se", "length_ratio_se"} <= set(metrics)


def test_another_content_of_the_file_is_another_measure(example):
    def identity():
        return describe(MEASURES["my_measures.exclamation_marks"].measure)

    before = identity()
    assert identity() == before
    (example.folder / "my_measures.py").write_text(example.source.replace("100 *", "1000 *"))
    assert identity() != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_measures.nothing", "has no function 'nothing'"),
        ("nowhere.to_find", "cannot be imported"),
        ("bleuu", "Did you mean 'bleu'"),
    ],
)
def test_what_is_no_measure_is_refused_before_anything_runs(example, name, message):
    with pytest.raises(ConfigError, match=message):
        load(MeasuresConfig, None, [f"names=[{name}]"])


def test_a_function_of_another_kind_is_refused(example):
    (example.folder / "my_measures.py").write_text(
        "def two(a, b):\n    return 1\n\ndef text():\n    return 'x'\n"
    )
    for name in ("two", "text"):
        with pytest.raises(ConfigError, match="is not a measure"):
            MEASURES[f"my_measures.{name}"].load()


def test_the_table_is_complete():
    """Every function of the package that makes a measure from names is a row, and named so."""
    import evaluation.measures as package

    made = {row.measure.function.__qualname__ for row in MEASURES.values()}
    folder = Path(package.__file__).parent
    declared = {
        node.name
        for file in folder.glob("*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and isinstance(node.returns, ast.Name)
        and node.returns.id == "Measure"
        and file.stem != "registry"
    }
    # Moderation needs a moderator, so a setting of its own names it.
    assert declared - {"moderation"} == made
    for name, row in MEASURES.items():
        measure = row.load()
        assert measure.name == name and measure.title and measure.unit
        assert measure.by_row is not None or measure.of_set is not None
    assert set(DEFAULT_MEASURES) <= set(MEASURES)
