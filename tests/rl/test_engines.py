"""Engines: whoever draws, the tokens are the policy's, and what differs is corrected for.

No vLLM is here. A small server (`tests.vllm_server`) speaks its protocol.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from plumbline.errors import BusyError, ModelError
from plumbline.lm.batches import collate, pad_right
from plumbline.lm.engines.continuous import ContinuousEngine
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.engines.server_use import FORGET, RELOAD
from plumbline.lm.engines.table import ENGINES
from plumbline.lm.engines.vllm import VLLMEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.load import load_causal_lm
from plumbline.lm.policy import Policy
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from rl.config import KLConfig, PPOConfig, RolloutConfig, ShapingConfig
from rl.ppo import PPO, train_ppo
from rl.roles import Roles
from tests.rl.conftest import build_rollout

SAMPLING = SamplingConfig(max_new_tokens=12)


@pytest.fixture
def roles(base_folder):
    """Roles whose policy differs from its base."""
    torch.manual_seed(0)
    made = Roles(Artifact(base_folder), TuningConfig(method="lora", rank=4))
    with torch.no_grad():
        for parameter in made.policy_parameters.values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def engine_for(server, sampling=SAMPLING, **options):
    config = RolloutConfig(engine="vllm", url=server.url, **options)
    return VLLMEngine(sampling, config.server, waits=(0.01, 0.01))


# --- Every engine. ------------------------------------------------------------------------------


def make_engine(config, sampling=SAMPLING):
    return config.make_engine(sampling)


def test_the_config_names_the_engine():
    assert set(ENGINES) == {"native", "continuous", "vllm"}
    assert isinstance(make_engine(RolloutConfig()), NativeEngine)
    assert isinstance(make_engine(RolloutConfig(engine="continuous")), ContinuousEngine)
    vllm = make_engine(RolloutConfig(engine="vllm", url="http://127.0.0.1:9"))
    assert isinstance(vllm, VLLMEngine)
    assert vllm.remote


@pytest.mark.parametrize("kind", ["native", "continuous", "vllm"])
def test_log_probabilities_are_the_policy_s(kind, roles, prompts, serve):
    """Of the policy as it is, adapter and temperature included, and not of its base."""
    sampling = SamplingConfig(max_new_tokens=12, temperature=0.8)
    if kind == "vllm":
        engine = engine_for(serve(), sampling)
    else:
        engine = make_engine(RolloutConfig(engine=kind), sampling)
    asked = [roles.policy.encode(prompt) for prompt in prompts]
    engine.refresh(roles.policy, 0)
    drawn = engine.sample(roles.policy, asked, range(len(asked)))
    assert len(drawn) == len(asked)
    batch = collate(asked, [generation.ids for generation in drawn], roles.policy.pad_id)
    said = pad_right([g.logprobs for g in drawn], batch.response_mask.shape[1])
    ours = roles.policy.logprobs(batch, 0.8).logprobs
    torch.testing.assert_close(said, ours, atol=1e-4, rtol=1e-4)
    theirs = roles.reference.logprobs(batch, 0.8).logprobs
    assert not torch.allclose(said, theirs, atol=1e-2)
    for generation in drawn:
        ended = generation.ids[-1] in roles.policy.end_ids
        assert generation.finished == ended
        assert ended or len(generation.ids) == 12


def test_continuous_batching_ends_responses_and_leaves_no_trace(roles, prompts):
    # All weight on the end token: every response must be that token alone.
    (end,) = roles.policy.end_ids
    head = roles.model.get_output_embeddings()
    head.register_forward_hook(lambda _m, _i, out: out.index_fill(-1, torch.tensor([end]), 99.0))
    roles.model.train()
    state, attention = torch.get_rng_state(), roles.model.config._attn_implementation
    asked = [roles.policy.encode(prompt) for prompt in prompts[:3]]
    drawn = ContinuousEngine(SAMPLING).sample(roles.policy, asked, [1, 2, 3])
    assert [(g.ids, g.finished) for g in drawn] == [([end], True)] * 3
    assert torch.equal(torch.get_rng_state(), state)
    assert roles.model.training
    assert roles.model.config._attn_implementation == attention


CONTINUOUS = RolloutConfig(engine="continuous")
VLLM = RolloutConfig(engine="vllm", url="http://127.0.0.1:9")


@pytest.mark.parametrize("rollouts", [CONTINUOUS, VLLM], ids=["continuous", "vllm"])
@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (SamplingConfig(top_k=5), r"top_k is 5, but the engine"),
        (SamplingConfig(top_p=0.9), r"top_p is 0\.9, but the engine"),
        (SamplingConfig(precision="bfloat16"), "a vLLM server as it was started"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_before_anything_runs(rollouts, sampling, message):
    with pytest.raises(ValidationError, match=message):
        PPOConfig(rollouts=rollouts, sampling=sampling)


def test_a_server_needs_its_address_and_weights_that_it_can_load():
    with pytest.raises(ValidationError, match=r"set rollouts\.url to the server's address"):
        PPOConfig(rollouts=RolloutConfig(engine="vllm"))
    assert PPOConfig(rollouts=VLLM, tuning=TuningConfig(method="full")).rollouts == VLLM
    with pytest.raises(ValidationError, match=r"tuning\.method is ia3"):
        PPOConfig(rollouts=VLLM, tuning=TuningConfig(method="ia3"))


# --- The server's engine. -----------------------------------------------------------------------


def test_a_server_draws_what_our_own_loop_draws(roles, prompts, serve):
    """Seeds, prompts, order and end tokens arrive as they were meant."""
    asked = [roles.policy.encode(prompt) for prompt in prompts]
    seeds = [2**63 + 5, *range(1, len(asked))]
    engine = engine_for(serve())
    engine.refresh(roles.policy, 0)
    theirs = engine.sample(roles.policy, asked, seeds)
    ours = NativeEngine(SAMPLING).sample(roles.policy, asked, [5, *seeds[1:]])
    assert [g.ids for g in theirs] == [g.ids for g in ours]
    assert [g.finished for g in theirs] == [g.finished for g in ours]


def test_each_refresh_brings_new_weights_under_a_new_name(roles, prompts, serve):
    server = serve()
    engine = engine_for(server)
    asked = [roles.policy.encode(prompts[0])]
    engine.refresh(roles.policy, 0)
    (before,) = engine.sample(roles.policy, asked, [0])
    with torch.no_grad():
        for parameter in roles.policy_parameters.values():
            parameter.neg_()
            parameter.mul_(3)
    (stale,) = engine.sample(roles.policy, asked, [0])
    assert stale.logprobs == before.logprobs  # only a refresh sends weights
    engine.refresh(roles.policy, 1)
    (after,) = engine.sample(roles.policy, asked, [0])
    assert after.logprobs != before.logprobs
    loads = [body for path, body in server.seen if path == "/v1/load_lora_adapter"]
    assert len({body["lora_name"] for body in loads}) == 2
    assert len(server.models) == 1  # the old one is unloaded
    assert not Path(loads[0]["lora_path"]).exists()
    assert Path(loads[1]["lora_path"]).exists()


def test_a_relative_folder_is_told_to_the_server_whole(roles, serve, tmp_path, monkeypatch):
    """The server runs elsewhere, and reads what this process wrote."""
    monkeypatch.chdir(tmp_path)
    server = serve()
    engine_for(server, adapters=Path("adapters")).refresh(roles.policy, 0)
    (load,) = (body for path, body in server.seen if path == "/v1/load_lora_adapter")
    assert Path(load["lora_path"]).is_absolute()


def test_what_is_lost_on_the_way_is_asked_for_again(roles, prompts, serve):
    server = serve()
    engine = engine_for(server)
    engine.refresh(roles.policy, 0)
    asked = [roles.policy.encode(prompt) for prompt in prompts[:4]]
    whole = engine.sample(roles.policy, asked, range(4))
    server.fails = 2
    assert engine.sample(roles.policy, asked, range(4)) == whole


def message(run) -> str:
    with pytest.raises(ModelError) as caught:
        run()
    return str(caught.value)


def test_errors_say_what_to_do(roles, prompts, serve):
    policy, asked = roles.policy, [roles.policy.encode(prompts[0])]

    closed = serve()
    closed.close()
    said = message(lambda: engine_for(closed).refresh(policy, 0))
    assert "No vLLM server answers" in said
    assert "tried 3 times" in said

    forbidden = serve(runtime_loading=False)
    said = message(lambda: engine_for(forbidden).refresh(policy, 0))
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in said

    other = engine_for(serve(), model="another/base")
    said = message(lambda: other.refresh(policy, 0))
    assert "serves" in said
    assert "another/base" in said

    small = engine_for(serve(context=20))
    small.refresh(policy, 0)
    said = message(lambda: small.sample(policy, asked, [0]))
    assert "--max-model-len" in said
    assert "max_new_tokens (12)" in said

    tight = engine_for(serve(context=len(asked[0]) + 5))
    tight.refresh(policy, 0)
    said = message(lambda: tight.sample(policy, asked, [0]))
    assert "cut a response after 5 of 12 tokens" in said
    assert "--max-model-len" in said

    paused = serve()
    engine = engine_for(paused)
    engine.refresh(policy, 0)
    paused.ends_by = "abort"
    assert "broke a response off (abort)" in message(lambda: engine.sample(policy, asked, [0]))

    elsewhere = engine_for(serve())
    elsewhere._post = lambda path, body: VLLMEngine._post(
        elsewhere, path, body | {"lora_path": "/of/another/machine"}
    )
    assert "must be able to read" in message(lambda: elsewhere.refresh(policy, 0))

    old = engine_for(serve(says_ids=False))
    assert "return_token_ids" in message(lambda: old.refresh(policy, 0))

    forgetful = serve()
    engine = engine_for(forgetful)
    engine.refresh(policy, 0)
    forgetful.models.clear()
    assert "lost the policy's adapter" in message(lambda: engine.sample(policy, asked, [0]))

    busy = engine_for(serve(fails=99))
    assert "overloaded" in message(lambda: busy.refresh(policy, 0))

    raw = engine_for(serve(processed=False), SamplingConfig(temperature=0.5))
    assert "--logprobs-mode processed_logprobs" in message(lambda: raw.refresh(policy, 0))


@pytest.fixture
def whole(base_folder, tokenizer):
    """A policy all of whose weights train, and have moved."""
    torch.manual_seed(0)
    model = load_causal_lm(base_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Policy(model, tokenizer)


def test_each_refresh_replaces_all_weights_and_the_end_brings_them_back(whole, prompts, serve):
    server = serve()
    engine = engine_for(server)
    asked = [whole.encode(prompt) for prompt in prompts]
    for _ in range(2):
        with torch.no_grad():
            whole.model.get_output_embeddings().weight.mul_(1.5)
        server.keeps_prefixes = 1  # as where somebody is answered still
        engine.refresh(whole, 0)
        theirs = engine.sample(whole, asked, range(len(asked)))
        ours = NativeEngine(SAMPLING).sample(whole, asked, range(len(asked)))
        assert [g.ids for g in theirs] == [g.ids for g in ours]
    assert not list(engine._folder.iterdir())
    del engine
    gc.collect()
    loads = [body["kwargs"]["weights_path"] for path, body in server.seen if path == RELOAD]
    assert len(loads) == 3
    assert loads[-1] == server.base
    assert server.seen[-2][0] == FORGET
    assert server.label == "default"


def test_one_training_alone_replaces_weights_and_several_send_adapters(roles, whole, serve):
    server = serve()
    adapted = [engine_for(server) for _ in range(2)]
    for engine in adapted:
        engine.refresh(roles.policy, 0)
    with pytest.raises(BusyError, match="Another training uses the server"):
        engine_for(server).refresh(whole, 0)
    del adapted, engine
    gc.collect()
    alone = engine_for(server)
    alone.refresh(whole, 0)
    for other in (roles.policy, whole):
        with pytest.raises(BusyError, match="start a second server"):
            engine_for(server).refresh(other, 0)


def test_other_weights_than_the_policy_s_are_found(roles, whole, serve, tmp_path):
    """A server that has the base's name, and was left with the weights of another training."""
    with torch.no_grad():
        whole.model.get_output_embeddings().weight.mul_(10)
    whole.model.save_pretrained(tmp_path)
    engine = engine_for(serve(weighs=tmp_path))
    assert "computes with other weights" in message(lambda: engine.refresh(roles.policy, 0))
    killed = serve()
    killed.label = "plumbline-1-7"
    with pytest.raises(ModelError, match=r"did not come to its end \(plumbline-1-7\)"):
        engine_for(killed).refresh(roles.policy, 0)


def test_weights_that_the_server_passes_over_are_found(whole, serve):
    """As vLLM does with weights that a file lacks."""
    server = serve()
    engine = engine_for(server)
    engine.refresh(whole, 0)
    server._read = lambda folder: server.models["tiny"]  # the old weights
    with torch.no_grad():
        whole.model.get_output_embeddings().weight.mul_(3)
    assert "computes with other weights" in message(lambda: engine.refresh(whole, 1))


def test_a_server_on_a_cpu_would_keep_the_head_of_tied_embeddings(whole, serve):
    """As vLLM 0.32 did."""
    server = serve()
    server.device = "cpu"
    engine_for(server).refresh(whole, 0)  # of a model with a head of its own
    gc.collect()
    whole.model.get_output_embeddings().weight = whole.model.get_input_embeddings().weight
    assert "keeps the old output head" in message(lambda: engine_for(server).refresh(whole, 0))


def test_the_last_adapter_leaves_with_its_training(roles, serve):
    server = serve()
    engine = engine_for(server)
    engine.refresh(roles.policy, 0)
    assert len(server.models) == 1
    del engine
    gc.collect()
    assert server.models == {}


def test_a_server_that_takes_no_weights_is_said(whole, serve):
    server = serve(development=False)
    assert "VLLM_SERVER_DEV_MODE=1" in message(lambda: engine_for(server).refresh(whole, 0))
    stubborn = serve()
    stubborn.keeps_prefixes = 9
    assert "old weights computed" in message(lambda: engine_for(stubborn).refresh(whole, 0))


# --- Training with a server. --------------------------------------------------------------------

CONFIG = PPOConfig(
    tuning=TuningConfig(method="lora", rank=4),
    sampling=SamplingConfig(max_new_tokens=12),
    iterations=3,
    batch_size=8,
    minibatch_size=4,
    learning_rate=5e-3,
    ppo_epochs=1,
    kl=KLConfig(coefficient=0.0),
    shaping=ShapingConfig(missing_eos="keep"),
    evaluations=0,
    checkpoint_every=2,
)


class LikesTheLetterE:
    name = "e"

    def score(self, prompts, responses):
        return [10 * text.count("e") / max(1, len(text)) for text in responses]


class FakeArtifact(Artifact):
    @property
    def id(self) -> str:
        return "base-test"


def train(folder, base_folder, config, scorer=None):
    from plumbline.world.data import prompts

    stage = Stage(folder, Reporter(quiet=True))
    train_ppo(
        stage,
        config=config,
        policy=FakeArtifact(base_folder),
        prompts=prompts(0, 32, "preferences"),
        scorer=scorer or LikesTheLetterE(),
        hook=lambda *_: {},
        seed=0,
    )
    return stage


def with_server(server, max_staleness=0, **more):
    rollouts = RolloutConfig(engine="vllm", url=server.url, max_staleness=max_staleness)
    return CONFIG.model_copy(update={"rollouts": rollouts, **more})


def test_training_with_a_server_is_training_with_our_own_loop(base_folder, tmp_path, serve):
    ours, theirs = (
        read_metrics(train(tmp_path / name, base_folder, config).folder / "metrics.jsonl")
        for name, config in (("native", CONFIG), ("vllm", with_server(serve())))
    )
    for own, vllm in zip(ours, theirs, strict=True):
        for figure in ("score", "kl", "tokens"):
            assert vllm[figure] == pytest.approx(own[figure], rel=1e-3, abs=1e-3)


def test_a_server_s_other_arithmetic_is_corrected_for(roles, prompts, serve):
    """Its log-probabilities are off by 0.05, so each token weighs exp(-0.05)."""
    from rl.episodes import play

    engine = engine_for(serve(blur=0.05))
    engine.refresh(roles.policy, 0)
    episodes = play(engine, roles.policy, prompts, range(len(prompts)), 12)
    rollout = build_rollout(roles, LikesTheLetterE(), episodes, CONFIG, recompute=True)
    weights = rollout.importance_weights[rollout.mask]
    torch.testing.assert_close(weights, torch.full_like(weights, 0.9512294), atol=1e-4, rtol=1e-4)
    ours = roles.policy.logprobs(rollout.batch).logprobs
    torch.testing.assert_close(rollout.logprobs, ours, atol=1e-5, rtol=1e-4)


def test_one_step_behind_the_server_draws_while_we_learn(base_folder, tmp_path, serve, monkeypatch):
    """Learning waits here for the server: drawn one after the other, it would wait in vain."""
    server, rounds = serve(), []

    def update(self, rollout):
        rounds.append(self.iteration)
        if len(rounds) < CONFIG.iterations:  # after the last round, nothing is left to draw
            wanted, patience = (len(rounds) + 1) * CONFIG.batch_size, time.monotonic() + 60
            while server.answered < wanted and time.monotonic() < patience:
                time.sleep(0.01)
            assert server.answered == wanted
        return real(self, rollout)

    real = PPO.update
    monkeypatch.setattr(PPO, "update", update)
    train(tmp_path / "a", base_folder, with_server(server, max_staleness=1))
    assert rounds == list(range(CONFIG.iterations))
    assert server.answered == CONFIG.iterations * CONFIG.batch_size


def test_what_was_drawn_ahead_survives_a_kill(base_folder, tmp_path, serve):
    config = with_server(serve(), max_staleness=1, iterations=5)
    whole = train(tmp_path / "whole", base_folder, config)

    class Killed(LikesTheLetterE):
        calls = 0

        def score(self, prompts, responses):
            self.calls += 1
            if self.calls == 4:  # after the checkpoint of round 2, before that of round 4
                raise KeyboardInterrupt
            return super().score(prompts, responses)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", base_folder, config, Killed())
    pending = Stage(tmp_path / "cut", Reporter(quiet=True)).checkpoints.load()
    assert len(pending["parts"]["sampler"]["pending"]) == config.batch_size
    other = serve()  # the first one is gone, and all that it held
    again = config.model_copy(
        update={"rollouts": config.rollouts.model_copy(update={"url": other.url})}
    )
    cut = train(tmp_path / "cut", base_folder, again)
    # Rounds 4 and 5; the third was in the checkpoint.
    assert other.answered == 2 * config.batch_size
    for name in ("metrics.jsonl", "adapter_model.safetensors"):
        assert (cut.folder / name).read_bytes() == (whole.folder / name).read_bytes()
