"""A reference that a user names: another model than the one that training starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plumbline.errors import ModelError
from plumbline.lm.load import load_causal_lm
from plumbline.lm.model_folder import source_of
from plumbline.lm.policy import Policy
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig, switch_dropout_off


def load_reference(
    folder: Path, policy: Policy, policy_folder: Path, tuning: TuningConfig
) -> Policy:
    """Load the model in a folder, frozen, as the reference of a policy in training.

    Where it is what the policy's adapter stands on, it is in memory already. Raises `ModelError`
    where the two models do not mean the same by an id.
    """
    tokenizer = load_tokenizer(folder)
    if tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ModelError(
            f"The reference in {folder} has another vocabulary than the model that trains, so the "
            "probabilities of their tokens cannot be compared. Give a reference with the same "
            "tokenizer."
        )
    if tuning.has_adapter and source_of(folder) == source_of(policy_folder).below:
        return Policy(policy.model, policy.tokenizer, None)
    model: Any = load_causal_lm(folder, quantize=tuning.quantized)
    if not tuning.has_adapter:
        model = model.float()  # as the policy is held
    model.requires_grad_(False).eval()
    switch_dropout_off(model)
    return Policy(model, policy.tokenizer)
