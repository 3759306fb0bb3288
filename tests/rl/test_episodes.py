"""Episodes: what a dialogue is as tokens, who is learnt from in it, and where it ends."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from plumbline.data.records import assistant, user
from plumbline.lm.batches import collate
from plumbline.lm.chat import encode_demonstration, encode_prompt
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import Generation, SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from rl.config import AdvantageConfig, KLConfig, PPOConfig, ShapingConfig
from rl.episodes import play
from rl.roles import Roles
from tests.rl.conftest import build_rollout, make_ppo

CONFIG = PPOConfig(
    tuning=TuningConfig(method="lora", rank=4),
    sampling=SamplingConfig(max_new_tokens=24),
    iterations=1,
    batch_size=4,
    minibatch_size=4,
    micro_batch_size=4,
    ppo_epochs=1,
    shaping=ShapingConfig(missing_eos="keep"),
)
MOST = CONFIG.sampling.max_new_tokens
PROMPTS = [
    [user("How much are the saws?")],
    [user("Hi."), assistant("Hello. What may I do?"), user("Where are the lamps, please?")],
]


class Echo:
    """Asks about what was said, a set number of times."""

    name = "echo"

    def __init__(self, turns, said="Is it true that"):
        self.max_turns, self._said = turns, said

    def reply(self, dialogue):
        return user(f"{self._said}: {dialogue[-1]['content']}?")


class Scripted:
    """An engine that says what it is told to, turn by turn, and notes what it was asked."""

    exact = True
    remote = False

    def __init__(self, tokenizer, turns, finished=True):
        self._tokenizer, self._turns, self._finished = tokenizer, iter(turns), finished
        self.asked, self.seeds = [], []

    def refresh(self, policy, iteration):
        pass

    def release(self):
        pass

    def sample(self, policy, prompts, seeds):
        text = next(self._turns)
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        ids += [self._tokenizer.eos_token_id] * self._finished
        self.asked.append([list(prompt) for prompt in prompts])
        self.seeds.append(list(seeds))
        return [Generation(list(ids), [-0.5] * len(ids), self._finished) for _ in prompts]


@pytest.fixture
def roles(base_folder):
    torch.manual_seed(0)
    return Roles(Artifact(base_folder), CONFIG.tuning, CONFIG.value)


SAID = ["The saws cost $5.", "Yes.", "Certainly, $5."]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_dialogue_is_the_conversation_encoded_at_once(tokenizer, policy, turns):
    engine = Scripted(tokenizer, SAID)
    environment = Echo(turns)
    episodes = play(engine, policy, PROMPTS, [10, 20], MOST, environment=environment)
    for prompt, episode in zip(PROMPTS, episodes, strict=True):
        messages = [*prompt]
        for number, text in enumerate(SAID[:turns]):
            messages.append(assistant(text))
            if number + 1 < turns:
                messages.append(environment.reply(messages))
        (whole,) = encode_demonstration(tokenizer, messages)
        first = len(encode_prompt(tokenizer, prompt))
        assert [*episode.prompt_ids, *episode.response_ids] == whole.ids
        assert len(episode.prompt_ids) == first
        assert episode.policy_mask == [bool(speaks) for speaks in whole.assistant_mask[first:]]
        assert episode.turns == messages[len(prompt) :]
        assert episode.scored_turn == (messages[:-1], SAID[turns - 1])
        assert [
            lp for lp, own in zip(episode.logprobs, episode.policy_mask, strict=True) if own
        ] == ([-0.5] * sum(episode.policy_mask))
        assert not any(
            lp for lp, own in zip(episode.logprobs, episode.policy_mask, strict=True) if not own
        )


def test_each_turn_is_asked_with_all_before_it_and_draws_from_a_stream_of_its_own(
    tokenizer, policy
):
    engine = Scripted(tokenizer, SAID)
    (episode,) = play(engine, policy, PROMPTS[:1], [10], MOST, environment=Echo(3))
    assert engine.seeds == [[10], [11], [12]]
    whole = [*episode.prompt_ids, *episode.response_ids]
    for (asked,) in engine.asked:
        assert whole[: len(asked)] == asked
        assert whole[len(asked) - 1] == tokenizer.convert_tokens_to_ids("<|assistant|>")


def test_log_probabilities_of_a_dialogue_are_those_of_the_whole_conversation(roles, prompts):
    """Of sampled turns: what drew them, what learning computes, and the model asked by hand."""
    policy = roles.policy
    asked = prompts[:4]
    # A tiny model hardly ever ends a turn by itself.
    with ending_often(policy):
        episodes = play(
            NativeEngine(CONFIG.sampling), policy, asked, range(4), MOST, environment=Echo(3, "So")
        )
        assert max(len(e.turns) for e in episodes) > 1
        batch = collate(
            [e.prompt_ids for e in episodes],
            [e.response_ids for e in episodes],
            policy.pad_id,
            [e.policy_mask for e in episodes],
        )
        said = policy.logprobs(batch).logprobs
        for row, episode in enumerate(episodes):
            ids = torch.tensor([*episode.prompt_ids, *episode.response_ids])
            with torch.no_grad():
                logits = policy.model(input_ids=ids[None]).logits[0]
            by_hand = logits.log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
            by_hand = by_hand[len(episode.prompt_ids) - 1 :]
            own = torch.tensor(episode.policy_mask)
            ours = said[row, : len(own)]
            torch.testing.assert_close(ours[own], by_hand[own], atol=1e-4, rtol=1e-4)
            assert not ours[~own].any()
            drawn = torch.tensor(episode.logprobs)
            torch.testing.assert_close(drawn[own], by_hand[own], atol=1e-4, rtol=1e-4)


@contextmanager
def ending_often(policy):
    """Make the end token likely, so that turns end."""
    head = policy.model.get_output_embeddings()
    push = torch.zeros(head.weight.shape[0])
    push[list(policy.end_ids)] = 6.0
    head.bias = torch.nn.Parameter(push, requires_grad=False)
    try:
        yield
    finally:
        head.bias = None


def test_an_environment_s_tokens_get_no_gradient(tokenizer, roles, tmp_path):
    """In a real step, the logits that say the policy's tokens have a gradient, and no others."""
    engine = Scripted(tokenizer, SAID)
    episodes = play(engine, roles.policy, PROMPTS * 2, range(4), MOST, environment=Echo(3))
    config = CONFIG.model_copy(
        update={
            "advantage": AdvantageConfig(whiten=False, lam=1.0),
            "kl": KLConfig(coefficient=0.0),
        }
    )

    class Ones:
        name = "ones"

        def score(self, prompts, responses):
            return [1.0] * len(responses)

    ppo = make_ppo(roles, config, tmp_path, kl_coefficient=0.0)
    rollout = ppo.build_rollout(episodes, Ones(), recompute=True)
    own, real = (
        rollout.batch.response_mask,
        rollout.batch.attention_mask[:, -len(episodes[1].response_ids) :],
    )
    assert torch.equal(own, rollout.mask)
    assert int(own.sum()) < int(real.sum())  # there is something to leave out
    # Every own token is as good as the last: the values are 0 and nothing is discounted.
    torch.testing.assert_close(rollout.advantages, own.float())
    torch.testing.assert_close(rollout.returns, own.float())

    gradients = {}

    def note(name):
        def keep(_module, _inputs, output):
            if output.requires_grad:
                output.register_hook(lambda grad: gradients.setdefault(name, grad))

        return keep

    roles.model.get_output_embeddings().register_forward_hook(note("logits"))
    roles.value_head.register_forward_hook(note("values"))
    ppo.update(rollout)
    for name in ("logits", "values"):
        grad = gradients[name]
        touched = grad.flatten(2).abs().sum(-1)[:, -own.shape[1] - (name == "logits") :]
        touched = touched[:, : own.shape[1]] > 0
        # Rows are sorted by length within a minibatch, so compare them as a set of patterns.
        assert sorted(map(tuple, touched.tolist())) == sorted(map(tuple, own.tolist()))


def test_a_dialogue_ends_where_the_next_turn_would_not_fit(tokenizer, policy):
    context = policy.model.config.max_position_embeddings  # 256
    for most in (24, 60, 100):
        engine = Scripted(tokenizer, ["word " * 12] * 30)
        (episode,) = play(engine, policy, PROMPTS[:1], [0], most, environment=Echo(30, "And"))
        assert len(episode.prompt_ids) + len(episode.response_ids) <= context
        assert all(len(asked[0]) + most <= context for asked in engine.asked)
        assert episode.turns[-1]["role"] == "assistant"
        assert episode.policy_mask[-1]
        # One turn more would not have fitted.
        said = Echo(30, "And").reply(episode.turns)
        more = len(tokenizer.encode(said["content"], add_special_tokens=False))
        assert len(episode.prompt_ids) + len(episode.response_ids) + more + 3 + most > context


def test_a_cut_turn_ends_the_dialogue(tokenizer, policy):
    engine = Scripted(tokenizer, SAID, finished=False)
    (episode,) = play(engine, policy, PROMPTS[:1], [0], MOST, environment=Echo(3))
    assert len(episode.turns) == 1
    assert not episode.finished


def test_the_score_belongs_to_the_last_turn(tokenizer, roles):
    """It is asked for with the whole dialogue before it, and paid at the last own token."""
    seen = []

    class Noting:
        name = "noting"

        def score(self, prompts, responses):
            seen.extend(zip(prompts, responses, strict=True))
            return [float(n + 1) for n in range(len(responses))]

    class Leaves(Echo):
        """Has nothing further to say to those who greeted."""

        def reply(self, dialogue):
            return None if dialogue[0]["content"] == "Hi." else super().reply(dialogue)

    config = CONFIG.model_copy(
        update={"advantage": AdvantageConfig(lam=0.0, whiten=False), "kl": KLConfig(coefficient=0)}
    )
    engine = Scripted(tokenizer, SAID)
    episodes = play(engine, roles.policy, PROMPTS, [0, 1], MOST, environment=Leaves(3))
    assert [len(e.turns) for e in episodes] == [5, 1]
    rollout = build_rollout(roles, Noting(), episodes, config)
    assert seen == [e.scored_turn for e in episodes]
    assert seen[0][1] == SAID[2]
    assert [m["role"] for m in seen[0][0]] == ["user", "assistant"] * 2 + ["user"]
    # With lambda 0 and values 0, an advantage is the token's own reward.
    expected = torch.zeros_like(rollout.advantages)
    for row, (episode, score) in enumerate(zip(episodes, (1.0, 2.0), strict=True)):
        expected[row, max(n for n, own in enumerate(episode.policy_mask) if own)] = score
    torch.testing.assert_close(rollout.advantages, expected)
