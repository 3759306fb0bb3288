"""Mistakes that others have made in this algorithm, and that show in no error message.

Each test fails where the code makes the mistake that its name says (docs/ppo.md lists them).
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from plumbline.lm.batches import collate
from plumbline.lm.chat import encode_response
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.load import load_causal_lm, trainable_causal_lm
from plumbline.lm.policy import Policy
from plumbline.lm.save import save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from reward.scorer import RewardModelScorer
from rl.checkpoints import restore_checkpoint, save_checkpoint
from rl.config import AdvantageConfig, KLConfig, LossConfig, PPOConfig, ShapingConfig
from rl.episodes import Episode, play
from rl.learner import Learner
from rl.losses import REDUCTIONS
from rl.metrics import RunningMeans
from rl.micro_batches import MicroBatches
from rl.roles import Roles
from tests.rl.conftest import build_rollout, make_ppo

CONFIG = PPOConfig(
    tuning=TuningConfig(method="full"),
    sampling=SamplingConfig(max_new_tokens=5),
    batch_size=8,
    minibatch_size=8,
    kl=KLConfig(coefficient=0.0),
    shaping=ShapingConfig(missing_eos="keep"),
)
LORA = TuningConfig(method="lora", rank=2)


class Length:
    """A scorer of how much is said."""

    name = "length"

    def score(self, prompts, responses):
        return [float(len(text)) for text in responses]


def sampled(roles, toy, config):
    seeds = range(config.batch_size)
    asked = [toy.prompts[n] for n in seeds]
    engine, most = NativeEngine(config.sampling), config.sampling.max_new_tokens
    return play(engine, roles.policy, asked, list(seeds), most)


def answered(policy, prompt, ids, finished=True):
    """An episode with a response of our choice."""
    text = {"role": "assistant", "content": policy.decode(ids)}
    return Episode(
        prompt, policy.encode(prompt), ids, [True] * len(ids), [0.0] * len(ids), finished, [text]
    )


@torch.no_grad()
def plainly(model, prompt_ids, ids, temperature=1.0):
    """The log-probability of each token of one response, by transformers alone, unpadded."""
    logits = model(input_ids=torch.tensor([[*prompt_ids, *ids]])).logits[0]
    said = (logits / temperature).log_softmax(-1)
    return torch.stack([said[len(prompt_ids) + n - 1, token] for n, token in enumerate(ids)])


@pytest.fixture
def roles(toy):
    torch.manual_seed(0)
    return Roles(toy.artifact, CONFIG.tuning, CONFIG.value)


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reward")


@pytest.fixture
def scorer(toy, reward_folder):
    """A reward model that numbers letters the other way round than the policy does."""
    from transformers import AutoModelForSequenceClassification

    if not (reward_folder / "config.json").exists():
        tokenizer = toy.make_tokenizer(letters="fedcba")
        toy.make_model(reward_folder, tokenizer, seed=1)
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(reward_folder, num_labels=1)
        model.save_pretrained(reward_folder)
    return RewardModelScorer(reward_folder)


def test_a_reward_model_trained_on_joint_text_but_scored_on_concatenated_ids(toy, scorer):
    """One function makes the ids of both, so that a reward model scores what it was trained on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    seen = []
    prompt = toy.prompts[3]
    scorer.outputs = lambda ids, mask: seen.append(ids) or [0.0]
    scorer.raw_scores([prompt], ["fa"])
    whole = scorer.tokenizer.apply_chat_template(
        [*prompt, {"role": "assistant", "content": "fa"}], return_dict=True
    )
    assert seen[0][0].tolist() == whole["input_ids"]

    # "b" + "c" across the border would be one token together, which no policy produces: training
    # and scoring see the prompt's ids and then the response's own.
    names = ["<|pad|>", "<|eos|>", "a", "b", "c", "bc"]
    plain = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [("b", "c")]))
    plain.pre_tokenizer = pre_tokenizers.Metaspace(split=False, prepend_scheme="never")
    plain.decoder = decoders.Fuse()
    merging = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<|pad|>",
        eos_token="<|eos|>",
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    )
    user = [{"role": "user", "content": "ab"}]
    assert encode_response(merging, user, "a") == ([2, 3], [2, 1])
    assert encode_response(merging, user, "c") == ([2, 3], [4, 1])


def test_a_kl_that_ignores_the_temperature(toy, roles):
    config = CONFIG.model_copy(
        update={"sampling": SamplingConfig(max_new_tokens=5, temperature=0.5)}
    )
    episodes = sampled(roles, toy, config)
    rollout = build_rollout(roles, Length(), episodes, config, 0.1, recompute=False)
    # The policy is its own reference, so nothing separates them, at whatever temperature.
    torch.testing.assert_close(rollout.kl, torch.zeros(8), atol=1e-4, rtol=0)
    for row, episode in enumerate(episodes):
        expected = plainly(roles.model, episode.prompt_ids, episode.response_ids, 0.5)
        width = len(episode.response_ids)
        torch.testing.assert_close(
            rollout.reference_logprobs[row, :width], expected, atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(rollout.logprobs[row, :width], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("filters", [{"top_k": 2}, {"top_p": 0.5}])
def test_log_probabilities_after_the_logits_processors(toy, roles, filters):
    config = CONFIG.model_copy(update={"sampling": SamplingConfig(max_new_tokens=5, **filters)})
    for episode in sampled(roles, toy, config):
        expected = plainly(roles.model, episode.prompt_ids, episode.response_ids)
        torch.testing.assert_close(torch.tensor(episode.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_padding_that_equals_the_end_token(toy, tmp_path, roles):
    """Masks made from ids would lose the end token, and the policy never learn to stop."""
    tokenizer = toy.make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    toy.make_model(tmp_path, tokenizer)
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token_id != loaded.eos_token_id

    end = roles.tokenizer.eos_token_id
    episodes = [answered(roles.policy, toy.prompts[0], ids) for ids in ([6, end], [7, 7, 7, end])]
    roles.policy.pad_id = end  # even then, padding is known by length
    rollout = build_rollout(roles, Length(), episodes, CONFIG, 0.0, recompute=True)
    assert rollout.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert rollout.batch.attention_mask[:, -4:].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_a_critic_that_is_not_checkpointed(toy, stage, roles):
    ppo = make_ppo(roles, CONFIG, kl_coefficient=0.3)
    ppo.iteration = 2
    batch = collate([[6, 7, 8]], [[9, 10]], roles.policy.pad_id)
    for _ in range(2):
        roles.values(batch).sub(1).square().sum().backward()
        ppo.learners["value"].step()
    expected = roles.values(batch).detach()
    assert expected.abs().sum() > 0
    save_checkpoint(stage, 2, {"ppo": ppo})

    torch.manual_seed(5)
    fresh = Roles(toy.artifact, CONFIG.tuning, CONFIG.value)
    other = make_ppo(fresh, CONFIG)
    restore_checkpoint(stage, {"ppo": other})
    assert (other.iteration, other.kl_coefficient) == (2, 0.3)
    torch.testing.assert_close(fresh.values(batch), expected)
    moments = [
        sum(float(s["exp_avg_sq"].sum()) for s in which.learners["value"].optimizer.state.values())
        for which in (ppo, other)
    ]
    assert moments[0] == moments[1] > 0


def test_a_reward_model_with_another_tokenizer_than_the_policy(toy, roles, scorer):
    """What is handed over is text: the policy's ids mean something else to the reward model."""
    config = CONFIG.model_copy(update={"batch_size": 2, "minibatch_size": 2})
    end = roles.tokenizer.eos_token_id
    episodes = [
        answered(roles.policy, prompt, [6, 8, end]) for prompt in (toy.prompts[1], toy.prompts[9])
    ]
    rollout = build_rollout(roles, scorer, episodes, config, 0.0, recompute=True)
    for row, prompt in enumerate((toy.prompts[1], toy.prompts[9])):
        text = [*prompt, {"role": "assistant", "content": "ac"}]
        ids = scorer.tokenizer.apply_chat_template(text, return_dict=True)["input_ids"]
        assert ids != [*episodes[row].prompt_ids, *episodes[row].response_ids]
        with torch.no_grad():
            expected = scorer.model(input_ids=torch.tensor([ids])).logits[0, 0]
        torch.testing.assert_close(rollout.scores[row], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tuning", [TuningConfig(method="full"), LORA], ids=["merged", "adapter"])
def test_a_reference_that_drifts(toy, tmp_path, tuning):
    """Going on from an adapter: the reference is that policy, before and after it is trained."""
    model = trainable_causal_lm(toy.folder, LORA)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(model, load_tokenizer(toy.folder), tmp_path, source=toy.folder, card="")
    start = load_causal_lm(tmp_path)
    roles = Roles(toy.as_artifact(tmp_path), tuning, CONFIG.value)
    batch = collate([[6, 7, 8]], [[9, 10, 11]], roles.policy.pad_id)
    expected = plainly(start, [6, 7, 8], [9, 10, 11])
    base = plainly(load_causal_lm(toy.folder), [6, 7, 8], [9, 10, 11])
    assert not torch.allclose(expected, base, atol=1e-2)

    def said(role):
        return role.logprobs(batch).logprobs[0].detach()

    for role in (roles.policy, roles.reference):
        torch.testing.assert_close(said(role), expected, atol=1e-5, rtol=1e-4)
    learner = Learner(roles.policy_parameters, 0.05, CONFIG)
    critic = Learner(roles.value_parameters, 0.05, CONFIG)
    for _ in range(3):
        (-roles.policy.logprobs(batch).logprobs.sum()).backward()
        roles.values(batch).sub(1).square().sum().backward()
        learner.step()
        critic.step()
    save_model(roles.model, roles.tokenizer, tmp_path / "out", source=tmp_path, card="")
    assert float((said(roles.policy) - expected).abs().max()) > 0.01
    torch.testing.assert_close(said(roles.reference), expected, atol=1e-5, rtol=1e-4)
    assert float(roles.values(batch).detach().abs().sum()) > 0.01
    saved = Policy.load(tmp_path / "out")
    torch.testing.assert_close(said(saved), said(roles.policy), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reduction", list(REDUCTIONS))
@pytest.mark.parametrize("kind", ["clip", "gspo"])
def test_gradient_accumulation_that_changes_the_loss(toy, roles, reduction, kind):
    """A mean over each part weighs the tokens of a part with few of them more."""
    config = CONFIG.model_copy(
        update={
            "loss": LossConfig(kind=kind, reduction=reduction, entropy=0.1),
            "kl": KLConfig(coefficient=0.1, apply_to="loss", estimator="k2"),
        }
    )
    episodes = sampled(roles, toy, config)
    assert len({len(episode.response_ids) for episode in episodes}) > 1
    ppo = make_ppo(roles, config, kl_coefficient=0.1)
    rollout = ppo.build_rollout(episodes, Length())
    result = []
    for size in (8, 3, 1):
        cut = config.model_copy(update={"micro_batch_size": size})
        ppo.micro_batches = MicroBatches(roles, cut, ppo.learners.values())
        loss, _ = ppo.accumulate_gradients(rollout, RunningMeans())
        grads = [
            p.grad.flatten()
            for learner in ppo.learners.values()
            for p in learner.parameters.values()
            if p.grad is not None
        ]
        result.append((float(loss), torch.cat(grads).clone()))
        for learner in ppo.learners.values():
            learner.zero_grad()
    for loss, gradient in result[1:]:
        assert loss == pytest.approx(result[0][0], rel=1e-4, abs=1e-6)
        torch.testing.assert_close(gradient, result[0][1], atol=1e-5, rtol=1e-3)


def test_a_last_partial_batch_is_refused():
    with pytest.raises(ValidationError, match="last partial minibatch"):
        PPOConfig(batch_size=10, minibatch_size=4)
    with pytest.raises(ValidationError, match="partial group"):
        PPOConfig(
            batch_size=8,
            minibatch_size=8,
            group_size=3,
            advantage=AdvantageConfig(estimator="rloo"),
        )


def test_a_padding_id_that_was_sampled_in_mid_answer(toy, roles):
    pad, end = roles.tokenizer.pad_token_id, roles.tokenizer.eos_token_id
    ids = [6, pad, 7, end]
    episodes = [answered(roles.policy, toy.prompts[n], i) for n, i in enumerate((ids, [6, end]))]
    rollout = build_rollout(roles, Length(), episodes, CONFIG, 0.0, recompute=True)
    assert rollout.mask[0].all()
    expected = plainly(roles.model, episodes[0].prompt_ids, ids)
    torch.testing.assert_close(rollout.logprobs[0], expected, atol=1e-5, rtol=1e-4)
    assert episodes[0].scored_turn[1] == "a<|pad|>b"  # whoever scores it sees it


def test_position_ids_that_count_padding_on_the_left(toy, roles):
    """Prompts of unlike length: each row must be as it is alone."""
    prompts = [[3, 6, 1, 4], [3, 6, 7, 8, 9, 10, 11, 6, 1, 4]]
    batch = collate(prompts, [[7, 8, 1], [9, 1]], roles.policy.pad_id)
    result = roles.policy.logprobs(batch).logprobs
    learner = Learner(roles.value_parameters, 0.05, CONFIG)
    roles.values(batch).sub(1).square().sum().backward()
    learner.step()
    values = roles.values(batch)
    for row, ids in enumerate(([7, 8, 1], [9, 1])):
        width = len(ids)
        torch.testing.assert_close(
            result[row, :width], plainly(roles.model, prompts[row], ids), atol=1e-5, rtol=1e-4
        )
        alone = roles.values(collate([prompts[row]], [ids], roles.policy.pad_id))
        torch.testing.assert_close(values[row, :width], alone[0], atol=1e-5, rtol=1e-4)
    short, long = roles.policy.sample(prompts, [1, 2], CONFIG.sampling)
    (alone,) = roles.policy.sample(prompts[:1], [1], CONFIG.sampling)
    assert short.ids == alone.ids
    torch.testing.assert_close(
        torch.tensor(long.logprobs),
        plainly(roles.model, prompts[1], long.ids),
        atol=1e-4,
        rtol=1e-4,
    )


def test_an_end_reward_on_the_wrong_token(toy, roles):
    """The score belongs to the end token, or to the last token where the answer was cut."""
    end = roles.tokenizer.eos_token_id
    config = CONFIG.model_copy(update={"advantage": AdvantageConfig(lam=0.0, whiten=False)})
    episodes = [
        answered(roles.policy, toy.prompts[0], [6, 7, end]),
        answered(roles.policy, toy.prompts[1], [6, 7, 8, 9, 10], finished=False),
        answered(roles.policy, toy.prompts[2], [end]),
    ]
    rollout = build_rollout(roles, Length(), episodes, config, 0.0, recompute=True)
    # Values are 0 and lambda is 0, so the advantage is the reward of each token.
    expected = [[0, 0, 2, 0, 0], [0, 0, 0, 0, 5], [0, 0, 0, 0, 0]]
    assert rollout.advantages.tolist() == expected
    assert rollout.mask[2].tolist() == [True, False, False, False, False]


def test_dropout_that_makes_ratios_random(toy):
    """Adapters with dropout, each of them: policy, value and reference say the same twice."""
    tuning = TuningConfig(method="lora", rank=2, dropout=0.5)
    roles = Roles(toy.artifact, tuning, CONFIG.value, moving_reference=True)
    batch = collate([[6, 7, 8]], [[9, 10, 11]], roles.policy.pad_id)
    with torch.no_grad():
        roles.value_head.weight.normal_()
        for name, parameter in roles.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    roles.policy.sample([[6, 7]], [0], CONFIG.sampling)  # which switches modes
    for look in (
        lambda: roles.policy.logprobs(batch).logprobs,
        lambda: roles.reference.logprobs(batch).logprobs,
        lambda: roles.values(batch),
    ):
        assert torch.equal(look(), look())


def test_rejected_responses_are_not_learnt_from(toy, roles, tmp_path):
    config = CONFIG.model_copy(
        update={
            "shaping": ShapingConfig(missing_eos="reject"),
            "batch_size": 2,
            "minibatch_size": 1,
            "ppo_epochs": 1,
            "advantage": AdvantageConfig(estimator="reinforce_pp"),
        }
    )
    end = roles.tokenizer.eos_token_id
    episodes = [
        answered(roles.policy, toy.prompts[0], [6, end]),
        answered(roles.policy, toy.prompts[1], [6, 7], finished=False),
    ]
    ppo = make_ppo(roles, config, tmp_path)
    rollout = ppo.build_rollout(episodes, Length(), recompute=True)
    assert rollout.mask.tolist() == [[True, True], [False, False]]

    # Where a whole minibatch was rejected no step is taken, not even by the optimiser's momentum.
    steps = []
    ppo.learners["policy"].step = lambda: steps.append(1)
    ppo.update(rollout)
    assert len(steps) == 1
    none = rollout._replace(mask=rollout.mask & False)
    assert ppo.update(none) == {"skipped": 1.0, "steps": 0.0}
    assert len(steps) == 1


def test_scores_that_are_whole_numbers(toy, roles):
    ints = SimpleNamespace(name="int", score=lambda p, r: [len(text) for text in r])
    config = CONFIG.model_copy(update={"shaping": ShapingConfig(clip=None, missing_eos="keep")})
    rollout = build_rollout(roles, ints, sampled(roles, toy, config), config, 0.0, recompute=False)
    assert rollout.scores.dtype == torch.float32
