"""PPO as a whole: it learns what it is paid for, stays near where it is told to, and resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from plumbline.errors import ConfigError, ModelError
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from rl.advantages import ADVANTAGE_ESTIMATORS
from rl.config import (
    AdvantageConfig,
    GuardConfig,
    KLConfig,
    LossConfig,
    PPOConfig,
    RolloutConfig,
    ShapingConfig,
    ValueConfig,
)
from rl.losses import POLICY_LOSSES
from rl.ppo import PPO, train_ppo
from rl.sampler import prompts_of_round

pytestmark = pytest.mark.slow

CONFIG = PPOConfig(
    tuning=TuningConfig(method="lora", rank=4),
    sampling=SamplingConfig(max_new_tokens=6),
    iterations=8,
    batch_size=32,
    minibatch_size=16,
    learning_rate=2e-2,
    value=ValueConfig(learning_rate=1e-2),
    kl=KLConfig(coefficient=0.0),
    shaping=ShapingConfig(missing_eos="keep"),
    evaluations=0,
    checkpoint_every=2,
)


class LikesTheLetterE:
    """A scorer whose reward any policy can learn: the share of the letter e."""

    name = "e"

    def score(self, prompts, responses):
        return [4 * text.count("e") / max(1, len(text)) for text in responses]


class Killed(LikesTheLetterE):
    """The same, until it has scored some rounds."""

    def __init__(self, rounds):
        self.left = rounds

    def score(self, prompts, responses):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().score(prompts, responses)


@pytest.fixture
def train(toy, tmp_path):
    """Train the toy policy in a folder of its own; return the stage and its figures."""

    def run(config=CONFIG, *, name="a", seed=0, scorer=None, **options):
        stage = Stage(tmp_path / name, Reporter(quiet=True))
        figures = train_ppo(
            stage,
            config=config,
            policy=toy.artifact,
            prompts=toy.prompts,
            scorer=scorer or LikesTheLetterE(),
            hook=options.pop("hook", lambda *_: {}),
            seed=seed,
            **options,
        )
        return stage, figures

    return run


def changed(**update) -> PPOConfig:
    return CONFIG.model_copy(update=update)


def lines(stage):
    return read_metrics(stage.folder / "metrics.jsonl")


def gain(stage) -> float:
    """How much the score rose: last two rounds over first two."""
    scores = [line["score"] for line in lines(stage)]
    assert torch.tensor(scores).isfinite().all()
    return sum(scores[-2:]) / 2 - sum(scores[:2]) / 2


@pytest.mark.parametrize("kind", list(POLICY_LOSSES))
@pytest.mark.parametrize("estimator", list(ADVANTAGE_ESTIMATORS))
def test_every_estimator_learns_with_every_loss(train, estimator, kind):
    config = changed(
        advantage=AdvantageConfig(estimator=estimator),
        loss=LossConfig(kind=kind),
        group_size=4,
        iterations=6,
    )
    stage, _ = train(config)
    assert len(lines(stage)) == config.iterations
    assert gain(stage) > 0.3


#: What else may vary, one at a time.
FEATURES = {
    "plain": {},
    "full tuning": {"tuning": TuningConfig(method="full"), "learning_rate": 1e-2},
    "shared trunk": {"value": ValueConfig(trunk="shared")},
    "normal head": {"value": ValueConfig(head="normal", learning_rate=1e-2)},
    "k2 in the loss": {"kl": KLConfig(coefficient=0.01, apply_to="loss", estimator="k2")},
    "k3 in the loss": {"kl": KLConfig(coefficient=0.01, apply_to="loss")},
    "moving reference": {"kl": KLConfig(coefficient=0.01, reference_decay=0.5)},
    "reject": {"shaping": ShapingConfig(missing_eos="reject")},
    "one step behind": {"rollouts": RolloutConfig(max_staleness=1)},
    "dual clip": {"loss": LossConfig(dual_clip=3.0)},
    "entropy": {"loss": LossConfig(entropy=0.001)},
    "filters": {"sampling": SamplingConfig(max_new_tokens=6, temperature=0.8, top_k=8)},
}


@pytest.mark.parametrize("feature", FEATURES)
def test_it_learns_with_every_feature(train, feature):
    stage, _ = train(changed(iterations=6, **FEATURES[feature]))
    assert gain(stage) > 0.3


def test_in_a_warm_up_only_the_value_model_learns(train, toy):
    config = changed(value=ValueConfig(warm_up=2), iterations=2)
    stage, _ = train(config)
    start, end = Policy.load(toy.folder), Policy.load(stage.folder)
    ids = torch.tensor([[6, 7, 8]])
    torch.testing.assert_close(end.model(ids).logits, start.model(ids).logits)
    assert "policy_grad_norm" not in lines(stage)[-1]
    assert lines(stage)[-1]["value_grad_norm"] > 0


def test_a_strong_penalty_keeps_the_policy_at_its_reference(train):
    free, tied, loss = (
        train(changed(kl=kl), name=str(n))[1]["kl"]
        for n, kl in enumerate(
            (
                KLConfig(coefficient=0.0),
                KLConfig(coefficient=10.0),
                KLConfig(coefficient=10.0, apply_to="loss", estimator="k2"),
            )
        )
    )
    assert abs(tied) < free / 2
    assert abs(loss) < free / 2


def test_a_reference_that_follows_is_nearer(train):
    fixed, moving = (
        train(changed(kl=KLConfig(coefficient=0.0, reference_decay=decay)), name=str(decay))[1]
        for decay in (None, 0.2)
    )
    assert moving["kl"] < fixed["kl"] / 2


def test_an_adaptive_penalty_moves_towards_its_target(train):
    _, figures = train(changed(kl=KLConfig(coefficient=0.1, target=0.001, horizon=100)))
    assert figures["kl_coefficient"] > 0.11


BUDGET = {"kl": KLConfig(coefficient=0.0, max_kl=4.2), "schedule": "constant"}


def test_beyond_its_budget_training_ends_with_the_policy_of_the_round_before(train):
    stage, figures = train(changed(**BUDGET))
    rounds = int(figures["rounds"])
    assert 0 < rounds < CONFIG.iterations - 1
    # Up to the round that went too far, all is as without a budget.
    free = {"kl": KLConfig(coefficient=0.0), "schedule": "constant"}
    other, _ = train(changed(iterations=rounds, **free), name="within")
    name = "adapter_model.safetensors"
    assert (stage.folder / name).read_bytes() == (other.folder / name).read_bytes()
    # The policy that drew the last round was within, and the one after it was not.
    longer, _ = train(changed(iterations=rounds + 2, **free), name="beyond")
    kl = [line["kl"] for line in lines(longer)]
    assert max(kl[: rounds + 1]) <= 4.2 < kl[rounds + 1]


def test_in_the_first_minibatch_nothing_has_changed(train):
    stage, _ = train(changed(minibatch_size=32, ppo_epochs=1, iterations=1))
    (line,) = lines(stage)
    assert line["ratio"] == pytest.approx(1, abs=1e-4)
    assert line["clip_fraction"] == 0
    assert line["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert line["kl"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("size", [4, 32])
def test_how_a_minibatch_is_cut_makes_no_difference(train, size):
    one, two = (
        lines(train(changed(iterations=2, micro_batch_size=s), name=str(s))[0])
        for s in (16, size + 1)
    )
    for first, second in zip(one, two, strict=True):
        for figure in ("policy_loss", "value_loss", "policy_grad_norm", "entropy"):
            assert first[figure] == pytest.approx(second[figure], rel=2e-3, abs=2e-4)


RESUMED = FEATURES | {
    "budget": BUDGET,
    "adaptive": {"kl": KLConfig(coefficient=0.1, target=0.1, horizon=100)},
    "groups": {"group_size": 4, "advantage": AdvantageConfig(estimator="grpo")},
    "spikes": {"guards": GuardConfig(approx_kl=1e-4)},
    "behind and following": {
        "rollouts": RolloutConfig(max_staleness=1),
        "kl": KLConfig(coefficient=0.1, reference_decay=0.9, max_kl=50.0),
    },
}


@pytest.mark.parametrize(
    ("feature", "every"),
    [
        ("plain", 1),
        ("plain", 2),
        ("full tuning", 1),
        ("shared trunk", 1),
        ("moving reference", 1),
        ("one step behind", 2),
        ("budget", 1),
        ("budget", 2),
        ("adaptive", 1),
        ("groups", 1),
        ("spikes", 2),
        ("behind and following", 1),
    ],
)
def test_however_often_it_is_killed_it_ends_with_the_same_bytes(train, feature, every):
    rounds = 3 if every == 1 and feature != "budget" else 4
    config = changed(**{"iterations": rounds, "checkpoint_every": every} | RESUMED[feature])
    whole, _ = train(config, name="whole")
    kills = 0
    # Each attempt dies in the round behind a checkpoint or, where these are every second round,
    # one later: a round is then gone through twice.
    while True:
        try:
            cut, _ = train(config, name="cut", scorer=Killed(every + every // 2))
        except KeyboardInterrupt:
            kills += 1
            continue
        break
    assert kills >= 1 + (every == 1)
    files = {p.relative_to(whole.folder): p for p in whole.folder.rglob("*") if p.is_file()}
    assert {p.relative_to(cut.folder) for p in cut.folder.rglob("*") if p.is_file()} == set(files)
    for name, file in files.items():
        assert (cut.folder / name).read_bytes() == file.read_bytes(), name


def test_another_seed_is_another_run(train):
    one, two = (train(changed(iterations=1), name=str(s), seed=s)[1]["score"] for s in (0, 1))
    assert one != two


def test_a_spike_s_step_is_not_taken(train, toy):
    """With a guard that allows nothing, only a round's very first step is ever taken."""
    config = changed(guards=GuardConfig(approx_kl=1e-9), iterations=1, ppo_epochs=1)
    stage, _ = train(config)
    (line,) = lines(stage)
    assert line["skipped"] == 0.5  # of two minibatches
    traces = (stage.folder / "traces/round-1.jsonl").read_text("utf-8").splitlines()
    assert len(traces) == 16
    assert set(json.loads(traces[0])) >= {"reason", "prompt", "response", "log_ratio", "advantages"}


@pytest.mark.parametrize("action", ["skip", "stop"])
def test_a_round_of_one_step_is_looked_at_behind_it(train, toy, action):
    """There is no earlier step of the round that a guard could see."""
    config = changed(
        guards=GuardConfig(approx_kl=0.01, action=action),
        iterations=2,
        ppo_epochs=1,
        minibatch_size=32,
        learning_rate=1.0,
        advantage=AdvantageConfig(estimator="rloo"),
        group_size=4,
    )
    if action == "stop":
        with pytest.raises(ModelError, match=r"Round 1: .*approx_kl allows 0\.01"):
            train(config)
        return
    stage, figures = train(config)
    assert [line["skipped"] for line in lines(stage)] == [1.0, 1.0]
    assert figures["steps"] == 0
    assert (stage.folder / "traces/round-1.jsonl").exists()
    ids = torch.tensor([[6, 7, 8]])
    start, end = Policy.load(toy.folder), Policy.load(stage.folder)
    torch.testing.assert_close(end.model(ids).logits, start.model(ids).logits)
    # A step that does not lead far is taken, and counted.
    small, figures = train(config.model_copy(update={"learning_rate": 1e-5}), name="small")
    assert figures["steps"] == 2
    assert not (small.folder / "traces").exists()


def test_a_round_of_one_step_that_was_taken_back_leaves_no_trace_in_the_optimizer(train):
    """What is skipped in the first round is as if it had not been: the second is the same."""
    narrow = GuardConfig(approx_kl=0.01)
    config = changed(
        guards=narrow,
        iterations=2,
        ppo_epochs=1,
        minibatch_size=32,
        learning_rate=1.0,
        schedule="linear",
    )
    kept = []
    real = PPO.update

    def update(self, rollout):
        metrics = real(self, rollout)
        kept.append([len(learner.optimizer.state) for learner in self.learners.values()])
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PPO, "update", update)
        train(config)
    assert kept == [[0, 0], [0, 0]]


def test_steps_are_counted_where_they_are_taken_and_a_round_without_one_is_said(train, monkeypatch):
    stage, figures = train(changed(iterations=2))
    assert figures["steps"] == 2 * 2 * 2
    assert not any("warning/no_step" in line for line in lines(stage))
    real = PPO.build_rollout

    def rejecting(*arguments, **named):
        rollout = real(*arguments, **named)
        return rollout._replace(mask=rollout.mask & False)

    monkeypatch.setattr(PPO, "build_rollout", rejecting)
    stage, figures = train(changed(iterations=2), name="rejected")
    assert figures["steps"] == 0
    assert all(line["warning/no_step"] == 1 for line in lines(stage))


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"kl": {"coefficient": 0.0, "target": 1.0}}, "would stay there"),
        ({"kl": {"target": 1.0, "horizon": 12}}, "0 or less"),
        ({"value": {"start": "reward", "head": "normal"}}, "needs start: policy"),
    ],
)
def test_settings_without_the_effect_they_ask_for_are_refused(update, said):
    with pytest.raises(ValueError, match=said.replace(" ", r"\s")):
        PPOConfig(**update)


def test_two_watched_scorers_of_one_name_are_refused(train):
    with pytest.raises(ConfigError, match="one name"):
        train(watched=[LikesTheLetterE(), LikesTheLetterE()])


def test_a_spike_ends_training_where_it_is_told_to(train):
    config = changed(guards=GuardConfig(approx_kl=1e-9, action="stop"))
    with pytest.raises(ModelError, match=r"Round 1: .*approx_kl allows 1e-09"):
        train(config)


def test_scores_that_are_no_numbers_do_not_reach_the_weights(train, toy):
    class Broken(LikesTheLetterE):
        def score(self, prompts, responses):
            return [float("nan")] * len(responses)

    stage, _ = train(changed(iterations=2), scorer=Broken())
    assert all(line["skipped"] == 1 for line in lines(stage))
    ids = torch.tensor([[6, 7, 8]])
    start, end = Policy.load(toy.folder), Policy.load(stage.folder)
    torch.testing.assert_close(end.model(ids).logits, start.model(ids).logits)


def test_a_gamed_reward_is_warned_of(train):
    class HatesIt(LikesTheLetterE):
        name = "gold"

        def score(self, prompts, responses):
            return [-score for score in super().score(prompts, responses)]

    config = changed(guards=GuardConfig(window=2))
    stage, figures = train(config, watched=[HatesIt()])
    last = lines(stage)[-1]
    assert last["watched/gold"] == pytest.approx(-last["score"])
    assert last["warning/watched/gold"] == 1
    assert figures["warnings"] >= 1


def test_responses_are_cut_at_a_stop_token(train):
    seen = []

    class Sees(LikesTheLetterE):
        def score(self, prompts, responses):
            seen.extend(responses)
            return super().score(prompts, responses)

    train(changed(iterations=1, shaping=ShapingConfig(stop_at="b")), scorer=Sees())
    assert any(text.endswith("b") for text in seen)
    assert not any("b" in text[:-1] for text in seen)
    with pytest.raises(ConfigError, match="2 tokens"):
        train(changed(shaping=ShapingConfig(stop_at="ab")), name="two")


def test_the_hook_judges_before_and_during_training(train):
    asked = []

    def hook(policy, reference, step, folder):
        asked.append(step)
        return {"judged": float(step)}

    stage, _ = train(changed(iterations=4, evaluations=2), hook=hook)
    assert asked == [0, 2, 4]
    assert (stage.folder / "checkpoints/step-2/adapter_model.safetensors").exists()
    assert [line["judged"] for line in lines(stage) if "judged" in line] == [0.0, 2.0, 4.0]


def test_rounds_pass_over_all_prompts_before_any_comes_again():
    prompts = [[{"role": "user", "content": str(n)}] for n in range(10)]
    rounds = [prompts_of_round(prompts, 3, iteration, seed=0) for iteration in range(6)]
    first = [p[0]["content"] for r in rounds[:3] for p in r]
    assert len(set(first)) == 9
    assert rounds[3] != rounds[0]


def test_the_settings_in_the_documentation_are_valid():
    text = (Path(__file__).parents[2] / "docs/ppo.md").read_text("utf-8")
    blocks = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    made = [PPOConfig(**YAML(typ="safe").load(block)) for block in blocks]
    assert len(made) == 8
    # The first is said to be the default.
    assert made[0].model_copy(update={"kl": KLConfig()}) == PPOConfig()
    assert (made[0].kl_in_loss, made[0].kl_estimator) == (False, "k1")
