"""The next round's responses: whose they are, and how what is behind is corrected for."""

from __future__ import annotations

import pytest
import torch

from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.seeds import derive
from rl.config import PPOConfig, RolloutConfig, ShapingConfig
from rl.episodes import Episode
from rl.roles import Roles
from rl.sampler import RolloutSampler, prompts_of_round, prompts_that_fit
from tests.rl.conftest import build_rollout

CONFIG = PPOConfig(
    tuning=TuningConfig(method="lora", rank=4),
    sampling=SamplingConfig(max_new_tokens=12, temperature=0.9),
    iterations=3,
    batch_size=6,
    minibatch_size=6,
    shaping=ShapingConfig(missing_eos="keep"),
    rollouts=RolloutConfig(max_staleness=1, max_importance_weight=1.5),
)


@pytest.fixture
def roles(base_folder):
    torch.manual_seed(0)
    return Roles(Artifact(base_folder), CONFIG.tuning, None)


def move(roles, seed):
    """Change the policy, as learning would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in roles.policy_parameters.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def weights_of(roles):
    return {name: p.detach().clone() for name, p in roles.policy_parameters.items()}


def by_hand(roles, weights, prompts, iteration):
    """What the policy with these weights answers in a round, drawn without `RolloutSampler`."""
    for name, value in weights.items():
        roles.policy_parameters[name].data.copy_(value)
    asked = prompts_of_round(prompts, CONFIG.batch_size, iteration, seed=7)
    seeds = [derive(7, "rollout", iteration, n) for n in range(CONFIG.batch_size)]
    encoded = [roles.policy.encode(prompt) for prompt in asked]
    return roles.policy.sample(encoded, seeds, CONFIG.sampling)


def rounds(roles, prompts, config):
    """Go through all rounds, moving the policy in each; return weights and responses of each."""
    sampler = RolloutSampler(NativeEngine(config.sampling), roles.policy, prompts, config, seed=7)
    weights, drawn = [], []
    for iteration in range(config.iterations):
        weights.append(weights_of(roles))
        drawn.append(sampler.next(iteration))
        with sampler.drawing_ahead(iteration):
            move(roles, iteration)
    assert sampler.pending is None  # nothing is drawn for a round that does not come
    return sampler, weights, drawn


def test_one_step_behind_a_round_is_drawn_by_the_policy_of_the_round_before(roles, prompts):
    move(roles, 99)
    sampler, weights, drawn = rounds(roles, prompts, CONFIG)
    assert sampler.recomputes_logprobs
    drew = [weights[0], weights[0], weights[1]]
    for iteration, (episodes, by) in enumerate(zip(drawn, drew, strict=True)):
        expected = by_hand(roles, by, prompts, iteration)
        assert [e.response_ids for e in episodes] == [g.ids for g in expected]
        assert [e.logprobs for e in episodes] == [g.logprobs for g in expected]
    newest = by_hand(roles, weights[2], prompts, 2)
    assert [e.response_ids for e in drawn[2]] != [g.ids for g in newest]


def test_in_step_a_round_is_drawn_by_the_policy_as_it_is(roles, prompts):
    config = CONFIG.model_copy(update={"rollouts": RolloutConfig()})
    sampler, weights, drawn = rounds(roles, prompts, config)
    assert not sampler.recomputes_logprobs
    for iteration, (episodes, by) in enumerate(zip(drawn, weights, strict=True)):
        expected = by_hand(roles, by, prompts, iteration)
        assert [e.response_ids for e in episodes] == [g.ids for g in expected]


@pytest.mark.parametrize(
    ("max_staleness", "precision", "asked", "recomputes"),
    [
        (0, "model", None, False),
        (1, "model", None, True),
        (0, "bfloat16", None, True),
        (0, "model", True, True),
        (1, "model", False, False),
    ],
)
@pytest.mark.parametrize("how", ["as it is", "learning in bfloat16", "weights in bfloat16"])
def test_log_probabilities_are_computed_anew_where_they_must(
    roles, prompts, max_staleness, precision, asked, recomputes, how
):
    sampling = SamplingConfig(max_new_tokens=12, precision=precision)
    rollouts = RolloutConfig(max_staleness=max_staleness, recompute_logprobs=asked)
    learning = "bfloat16" if how == "learning in bfloat16" else "model"
    config = CONFIG.model_copy(
        update={"rollouts": rollouts, "sampling": sampling, "precision": learning}
    )
    if how != "as it is":
        recomputes = asked is not False
    if how == "weights in bfloat16":
        roles.model.bfloat16()
    engine = NativeEngine(sampling)
    sampler = RolloutSampler(engine, roles.policy, prompts, config, seed=0)
    assert sampler.recomputes_logprobs is recomputes


class Ones:
    name = "ones"

    def score(self, prompts, responses):
        return [1.0] * len(responses)


def test_correction_weights_are_those_by_hand(roles, prompts):
    """Per token min(p_now / p_then, cap), both from the model's logits at the temperature."""
    config = CONFIG.model_copy(update={"advantage": CONFIG.advantage.model_copy(
        update={"estimator": "reinforce_pp"})})  # fmt: skip
    sampler = RolloutSampler(NativeEngine(config.sampling), roles.policy, prompts, config, seed=7)
    sampler.next(0)
    then = weights_of(roles)
    with sampler.drawing_ahead(0):
        move(roles, 1)
    episodes = sampler.next(1)
    now = weights_of(roles)
    recompute = sampler.recomputes_logprobs
    rollout = build_rollout(roles, Ones(), episodes, config, recompute=recompute)

    ratios = []
    for row, episode in enumerate(episodes):
        new, old = (logprobs_by_hand(roles, weights, episode) for weights in (now, then))
        ratio = (new - old).exp()
        ratios.append(ratio)
        width = len(episode.response_ids)
        expected = ratio.clamp(max=1.5)
        torch.testing.assert_close(
            rollout.importance_weights[row, :width], expected, atol=1e-3, rtol=1e-3
        )
        torch.testing.assert_close(rollout.logprobs[row, :width], new, atol=1e-4, rtol=1e-4)
        assert (rollout.importance_weights[row, width:] == 1).all()
    every = torch.cat(ratios)
    assert (every > 1.5).any()  # the cap is met, and so is what lies below it
    assert ((every - 1).abs() > 0.05).any()
    assert (every < 1).any()


def logprobs_by_hand(roles, weights, episode: Episode):
    for name, value in weights.items():
        roles.policy_parameters[name].data.copy_(value)
    ids = torch.tensor([*episode.prompt_ids, *episode.response_ids])
    with torch.no_grad():
        logits = roles.model(input_ids=ids[None]).logits[0]
    said = (logits / CONFIG.sampling.temperature).log_softmax(-1)
    return said[:-1].gather(1, ids[1:, None])[len(episode.prompt_ids) - 1 :, 0]


def test_what_is_pending_is_taken_and_not_drawn_again(roles, prompts):
    class Never(NativeEngine):
        def sample(self, *_):
            raise AssertionError("nothing is to be drawn")

    pending = [Episode(list(p), [1], [2], [True], [-1.0], True, []) for p in prompts[:6]]
    sampler = RolloutSampler(Never(CONFIG.sampling), roles.policy, prompts, CONFIG, seed=7)
    sampler.load_state_dict({"pending": [list(episode) for episode in pending]})
    assert sampler.next(1) == pending
    assert sampler.state_dict() == {"pending": [list(episode) for episode in pending]}


@pytest.mark.parametrize(("size", "count"), [(31, 16), (10, 3), (7, 7), (5, 4)])
def test_no_prompt_comes_twice_before_all_came_once(size, count):
    prompts = [[{"role": "user", "content": str(n)}] for n in range(size)]
    asked = [
        prompt[0]["content"]
        for iteration in range(4 * size)
        for prompt in prompts_of_round(prompts, count, iteration, seed=3)
    ]
    passes = [asked[start : start + size] for start in range(0, len(asked), size)]
    assert all(len(set(one)) == size for one in passes)
    assert len({tuple(one) for one in passes}) > size  # in another order each time


class Deaf:
    """A scorer whose template refuses prompts with a system turn."""

    name = "deaf"

    def score(self, prompts, responses):
        return [0.0 for _ in responses]

    def problem_with(self, prompt):
        return "cannot be scored: no system turns" if prompt[0]["role"] == "system" else None


def test_prompts_that_cannot_be_answered_or_scored_are_left_out_before_the_first_round(
    roles, prompts, stage
):
    system = [{"role": "system", "content": "Be short."}, *prompts[0]]
    long = [{"role": "user", "content": "word " * 300}]
    mixed = [prompts[0], system, prompts[1], long, *prompts[2:8]]
    fitting = prompts_that_fit(stage, roles.policy, [Deaf()], mixed, CONFIG)
    assert list(fitting) == [prompts[0], prompts[1], *prompts[2:8]]
    reasons = {row["row"]: row["reason"] for row in Dropped.read(stage.folder).rows}
    assert reasons[2] == "cannot be scored: no system turns"
    assert "max_new_tokens: 12" in reasons[4]
    assert prompts_that_fit(stage, roles.policy, [], mixed, CONFIG)[1] == system
    with pytest.raises(DataError, match=r"Prompts to train on: 1; .*cannot be scored"):
        prompts_that_fit(stage, roles.policy, [Deaf()], [prompts[0], system], CONFIG)
