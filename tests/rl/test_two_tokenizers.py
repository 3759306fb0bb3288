"""A policy with one tokenizer and template, and a reward model with others: text goes between."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from plumbline.lm.load import trainable_sequence_scorer
from plumbline.lm.save import save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from reward.calibration import Calibration
from reward.scorer import RewardModelScorer
from tests.rl.two_rounds import scores_of_two_rounds

CALIBRATED = Calibration(mean=0.3, std=1.7)
#: What the templates of the reward models write behind a response.
END = "<|im_end|>"


class Noted(RewardModelScorer):
    """A reward model that remembers what it was asked."""

    def __init__(self, folder):
        super().__init__(folder)
        self.asked = []

    def score(self, prompts, responses):
        scores = super().score(prompts, responses)
        self.asked.append((list(prompts), list(responses), scores))
        return scores


def reward_model(base, folder):
    """A reward model whose every trained weight is random."""
    folder.mkdir()
    torch.manual_seed(1)
    model = trainable_sequence_scorer(base, TuningConfig(method="lora", rank=4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(model, load_tokenizer(base), folder, source=base, card="")
    CALIBRATED.write(folder)
    return folder


@torch.no_grad()
def plainly(scorer, prompt, response):
    """The score of one text, by the template's own rendering and transformers' own pass.

    Prompt and response are tokenised apart, since a policy's first token never merges with the
    prompt's last.
    """
    render = functools.partial(scorer.tokenizer.apply_chat_template, tokenize=False)
    start = render(prompt, add_generation_prompt=True)
    whole = render([*prompt, {"role": "assistant", "content": response}])
    parts = (start, whole[len(start) : whole.rindex(END) + len(END)])
    assert "".join(parts) in whole
    ids = [n for part in parts for n in scorer.tokenizer(part, add_special_tokens=False).input_ids]
    output = scorer.model.eval()(input_ids=torch.tensor([ids])).logits[0, 0].item()
    return (output - CALIBRATED.mean) / CALIBRATED.std


@pytest.mark.parametrize("kind", ["chatml", "plain"])
def test_ppo_is_paid_what_the_reward_model_gives_the_texts(
    base_folder, model_of_kind, prompts, tmp_path, kind
):
    other = model_of_kind(kind)
    ours, theirs = load_tokenizer(base_folder), load_tokenizer(other)
    assert ours.get_vocab() != theirs.get_vocab()
    assert ours.chat_template != theirs.chat_template
    scorer = Noted(reward_model(other, tmp_path / "reward"))
    means = scores_of_two_rounds(tmp_path / "ppo", base_folder, prompts, scorer)
    assert len(scorer.asked) == len(means) == 2
    direct = RewardModelScorer(scorer.folder)
    for (asked, texts, scores), mean in zip(scorer.asked, means, strict=True):
        assert scores == pytest.approx(direct.score(asked, texts), abs=1e-4)
        expected = [plainly(direct, *pair) for pair in zip(asked, texts, strict=True)]
        assert scores == pytest.approx(expected, abs=1e-4)
        assert np.std(scores) > 1e-3  # or a constant would do
        assert mean == pytest.approx(np.mean(scores), abs=1e-5)


def test_prompts_that_the_other_template_refuses_are_known_before(model_of_kind, tmp_path):
    scorer = RewardModelScorer(reward_model(model_of_kind("strict"), tmp_path / "reward"))
    question = {"role": "user", "content": "How much is a saw?"}
    assert scorer.problem_with([question]) is None
    assert "alternate" in scorer.problem_with([question, question])
