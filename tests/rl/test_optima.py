"""Problems whose optimum is known in closed form, solved by the real rounds of sampling and steps.

Expectations are sums over every answer that the policy can give, not estimates.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.seeds import derive
from rl.config import AdvantageConfig, KLConfig, PPOConfig, ShapingConfig, ValueConfig
from rl.episodes import play
from rl.roles import Roles
from tests.rl.conftest import make_ppo

BASE = PPOConfig(
    tuning=TuningConfig(method="full"),
    sampling=SamplingConfig(max_new_tokens=1),
    batch_size=256,
    minibatch_size=256,
    micro_batch_size=256,
    ppo_epochs=1,
    iterations=60,
    learning_rate=1e-2,
    value=ValueConfig(learning_rate=1e-2, clip=None),
    advantage=AdvantageConfig(lam=1.0, whiten=False),
    kl=KLConfig(coefficient=0.0),
    shaping=ShapingConfig(missing_eos="keep"),
)


class Table:
    """A scorer that knows a number for each text, after each prompt."""

    name = "table"

    def __init__(self, score):
        self.of = score

    def score(self, prompts, responses):
        return [self.of(p[0]["content"], r) for p, r in zip(prompts, responses, strict=True)]


def number(*names) -> float:
    """A number in [-1, 1] that the names determine."""
    return derive(7, *names) / 2**62 - 1


def solve(toy, config, prompts, scorer, tmp_path, seed=0):
    """The rounds of `rl.ppo.train_ppo`, without what is written and said between them."""
    torch.manual_seed(seed)
    roles = Roles(toy.artifact, config.tuning, config.value if config.has_values else None)
    encoded = {prompt[0]["content"]: roles.policy.encode(prompt) for prompt in prompts}
    roles.policy.encode = lambda prompt: list(encoded[prompt[0]["content"]])  # to save time
    ppo = make_ppo(roles, config, tmp_path)
    engine, most = NativeEngine(config.sampling), config.sampling.max_new_tokens
    asked = [prompts[n // config.group_size % len(prompts)] for n in range(config.batch_size)]
    for iteration in range(config.iterations):
        seeds = [derive(seed, iteration, n) for n in range(config.batch_size)]
        episodes = play(engine, roles.policy, asked, seeds, most)
        ppo.round(ppo.build_rollout(episodes, scorer))
    return roles


def texts(policy, most, toy):
    return [policy.decode(ids) for ids in toy.answers(policy, most)]


@pytest.mark.parametrize("estimator", ["gae", "rloo", "reinforce_pp"])
def test_a_bandit_is_solved(toy, tmp_path, estimator):
    """Twelve arms; without a penalty, the best one is taken always."""
    config = BASE.model_copy(
        update={
            "advantage": AdvantageConfig(estimator=estimator),
            "group_size": 8,
            "batch_size": 128,
            "minibatch_size": 128,
            "iterations": 20,
            "learning_rate": 2e-2,
        }
    )
    prompt = toy.prompts[0]
    roles = solve(toy, config, [prompt], Table(lambda p, r: 2 + number(r)), tmp_path)
    rewards = torch.tensor([2 + number(text) for text in texts(roles.policy, 1, toy)])
    expected = toy.distribution(roles.policy, prompt, 1) @ rewards
    assert float(expected) > 0.99 * float(rewards.max())


def test_copying_is_learnt(toy, tmp_path):
    """Say the prompt's first letter and stop; half the reward for each of the two."""

    def half_each(prompt, response):
        return 0.5 * response.startswith(prompt[0]) + 0.5 * (len(response) == 1)

    config = BASE.model_copy(
        update={
            "sampling": SamplingConfig(max_new_tokens=2),
            "advantage": AdvantageConfig(),
            "ppo_epochs": 2,
            "batch_size": 128,
            "minibatch_size": 64,
            "iterations": 25,
        }
    )
    prompts = toy.prompts[:24:7]  # aa, bb, cc, dd
    roles = solve(toy, config, prompts, Table(half_each), tmp_path)
    result = []
    for prompt in prompts:
        rewards = [half_each(prompt[0]["content"], t) for t in texts(roles.policy, 2, toy)]
        result.append(float(toy.distribution(roles.policy, prompt, 2) @ torch.tensor(rewards)))
    assert sum(result) / len(result) > 0.99


def total_variation(p, q) -> float:
    return float((p - q).abs().sum() / 2)


def tilted(reference, rewards, beta):
    """pi* = pi_ref exp(r / beta) / Z (Rafailov et al., 2023, eq. 4)."""
    weights = reference * (rewards / beta).exp()
    return weights / weights.sum()


def mode_covering(reference, rewards, beta):
    """Return the optimum of E_p[r] - beta KL(pi_ref || p): p = beta pi_ref / (l - r).

    l is the number with which p sums to 1, found by halving.
    """
    reference, rewards = reference.double(), rewards.double()
    low, high = float(rewards.max()) + 1e-9, float(rewards.max()) + beta
    for _ in range(60):
        middle = (low + high) / 2
        total = float((beta * reference / (middle - rewards)).sum())
        low, high = (middle, high) if total > 1 else (low, middle)
    return (beta * reference / (high - rewards)).float()


def test_the_closed_forms_are_optima():
    """No other distribution does better; and the two are not the same."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(5, generator=generator).softmax(0)
    rewards, beta = torch.randn(5, generator=generator), 0.5

    def forward(p):
        return float(p @ rewards - beta * (p * (p / reference).log()).sum())

    def backward(p):
        return float(p @ rewards - beta * (reference * (reference / p).log()).sum())

    for form, worth in ((tilted, forward), (mode_covering, backward)):
        best = form(reference, rewards, beta)
        assert float(best.sum()) == pytest.approx(1, abs=1e-5)
        for _ in range(100):
            other = best * (0.1 * torch.randn(5, generator=generator)).exp()
            assert worth(other / other.sum()) < worth(best)
    assert total_variation(*(f(reference, rewards, beta) for f in (tilted, mode_covering))) > 0.02


@pytest.fixture
def tiny(toy, tmp_path_factory):
    """The same with eight tokens: 57 answers of at most two."""
    folder = tmp_path_factory.mktemp("tiny")
    toy.make_model(folder, toy.make_tokenizer(letters="ab"))
    return SimpleNamespace(**{**vars(toy), "artifact": toy.as_artifact(folder)})


@pytest.mark.parametrize(
    ("estimator", "place", "kl", "most"),
    [
        ("gae", "reward", "k1", 2),
        ("rloo", "reward", "k1", 2),
        ("reinforce_pp", "reward", "k1", 1),
        ("gae", "loss", "k2", 1),
        ("rloo", "loss", "k2", 1),
        ("rloo", "loss", "k3", 1),
    ],
)
def test_with_a_penalty_the_optimum_is_the_tilted_reference(
    tiny, tmp_path, estimator, place, kl, most
):
    """All converge to it, but for k3 in the loss: that converges to `mode_covering`.

    A penalty in the loss sees each token's own KL, and not what a token does to the KL of those
    after it; so only for answers of one token is its optimum the tilted reference.
    """
    beta = 1.0 if most == 2 else 0.5
    config = BASE.model_copy(
        update={
            "sampling": SamplingConfig(max_new_tokens=most),
            # Where whitening is the only baseline, it stays.
            "advantage": BASE.advantage.model_copy(
                update={"estimator": estimator, "whiten": estimator == "reinforce_pp"}
            ),
            "kl": KLConfig(coefficient=beta, apply_to=place, estimator=kl),
            "group_size": 8,
            "ppo_epochs": 4 if most == 2 else 2,
            "iterations": 50 if most == 2 else 40,
        }
    )
    prompt = tiny.prompts[1]  # "ab"
    roles = solve(tiny, config, [prompt], Table(number), tmp_path)
    rewards = torch.tensor([number("ab", text) for text in texts(roles.policy, most, tiny)])
    reference = tiny.distribution(roles.reference, prompt, most)
    result = tiny.distribution(roles.policy, prompt, most)
    assert float(result.sum()) == pytest.approx(1, abs=1e-4)
    optimum, other = tilted(reference, rewards, beta), mode_covering(reference, rewards, beta)
    assert total_variation(reference, optimum) > 0.1  # there was a way to go
    if kl == "k3":
        optimum, other = other, optimum
    assert total_variation(result, optimum) < 0.02
    assert total_variation(result, other) > 0.02
