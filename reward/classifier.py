"""Sequence classifiers of other tools as reward models: their labels, and encoders that read pairs.

A reward model of ours reads a conversation by a chat template, and says what its outputs are.
Others have two labels, of which one is the good one, and encoders (BERT's kind) read prompt and
response as a pair of texts, without a template.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from plumbline.data.records import Message
from plumbline.errors import ModelError
from plumbline.lm.export import is_reward_model
from plumbline.lm.load import load_config
from plumbline.lm.model_folder import load, source_of
from plumbline.lm.tokenizer import load_tokenizer
from reward.aspects import ASPECTS
from reward.calibration import CALIBRATION


def label_weights(folder: Path, label: str | None) -> tuple[float, float] | None:
    """Return the weights of a classifier's two outputs in the reward; None for other models.

    The reward is the log-odds of the good label: its output less the other's. ``label`` is its name
    or its place; without one the second is the good one, as libraries order them. Raises
    `ModelError` where the model has no such label, or has not two.
    """
    # Ours say what their outputs are; without that they are damaged, and not somebody's classifier.
    is_ours = any((folder / file).exists() for file in (ASPECTS, CALIBRATION))
    has_own_rule = is_ours or source_of(folder).adapter is not None
    names = {} if has_own_rule else dict(getattr(load_config(folder), "id2label", None) or {})
    listed = ", ".join(f"{place} ({name})" for place, name in sorted(names.items()))
    if len(names) != 2:
        if label is None:
            return None
        raise ModelError(
            f"reward_label is {label!r}, which chooses between two labels, and the reward model "
            f"has {f'{len(names)}: {listed}' if len(names) > 2 else 'one output only'}. Leave it "
            f"out; {ASPECTS} says how several outputs make a reward."
        )
    if label is None:
        return (-1.0, 1.0)
    for place, name in names.items():
        if label.casefold() in (str(name).casefold(), str(place)):
            return (-1.0, 1.0) if int(place) == 1 else (1.0, -1.0)
    raise ModelError(f"The classifier in {folder} has no label {label!r}; it has {listed}.")


def load_scorer_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model that may be a classifier of pairs, which needs no template."""
    from transformers import AutoTokenizer

    source = source_of(folder)
    if source.adapter is None and is_reward_model(folder):
        tokenizer = load(AutoTokenizer.from_pretrained, source.base)
        if reads_pairs(tokenizer):
            return tokenizer
    return load_tokenizer(folder)


def reads_pairs(tokenizer: Any) -> bool:
    """Return whether a classifier reads pairs of texts: an encoder's tokenizer, no template."""
    return tokenizer.cls_token_id is not None and not tokenizer.chat_template


@torch.no_grad()
def score_pairs(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    responses: Sequence[str],
    weights: Sequence[float],
    batch_size: int,
) -> list[float]:
    """Return the reward of each response by a classifier of pairs, by weights of its outputs.

    The first text is the prompt, the messages of a dialogue one below the other. A pair that is too
    long for the model is cut where it is longest, as its tokenizer does.
    """
    firsts = ["\n".join(message["content"] for message in prompt) for prompt in prompts]
    order = sorted(range(len(firsts)), key=lambda row: len(firsts[row]) + len(responses[row]))
    room = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    scores = [0.0] * len(firsts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        encoded = tokenizer(
            [firsts[row] for row in rows],
            [responses[row] for row in rows],
            padding=True,
            truncation=True,
            max_length=min(room, tokenizer.model_max_length),
            return_tensors="pt",
        ).to(model.device)
        logits = model(**encoded).logits.float()
        rewards = logits @ logits.new_tensor(weights)
        for row, reward in zip(rows, rewards.tolist(), strict=True):
            scores[row] = reward
    return scores
