"""Names are the field's: none of the private words of before, and American spelling.

A word is private where a reader who knows TRL must ask what it means. Some were renamed in one room
only, since elsewhere they mean what they say (a threshold's ``level``, a gold item that is known).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = (
    "plumbline", "sft", "reward", "preference", "rl", "annotation", "evaluation", "recipes",
    "benchmarks",
)  # fmt: skip

#: Names that mean nothing to a stranger, with what is said instead.
EVERYWHERE = {
    "hush": "silence_libraries", "revive": "rebuild", "computing": "compute_precision",
    "suits": "is_supported", "_turn": "_apply_rotary", "_unseen": "_attention_bias",
    "Upcoming": "RolloutSampler", "try_out": "sample_current", "steps_behind": "max_staleness",
    "_accumulate": "accumulate_gradients", "figures": "metrics", "Figures": "RunningMeans",
    "Look": "CheckpointEval", "Trained": "TrainingRun", "go_back": "rollback",
    "without_effect": "not_in_identity", "knob": "setting", "knobs": "settings",
    "Ground": "SharedStages", "ground": "shared", "rewarder": "reward_model", "asked": "prompts",
    "judged": "build_rollout", "said": "token_logprobs", "told": "reported",
    "telling": "progress_text", "hire": "create_accounts",
    "found": "the noun", "one": "the noun", "given": "the noun", "theirs": "the noun",
    "made": "the noun",
}  # fmt: skip
#: Names that were renamed in one room or folder alone.
IN_ONE_ROOM = {
    "rl": {
        "own", "learn", "surrogate", "moving", "within", "signs", "until", "stops", "shaped",
        "adapted", "spread",
    },
    "evaluation": {"spread"},
    "plumbline/statistics": {"points", "level"},
    "annotation": {"standing", "known", "mixture", "desk"},
}  # fmt: skip

BRITISH = re.compile(
    r"behaviour|colour|centre|favour|honour|neighbour|labell(?!imit)|artefact|judgement|analyse"
    r"|licence|travell|cancelled|modell|"
    r"(normal|optim|maxim|minim|initial|token|serial|penal|quant|summar|recogn|organ|general"
    r"|regular|vector|standard|random|real|util|final|emphas|character|visual|special|categor"
    r"|synchron|parametr|discret|memor|priorit|custom)is(e|ed|es|ing|ation|er|ers)(?![a-z])",
    re.IGNORECASE,
)


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Yield every name that a module gives to something, or reads as an attribute."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name


def modules(room: str) -> list[Path]:
    return sorted((REPOSITORY / room).rglob("*.py"))


@pytest.mark.parametrize("room", [*ROOMS, "plumbline/statistics"])
def test_no_private_word_is_a_name(room):
    private = EVERYWHERE.keys() | IN_ONE_ROOM.get(room, set())
    found = {
        f"{file.relative_to(REPOSITORY)}: {name}"
        for file in modules(room)
        for name in identifiers(ast.parse(file.read_text(encoding="utf-8")))
        if name in private
    }
    assert sorted(found) == []


@pytest.mark.parametrize("room", ROOMS)
def test_names_are_spelled_as_torch_and_transformers_spell(room):
    found = {
        f"{file.relative_to(REPOSITORY)}: {name}"
        for file in modules(room)
        for name in [*identifiers(ast.parse(file.read_text(encoding="utf-8"))), file.stem]
        if BRITISH.search(name)
    }
    assert sorted(found) == []


@pytest.mark.parametrize(
    "source",
    ["knob = 1", "def f(knob): ...", "class Look: ...", "x.figures", "f(asked=1)",
     "for one in x: ...", "def hush(): ..."],
)  # fmt: skip
def test_every_place_of_a_name_is_seen(source):
    assert set(identifiers(ast.parse(source))) & EVERYWHERE.keys()


@pytest.mark.parametrize(
    "name", ["Initialiser", "label_colour", "optimise", "labelled", "penalised"]
)
def test_british_spelling_is_seen(name):
    assert BRITISH.search(name)


@pytest.mark.parametrize(
    "name", ["labelLimit", "analysis", "promise", "noise", "precise", "raised"]
)
def test_what_is_no_british_spelling_is_left_alone(name):
    assert not BRITISH.search(name)
