"""Another model than the policy's start as the reference of DPO."""

from __future__ import annotations

import shutil

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from plumbline.errors import ConfigError, ModelError
from plumbline.lm.given_reference import load_reference
from plumbline.lm.load import load_causal_lm, trainable_causal_lm
from plumbline.lm.policy import Policy
from plumbline.lm.save import save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from preference.batches import PairExample, collate_pairs
from preference.config import DPOConfig
from preference.dpo import train_dpo
from preference.reference import PolicyAndReference
from recipes.train_dpo import TrainDPOConfig
from recipes.train_ppo import TrainPPOConfig

TUNINGS = {"lora": TuningConfig(rank=4), "full": TuningConfig(method="full")}
PROMPT, CHOSEN, REJECTED = [5, 6, 7, 8], [9, 10, 11], [12, 13]


def shaken(folder, out, tuning, seed):
    """Save a model with other weights than it had."""
    torch.manual_seed(seed)
    model = trainable_causal_lm(folder, tuning)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    out.mkdir()
    save_model(model, load_tokenizer(folder), out, source=folder, card="")
    return out


@pytest.fixture(scope="module")
def models(base_folder, tmp_path_factory):
    """A base, two whole models of the same architecture, and an adapter on the base."""
    place = tmp_path_factory.mktemp("references")
    return {
        "base": base_folder,
        "other": shaken(base_folder, place / "other", TUNINGS["full"], 1),
        "adapter": shaken(base_folder, place / "adapter", TUNINGS["lora"], 2),
    }


def plain_sums(model) -> torch.Tensor:
    """Return the log-probability of either response, by the definition."""
    sums = []
    for response in (CHOSEN, REJECTED):
        ids = torch.tensor([PROMPT + response])
        with torch.no_grad():
            logprobs = model(ids).logits.float().log_softmax(-1)[0]
        first = len(PROMPT)
        sums.append(sum(logprobs[first - 1 + n, token] for n, token in enumerate(response)))
    return torch.stack(sums)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(
    ("start", "reference"),
    [("base", "other"), ("other", "base"), ("adapter", "base"), ("base", "adapter")],
)
def test_the_reference_is_the_model_that_was_given(models, method, start, reference):
    folder = models[reference]
    plain = (
        load_causal_lm(folder).merge_and_unload()
        if reference == "adapter"
        else AutoModelForCausalLM.from_pretrained(folder)
    )
    tokenizer = load_tokenizer(models[start])
    roles = PolicyAndReference(models[start], TUNINGS[method], tokenizer, folder)
    example = PairExample(PROMPT, CHOSEN, REJECTED)
    pairs = collate_pairs([example])["pairs"]
    sums = roles.sums(pairs.branches, pairs.tokens, None)
    torch.testing.assert_close(sums[0], plain_sums(plain), atol=2e-4, rtol=0)
    assert (sums[0] - plain_sums(load_causal_lm(models[start]))).abs().max() > 1e-2
    trained = {id(p) for p in roles.model.parameters() if p.requires_grad}
    own = roles.start.model
    assert own is roles.model or not trained & {id(p) for p in own.parameters()}


def test_what_the_policy_s_adapter_stands_on_is_not_loaded_twice(models):
    tokenizer = load_tokenizer(models["adapter"])
    roles = PolicyAndReference(models["adapter"], TUNINGS["lora"], tokenizer, models["base"])
    assert roles.start.model is roles.model and roles.start.adapter is None


def test_cached_numbers_are_those_of_one_reference(models):
    tokenizer = load_tokenizer(models["base"])
    digests = {
        PolicyAndReference(models["base"], TUNINGS["lora"], tokenizer, given).digest()
        for given in (None, models["other"], models["adapter"])
    }
    assert len(digests) == 3


def test_a_reference_with_another_vocabulary_is_refused(models, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(models["other"], other)
    tokenizer = load_tokenizer(other)
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(other)
    policy = Policy(load_causal_lm(models["base"]), load_tokenizer(models["base"]))
    with pytest.raises(ModelError, match="another vocabulary"):
        load_reference(other, policy, models["base"], TUNINGS["lora"])


@pytest.mark.parametrize(
    ("dpo", "said"),
    [({"loss": "simpo"}, "no reference"), ({"reference": {"kind": "moving"}}, "follow the policy")],
)
def test_a_reference_without_an_effect_is_refused(dpo, said):
    values = {"model": "m", "data": "d", "reference": "r", "dpo": dpo}
    with pytest.raises(ValidationError, match=said):
        TrainDPOConfig.model_validate(values)
    with pytest.raises(ConfigError, match=said):
        train_dpo(
            None, config=DPOConfig.model_validate(dpo), policy=None, preferences=None, hook=None,
            seed=0, reference=object(),
        )  # fmt: skip


def test_ppo_s_reference_cannot_be_given_and_follow():
    values = {"model": "m", "data": "d", "reward": "w", "reference": "r"}
    with pytest.raises(ValidationError, match="follow the policy"):
        TrainPPOConfig.model_validate(values | {"ppo": {"kl": {"reference_decay": 0.9}}})
