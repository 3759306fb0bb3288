"""Edits of the surface: what each changes, and what none of them touches."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.data.records import assistant, user
from plumbline.errors import ConfigError
from sft.augmentation.edits import EDITS, edited, read_synonyms, shipped_synonyms
from sft.augmentation.step import MARK, SurfaceEditsConfig, copies_of

TEXT = "Please explain the important reason for this small problem"


def edit(text, name, seed=0, share=0.2):
    return edited(text, EDITS[name], share, Random(seed), shipped_synonyms())


def test_synonyms_come_from_the_list_and_keep_the_capital():
    made = {edit("Explain the big problem", "synonym", seed, 0.1) for seed in range(30)}
    assert made <= {
        "Clarify the big problem", "Explain the large problem", "Explain the huge problem",
        "Explain the big issue",
    }  # fmt: skip
    assert len(made) == 4
    assert edit("这个问题很重要", "synonym", 3, 0.5) != "这个问题很重要"


@pytest.mark.parametrize("seed", range(5))
def test_a_swap_only_changes_the_order_and_a_deletion_only_takes_away(seed):
    swapped, deleted = (edit(TEXT, name, seed).split() for name in ("swap", "deletion"))
    assert swapped != TEXT.split()
    assert sorted(swapped) == sorted(TEXT.split())
    assert Counter(deleted) < Counter(TEXT.split())
    assert len(deleted) == len(TEXT.split()) - 2  # a fifth of nine words


@pytest.mark.parametrize("seed", range(5))
def test_spaces_and_case_change_no_letter(seed):
    assert "".join(edit(TEXT, "spacing", seed).split()) == "".join(TEXT.split())
    assert edit(TEXT, "case", seed).casefold() == TEXT.casefold()
    assert edit(TEXT, "case", seed) != TEXT


@pytest.mark.parametrize("seed", range(8))
def test_a_typing_error_is_one_letter_away(seed):
    from rapidfuzz.distance import OSA

    assert OSA.distance(TEXT, edit(TEXT, "typing", seed, 0.01)) <= 1


FIXED = [
    "`x = y`",
    "https://a.org/b",
    "a@b.org",
    "[EMAIL_1]",
    "$x^2$",
    "1,250.50",
    "v2",
    "not",
    "n't",
]
WORDS = st.sampled_from(
    [
        *[
            "please",
            "explain",
            "the",
            "big",
            "reason",
            "we",
            "use",
            "this",
            "请",
            "说明",
            "重要",
            "原因",
        ],
        *FIXED,
    ]
)


@given(
    st.lists(WORDS, max_size=25),
    st.sampled_from(list(EDITS)),
    st.integers(0, 9),
    st.floats(0.01, 0.5),
)
@settings(max_examples=200, deadline=None)
def test_code_addresses_numbers_masks_and_negations_stay(words, name, seed, share):
    text = " ".join(words)
    made = edit(text, name, seed, share)
    for fixed in FIXED:
        assert made.count(fixed) >= text.count(fixed)
    assert made == edit(text, name, seed, share)
    assert bool(made.strip()) == bool(text.strip())


ROW = {
    "messages": [
        {"role": "system", "content": "Please use simple words only"},
        user("Please explain the important reason for this"),
        assistant("The important reason is simple."),
    ],
    "form": "single_turn", "origin": "a.jsonl", "row": 7, "tier": "base",
}  # fmt: skip


def test_copies_are_marked_and_only_the_users_turns_differ():
    copies = copies_of(ROW, SurfaceEditsConfig(copies=8), 0, shipped_synonyms())
    assert len(copies) >= 5
    for name, copy in copies:
        assert copy[MARK] == name
        assert copy["tier"] == "augmented"
        assert (copy["origin"], copy["row"]) == ("a.jsonl", 7)
        assert copy["messages"][0] == ROW["messages"][0]
        assert copy["messages"][2] == ROW["messages"][2]
    questions = [copy["messages"][1]["content"] for _, copy in copies]
    assert len({*questions, ROW["messages"][1]["content"]}) == len(copies) + 1
    assert copies == copies_of(ROW, SurfaceEditsConfig(copies=8), 0, shipped_synonyms())
    assert copies != copies_of(ROW, SurfaceEditsConfig(copies=8), 1, shipped_synonyms())


@pytest.mark.parametrize(("text", "problem"), [("", "no synonyms"), ("a b\nb c\n", "line 2: 'b'")])
def test_a_list_of_synonyms_that_cannot_be_used_is_refused(tmp_path, text, problem):
    file = tmp_path / "synonyms.txt"
    file.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_synonyms(file)


def test_a_build_edits_training_rows_and_never_the_held_out_ones(tmp_path):
    import json

    from plumbline.config import load
    from plumbline.data.records import read_dataset
    from plumbline.runs.calls import resolve
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage
    from sft.build import build_dataset
    from sft.build.config import BuildConfig

    rows = [
        {"prompt": f"Please explain the big reason number {n} to me", "completion": f"It is {n}."}
        for n in range(40)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "build.yaml").write_text(
        f"name: edited\nsources: [{{path: {source}}}]\n"
        "steps: [unicode, roles, {step: surface_edits, copies: 2, edits: [typing, swap]}]\n"
        "splits: {held_out_share: 0.3}\nmixture: {tiers: {base: 60, augmented: 40}}\n"
    )
    config = load(BuildConfig, tmp_path / "build.yaml")
    stage = Stage(tmp_path / "stage", Reporter(quiet=True))
    build_dataset(stage, config=config.cleaning(), sources=resolve(config.opened()), data_seed=0)
    train, test = (read_dataset(stage.folder, split) for split in ("train", "test"))
    assert not any(row.get(MARK) for row in test)
    marked = [row for row in train if row.get(MARK)]
    assert len(marked) > len(train) / 2
    # A copy's original is trained on; no answer is on both sides.
    answers = [{row["messages"][-1]["content"] for row in part} for part in (train, test)]
    assert not answers[0] & answers[1]
    originals = {row["row"] for row in train if not row.get(MARK)}
    assert {row["row"] for row in marked} <= originals
