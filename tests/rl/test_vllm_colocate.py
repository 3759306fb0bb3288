"""vLLM in the training's process: whose weights it samples with, and when it sleeps.

No vLLM is here. A small module (`tests.vllm_module`) stands in for it.
"""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from plumbline.errors import ConfigError, ModelError
from plumbline.lm.engines import vllm_colocate
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.load import load_causal_lm
from plumbline.lm.policy import Policy
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from rl.config import PPOConfig, RolloutConfig
from rl.roles import Roles
from tests import vllm_module
from tests.rl.test_engines import CONFIG, train

SAMPLING = SamplingConfig(max_new_tokens=12, temperature=0.8)
COLOCATE = RolloutConfig(engine="vllm", mode="colocate")


@pytest.fixture
def vllm(monkeypatch, tmp_path):
    """Put the stand-in for vLLM in place, as a test wants it."""

    def start(**how):
        folder = tmp_path / "packages"
        folder.mkdir()
        return vllm_module.install(monkeypatch, folder, **how)

    return start


@pytest.fixture
def lora(base_folder):
    """A policy that is an adapter and differs from its base."""
    torch.manual_seed(0)
    roles = Roles(Artifact(base_folder), TuningConfig(method="lora", rank=4))
    move(roles.policy)
    return roles.policy


@pytest.fixture
def full(base_folder, tokenizer):
    """A policy all of whose weights differ from those on the disk."""
    policy = Policy(load_causal_lm(base_folder).eval(), tokenizer)
    move(policy)
    return policy


@pytest.fixture(params=["lora", "full"])
def policy(request):
    return request.getfixturevalue(request.param)


def move(policy):
    """Change what trains, as learning would."""
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if not hasattr(policy.model, "peft_config") or f".{policy.adapter}." in name:
                parameter.add_(0.1 * torch.randn_like(parameter))


def draw(engine, policy, prompts):
    return engine.sample(policy, [policy.encode(prompt) for prompt in prompts], range(len(prompts)))


def assert_same(theirs, ours):
    assert [g.ids for g in theirs] == [g.ids for g in ours]
    assert [g.finished for g in theirs] == [g.finished for g in ours]
    for one, other in zip(theirs, ours, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("sleeps", [True, False])
def test_it_draws_what_our_own_loop_draws_after_each_refresh(policy, prompts, vllm, sleeps):
    """Adapters and whole weights reach it, and nothing that it remembers is of older ones."""
    vllm(sleeps=sleeps)
    engine, own = COLOCATE.make_engine(SAMPLING), NativeEngine(SAMPLING)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    engine.refresh(policy, 0)
    assert torch.rand(1) == expected  # starting vLLM leaves our random streams alone
    before = draw(engine, policy, prompts)
    assert_same(before, draw(own, policy, prompts))
    move(policy)
    assert draw(engine, policy, prompts) == before  # only a refresh brings weights
    engine.release()
    engine.refresh(policy, 1)
    after = draw(engine, policy, prompts)
    assert_same(after, draw(own, policy, prompts))
    assert [g.logprobs for g in after] != [g.logprobs for g in before]


def test_each_adapter_has_a_name_of_its_own_and_the_last_is_dropped(lora, prompts, vllm):
    seen = vllm()
    engine, names = COLOCATE.make_engine(SAMPLING), []
    for iteration in range(3):
        engine.refresh(lora, iteration)
        names += [name for name, _ in seen.llm.adapters.values()]
        engine.release()
    assert len(set(names)) == len(names) == 3
    assert [folder.name for folder in engine._folder.iterdir()] == names[-1:]


@pytest.mark.parametrize(("method", "behind"), [("lora", 1), ("full", 0)])
def test_training_with_it_is_training_with_our_own_loop(
    base_folder, tmp_path, vllm, method, behind
):
    """And it sleeps while the policy learns: weights awake, new ones in, cache awake, sleep."""
    seen = vllm()
    tuning = TuningConfig(method=method, **({"rank": 4} if method == "lora" else {}))
    config = CONFIG.model_copy(update={"tuning": tuning, "learning_rate": 1e-3})
    ours, theirs = (
        read_metrics(
            train(
                tmp_path / mode,
                base_folder,
                config.model_copy(
                    update={"rollouts": rollouts.model_copy(update={"max_staleness": behind})}
                ),
            ).folder
            / "metrics.jsonl"
        )
        for mode, rollouts in (("native", RolloutConfig()), ("colocate", COLOCATE))
    )
    for own, vllms in zip(ours, theirs, strict=True):
        for figure in ("score", "kl", "tokens"):
            assert vllms[figure] == pytest.approx(own[figure], rel=1e-3, abs=1e-3)
    given = "adapter" if method == "lora" else "weights"
    first = [given, "sample", "sleep 1"]  # it starts awake
    later = ["wake weights", given, "wake kv_cache", "sample", "sleep 1"]
    assert seen.events == first + (CONFIG.iterations - 1) * later


def test_settings_reach_it(lora, prompts, vllm, monkeypatch):
    seen = vllm()
    config = RolloutConfig(engine="vllm", mode="colocate", gpu_memory=0.45, enforce_eager=True)
    engine = config.make_engine(SamplingConfig(max_new_tokens=4, precision="bfloat16"))
    monkeypatch.setattr(vllm_colocate, "number_of_processes", lambda: 2)
    monkeypatch.setattr(vllm_colocate, "join", lambda: None)
    engine.refresh(lora, 0)
    wanted = {
        "gpu_memory_utilization": 0.45,
        "enforce_eager": True,
        "dtype": "bfloat16",
        "enable_lora": True,
        "max_lora_rank": 8,  # the least that vLLM knows and 4 fits in
        "logprobs_mode": "processed_logprobs",
        "distributed_executor_backend": "external_launcher",
    }
    assert {name: seen.options[name] for name in wanted} == wanted


def message(run) -> str:
    with pytest.raises((ModelError, ConfigError)) as caught:
        run()
    return str(caught.value)


def test_without_vllm_the_error_says_what_to_install(monkeypatch):
    (check,) = COLOCATE.checks_before_work()
    said = message(check)
    assert "pip install 'vllm>=0.32,<0.34' && pip install 'transformers>=5.23,<6'" in said
    assert "rollouts.mode to server" in said
    assert message(lambda: COLOCATE.make_engine(SAMPLING)) == said


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("0.31.2", "vLLM is 0.31.2 here"),
        ("0.34.0", "vLLM is 0.34.0 here"),
        ("0.33.0", "no GPU, which vLLM 0.33.0 needs"),
    ],
)
def test_another_version_or_device_is_refused(vllm, version, says):
    vllm(version=version)
    (check,) = COLOCATE.checks_before_work()
    assert says in message(check)


def test_shared_weights_are_refused(vllm, monkeypatch):
    vllm()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("PLUMBLINE_SHARDING", "fsdp2")
    assert "--launch ddp" in message(lambda: COLOCATE.make_engine(SAMPLING))


def test_errors_of_vllm_s_say_what_was_asked(lora, prompts, vllm):
    seen = vllm(free_memory=0.2)
    engine = COLOCATE.make_engine(SAMPLING)
    said = message(lambda: engine.refresh(lora, 0))
    assert "rollouts.gpu_memory is 0.3" in said
    assert "Free memory on device" in said
    seen.free_memory = 1.0
    engine.refresh(lora, 0)
    seen.llm.model_config.max_model_len = 20
    assert "vLLM has memory for 20" in message(lambda: draw(engine, lora, prompts))
    seen.llm.model_config.max_model_len = 256
    seen.gives_logprobs = False
    assert "how likely each was" in message(lambda: draw(engine, lora, prompts))


def test_what_it_cannot_do_is_refused_with_the_settings():
    with pytest.raises(ValidationError, match="weights reach vLLM"):
        PPOConfig(rollouts=COLOCATE, tuning=TuningConfig(method="dora"))
    with pytest.raises(ValidationError, match=r"top_k is 5, but the engine"):
        PPOConfig(rollouts=COLOCATE, sampling=SamplingConfig(top_k=5))
    PPOConfig(rollouts=COLOCATE, tuning=TuningConfig(method="full"))


def test_continuous_batching_is_refused_on_a_gpu(monkeypatch):
    config = RolloutConfig(engine="continuous")
    (check,) = config.checks_before_work()
    check()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "Set rollouts.engine to native" in message(check)
    assert message(lambda: config.make_engine(SAMPLING)) == message(check)
