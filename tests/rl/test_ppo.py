"""PPO as a whole: it learns what it is paid for, stays near where it is told to, and resumes."""

from __future__ import annotations

import pytest
import torch

from plumbline.artefacts import Artefact
from plumbline.generation import SamplingConfig
from plumbline.metrics import read_metrics
from plumbline.models import TuningConfig
from plumbline.progress import Reporter
from plumbline.stages import Stage
from rl.config import KLConfig, PPOConfig, ShapingConfig
from rl.ppo import train_ppo
from rl.upcoming import prompts_of_round

pytestmark = pytest.mark.slow

CONFIG = PPOConfig(
    tuning=TuningConfig(method="lora", rank=8),
    sampling=SamplingConfig(max_new_tokens=16),
    iterations=8,
    batch=32,
    minibatch=16,
    learning_rate=5e-3,
    kl=KLConfig(coefficient=0.0),
    shaping=ShapingConfig(unfinished="keep"),
    evaluations=0,
    checkpoint_every=2,
)


class LikesTheLetterE:
    """A scorer whose reward any policy can learn: the share of the letter e."""

    name = "e"

    def score(self, prompts, responses):
        return [10 * text.count("e") / max(1, len(text)) for text in responses]


def train(folder, base_folder, prompts, config, seed=0, scorer=None):
    stage = Stage(folder, Reporter(quiet=True))
    figures = train_ppo(
        stage,
        config=config,
        policy=FakeArtefact(base_folder),
        prompts=prompts,
        scorer=scorer or LikesTheLetterE(),
        hook=lambda *_: {},
        seed=seed,
    )
    return stage, figures


class FakeArtefact(Artefact):
    """A folder with a model, as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return "base-test"


@pytest.fixture(scope="module")
def many_prompts():
    from plumbline.world.data import prompts

    return prompts(0, 64, "preferences")


def test_the_policy_learns_what_it_is_paid_for(base_folder, many_prompts, tmp_path):
    config = CONFIG.model_copy(update={"iterations": 16})
    stage, _ = train(tmp_path / "a", base_folder, many_prompts, config)
    scores = [line["score"] for line in read_metrics(stage.folder / "metrics.jsonl")]
    assert len(scores) == config.iterations
    assert sum(scores[-2:]) / 2 > sum(scores[:2]) / 2 + 0.4


def test_a_strong_penalty_keeps_the_policy_at_its_reference(base_folder, many_prompts, tmp_path):
    free, tied = (
        train(
            tmp_path / str(coefficient),
            base_folder,
            many_prompts,
            CONFIG.model_copy(update={"kl": KLConfig(coefficient=coefficient)}),
        )[1]
        for coefficient in (0.0, 10.0)
    )
    assert abs(tied["kl"]) < free["kl"] / 2


def test_an_adaptive_penalty_moves_towards_its_target(base_folder, many_prompts, tmp_path):
    config = CONFIG.model_copy(update={"kl": KLConfig(coefficient=0.1, target=0.001, horizon=100)})
    _, figures = train(tmp_path / "a", base_folder, many_prompts, config)
    assert figures["kl_coefficient"] > 0.11


def test_in_the_first_minibatch_nothing_has_changed(base_folder, many_prompts, tmp_path):
    config = CONFIG.model_copy(update={"minibatch": 32, "epochs": 1, "iterations": 1})
    stage, _ = train(tmp_path / "a", base_folder, many_prompts, config)
    (line,) = read_metrics(stage.folder / "metrics.jsonl")
    assert line["ratio"] == pytest.approx(1, abs=1e-4)
    assert line["clip_fraction"] == 0
    assert line["update_kl"] == pytest.approx(0, abs=1e-6)
    assert line["kl"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("size", [4, 32])
def test_how_a_minibatch_is_cut_makes_no_difference(base_folder, many_prompts, tmp_path, size):
    config = CONFIG.model_copy(update={"iterations": 2, "micro_batch": 16})
    cut = config.model_copy(update={"micro_batch": size})
    lines = [
        read_metrics(
            train(tmp_path / name, base_folder, many_prompts, c)[0].folder / "metrics.jsonl"
        )
        for name, c in (("one", config), ("two", cut))
    ]
    for one, two in zip(*lines, strict=True):
        for figure in ("policy_loss", "value_loss", "policy_grad_norm", "entropy"):
            assert one[figure] == pytest.approx(two[figure], rel=2e-3, abs=2e-4)


def test_a_killed_training_goes_on_with_the_same_bytes(base_folder, many_prompts, tmp_path):
    whole, _ = train(tmp_path / "whole", base_folder, many_prompts, CONFIG)

    class Killed(LikesTheLetterE):
        calls = 0

        def score(self, prompts, responses):
            Killed.calls += 1
            if Killed.calls == 6:  # after the checkpoint of round 4, before that of 6
                raise KeyboardInterrupt
            return super().score(prompts, responses)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", base_folder, many_prompts, CONFIG, scorer=Killed())
    cut, _ = train(tmp_path / "cut", base_folder, many_prompts, CONFIG)
    for name in ("metrics.jsonl", "adapter_model.safetensors"):
        assert (cut.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_another_seed_is_another_run(base_folder, many_prompts, tmp_path):
    config = CONFIG.model_copy(update={"iterations": 1})
    one, two = (
        train(tmp_path / str(seed), base_folder, many_prompts, config, seed)[1] for seed in (0, 1)
    )
    assert one["score"] != two["score"]


def test_rounds_pass_over_all_prompts_before_any_comes_again():
    prompts = [[{"role": "user", "content": str(n)}] for n in range(10)]
    rounds = [prompts_of_round(prompts, 3, iteration, seed=0) for iteration in range(6)]
    first = [p[0]["content"] for r in rounds[:3] for p in r]
    assert len(set(first)) == 9
    assert rounds[3] != rounds[0]


def test_full_tuning_learns_too(base_folder, many_prompts, tmp_path):
    config = CONFIG.model_copy(
        update={"tuning": TuningConfig(method="full"), "learning_rate": 2e-3, "iterations": 6}
    )
    stage, _ = train(tmp_path / "a", base_folder, many_prompts, config)
    scores = [line["score"] for line in read_metrics(stage.folder / "metrics.jsonl")]
    assert sum(scores[-2:]) / 2 > scores[0] + 0.1
    assert torch.tensor(scores).isfinite().all()
