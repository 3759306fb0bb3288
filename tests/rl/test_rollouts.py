"""What is said of a round's responses, in as few passes as it takes."""

from __future__ import annotations

import pytest
import torch

from plumbline.data.records import user
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from rl import roles as roles_module
from rl.config import PPOConfig, RolloutConfig, ShapingConfig, ValueConfig
from rl.episodes import play
from rl.ppo import PPO, train_ppo
from rl.roles import Roles
from rl.sampler import RolloutSampler
from tests.rl.conftest import build_rollout

CONFIG = PPOConfig(
    tuning=TuningConfig(method="lora", rank=4),
    sampling=SamplingConfig(max_new_tokens=10, temperature=0.8),
    rollouts=RolloutConfig(recompute_logprobs=False),
    iterations=3,
    batch_size=8,
    minibatch_size=4,
    micro_batch_size=3,
    learning_rate=1e-2,
    value=ValueConfig(trunk="shared", head="normal", learning_rate=1e-2),
    shaping=ShapingConfig(missing_eos="keep"),
    evaluations=0,
)


class Length:
    name = "length"

    def score(self, prompts, responses):
        return [float(len(text)) for text in responses]


class Asks:
    """Has one more question, of a length of its own."""

    name, max_turns = "asks", 3

    def reply(self, dialogue):
        return user("And " + str(dialogue[-1]["content"])[:7])


def ready(folder, method, config=CONFIG):
    """Roles whose policy and value head are not what they started from; ends are frequent."""
    torch.manual_seed(0)
    made = Roles(
        Artifact(folder),
        TuningConfig(method=method),
        config.value,
    )
    with torch.no_grad():
        for parameter in made.policy_parameters.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
        made.value_head.bias.fill_(0.3)
    # A fifth of the vocabulary ends a turn: some responses are short, and dialogues go on.
    made.policy.end_ids = frozenset(range(0, len(made.tokenizer), 5)) | made.policy.end_ids
    return made


@pytest.fixture(params=["lora", "full"])
def roles(request, base_folder):
    return ready(base_folder, request.param)


def sampled(roles, prompts, config=CONFIG, environment=None):
    engine = NativeEngine(config.sampling)
    engine.value_head = roles.value_of
    most = config.sampling.max_new_tokens
    return play(engine, roles.policy, prompts[:8], range(8), most, environment=environment)


def plain(roles, episodes, recompute=False, config=CONFIG):
    """The same rollout with no value noted."""
    bare = [episode._replace(values=None) for episode in episodes]
    return build_rollout(roles, Length(), bare, config, 0.1, recompute=recompute)


def test_values_noted_while_sampling_are_those_of_a_pass(roles, prompts, monkeypatch):
    episodes = sampled(roles, prompts)
    assert len({len(episode.response_ids) for episode in episodes}) > 2
    expected = plain(roles, episodes)
    assert expected.values.std() > 0.01

    def refuse(*_):
        raise AssertionError("a pass for the values")

    monkeypatch.setattr(roles, "values", refuse)
    result = build_rollout(roles, Length(), episodes, CONFIG, 0.1, recompute=False)
    for name, one, other in zip(result._fields[1:], result[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4, msg=name)


def test_in_a_dialogue_values_stand_at_the_policy_s_own_tokens(roles, prompts):
    episodes = sampled(roles, prompts, environment=Asks())
    assert max(len(episode.turns) for episode in episodes) == 5
    result = build_rollout(roles, Length(), episodes, CONFIG, 0.1, recompute=False)
    assert not result.values[~result.batch.response_mask].any()
    torch.testing.assert_close(result.values, plain(roles, episodes).values, atol=1e-4, rtol=1e-4)


def test_in_bfloat16_they_are_off_by_its_rounding(base_folder, prompts):
    config = CONFIG.model_copy(
        update={"sampling": CONFIG.sampling.model_copy(update={"precision": "bfloat16"})}
    )
    roles = ready(base_folder, "lora")
    episodes = sampled(roles, prompts, config)
    result = build_rollout(roles, Length(), episodes, config, 0.1, recompute=False)
    exact = plain(roles, episodes).values
    error = float((result.values - exact).norm() / exact.norm())
    assert 1e-5 < error < 0.04  # states have 8 bits


def test_where_log_probabilities_are_computed_anew_so_are_values_in_the_same_pass(
    roles, prompts, monkeypatch
):
    episodes = sampled(roles, prompts)
    expected = plain(roles, episodes, recompute=True)
    torch.testing.assert_close(expected.values, plain(roles, episodes).values)
    said = roles.policy.logprobs(expected.batch, CONFIG.sampling.temperature).logprobs.detach()
    torch.testing.assert_close(expected.logprobs, said, atol=1e-5, rtol=1e-4)

    stale = [e._replace(values=[9.0] * len(e.response_ids)) for e in episodes]
    passes = []
    look = roles_module.logprobs_and_values

    def counted(model, batch, *rest, **options):
        passes.append(len(batch.response_ids))
        return look(model, batch, *rest, **options)

    monkeypatch.setattr(roles_module, "logprobs_and_values", counted)
    monkeypatch.setattr(roles.policy, "logprobs", None)
    result = build_rollout(roles, Length(), stale, CONFIG, 0.1, recompute=True)
    assert sorted(passes) == [2, 3, 3]  # each row once
    torch.testing.assert_close(result.values, expected.values)
    torch.testing.assert_close(result.logprobs, expected.logprobs)


def test_a_value_model_of_its_own_is_asked_itself(base_folder, prompts):
    config = CONFIG.model_copy(update={"value": ValueConfig(head="normal")})
    roles = ready(base_folder, "lora", config)
    stale = [
        e._replace(values=[9.0] * len(e.response_ids)) for e in sampled(roles, prompts, config)
    ]
    result = build_rollout(roles, Length(), stale, config, 0.1, recompute=False)
    torch.testing.assert_close(result.values, plain(roles, stale, config=config).values)


@pytest.mark.parametrize(
    ("update", "notes"),
    [
        ({}, True),
        ({"rollouts": RolloutConfig()}, True),
        ({"rollouts": RolloutConfig(recompute_logprobs=True)}, False),
        ({"rollouts": RolloutConfig(recompute_logprobs=False, max_staleness=1)}, False),
        ({"rollouts": RolloutConfig(engine="continuous", recompute_logprobs=False)}, False),
        ({"rollouts": RolloutConfig(), "precision": "bfloat16"}, False),
    ],
)
def test_values_are_noted_only_where_learning_will_start_from_them(toy, update, notes):
    config = CONFIG.model_copy(update=update)
    roles = Roles(toy.artifact, config.tuning, config.value)
    engine = config.rollouts.make_engine(config.sampling)
    sampler = RolloutSampler(engine, roles.policy, toy.prompts, config, seed=0)
    assert sampler.note_values(roles.value_of) is notes


@pytest.mark.parametrize("behind", [0, 1])
def test_in_training_values_are_those_of_the_weights_as_they_are(
    toy, tmp_path, monkeypatch, behind
):
    """Round by round, while trunk and head move."""
    rounds = []

    build = PPO.build_rollout

    def checked(self, episodes, scorer, *, recompute):
        result = build(self, episodes, scorer, recompute=recompute)
        with torch.no_grad():
            expected = self.roles.values(result.batch)
        torch.testing.assert_close(result.values, expected, atol=1e-4, rtol=1e-4)
        rounds.append((episodes[0].values is not None, float(expected.abs().mean())))
        return result

    monkeypatch.setattr(PPO, "build_rollout", checked)
    rollouts = RolloutConfig(recompute_logprobs=False, max_staleness=behind)
    train_ppo(
        Stage(tmp_path, Reporter(quiet=True)),
        config=CONFIG.model_copy(update={"rollouts": rollouts}),
        policy=toy.artifact,
        prompts=toy.prompts,
        scorer=Length(),
        hook=lambda *_: {},
        seed=0,
    )
    assert [noted for noted, _ in rounds] == [behind == 0] * CONFIG.iterations
    assert len({value for _, value in rounds}) == CONFIG.iterations
