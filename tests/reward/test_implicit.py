"""The implicit reward: beta times the log-ratio, against transformers itself."""

from __future__ import annotations

import shutil

import pytest
import torch

from plumbline.errors import ConfigError
from plumbline.lm.chat import encode_response
from plumbline.lm.load import load_causal_lm
from plumbline.lm.tokenizer import load_tokenizer
from reward.scorers.implicit import ImplicitReward


@pytest.fixture(scope="module")
def policy_folder(base_folder, tmp_path_factory):
    """The base with weights that were moved: another policy."""
    folder = tmp_path_factory.mktemp("policy") / "model"
    shutil.copytree(base_folder, folder)
    model = load_causal_lm(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


def logprob(folder, prompt, response):
    """Return the log-probability of a whole response, by transformers' own logits."""
    model = load_causal_lm(folder).eval()
    prompt_ids, response_ids = encode_response(load_tokenizer(folder), prompt, response)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt_ids, *response_ids]])).logits[0].double()
    logprobs = logits.log_softmax(-1)
    places = range(len(prompt_ids) - 1, len(prompt_ids) + len(response_ids) - 1)
    total = sum(logprobs[p, i].item() for p, i in zip(places, response_ids, strict=True))
    return total, len(response_ids)


def test_it_is_beta_times_the_log_ratio(policy_folder, base_folder, prompts):
    responses = ["Certainly.", "The saws cost $7. Thank you!", ""]
    reward = ImplicitReward(policy_folder, base_folder, beta=0.5)
    expected, per_token = [], []
    for prompt, response in zip(prompts, responses, strict=False):
        own, tokens = logprob(policy_folder, prompt, response)
        other, _ = logprob(base_folder, prompt, response)
        expected.append(0.5 * (own - other))
        per_token.append(0.5 * (own - other) / tokens)
    assert reward.score(prompts[:3], responses) == pytest.approx(expected, abs=1e-3)
    by_token = ImplicitReward(policy_folder, base_folder, beta=0.5, per_token=True)
    assert by_token.score(prompts[:3], responses) == pytest.approx(per_token, abs=1e-3)
    assert reward.score([], []) == []


def test_its_score_knows_no_neighbour(policy_folder, base_folder, prompts):
    responses = ["Yes.", "No " * 20, "", "The saws cost $7."] * 3
    together = ImplicitReward(policy_folder, base_folder, batch_size=16).score(prompts, responses)
    alone = ImplicitReward(policy_folder, base_folder, batch_size=1).score(prompts, responses)
    assert together == pytest.approx(alone, abs=1e-4)


def test_the_same_model_twice_is_refused(base_folder):
    with pytest.raises(ConfigError, match="both the policy and the reference"):
        ImplicitReward(base_folder, base_folder)
