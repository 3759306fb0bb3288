"""Answers of labellers: what they mean in a label, and what a simulated labeller answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from random import Random
from typing import Any

from annotation.questions.form_config import FormConfig
from annotation.questions.question import Judgment, Side
from plumbline.data.labels import Label
from plumbline.errors import ConfigError

_LABEL_FIELDS = {"choice", "rationale", "strength", "aspects", "flags"}


def parse_answer(
    values: Mapping[str, Any], shown_first: Side, config: FormConfig
) -> dict[str, Any]:
    """Return the fields of a `Label` that an answer sets; without ``choice``, it makes no label.

    Raises `ConfigError` where a question sets a field that it must not set.
    """
    parsed: dict[str, Any] = {"aspects": {}, "flags": ()}
    for question in config.questions():
        part = question.parse(values, shown_first, config)
        unknown = sorted(set(part) - _LABEL_FIELDS)
        if unknown:
            names = [field.name for field in fields(Label) if field.name in _LABEL_FIELDS]
            raise ConfigError(
                f"The labelling question {question.name!r} sets {', '.join(unknown)}, but a "
                f"question may set only these fields of a label: {', '.join(names)}."
            )
        for name, value in part.items():
            if name == "aspects":
                parsed["aspects"] |= value
            elif name == "flags":
                parsed["flags"] += tuple(value)
            else:
                parsed[name] = value
    return parsed


def simulate_answer(judgment: Judgment, config: FormConfig, random: Random) -> dict[str, Any]:
    """Return the values with which a simulated labeller answers a record, by question."""
    values: dict[str, Any] = {}
    for question in config.questions():
        values |= question.simulate(judgment, config, random)
    return values
