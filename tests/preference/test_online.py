"""Rounds with a scorer in the loop: pairs of scored responses, learning from them, exact resume."""

from __future__ import annotations

import math
import random

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from plumbline.data.records import user
from plumbline.dropped import Dropped
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import Generation, SamplingConfig
from plumbline.lm.load import load_causal_lm
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from preference.config import OnlineConfig, WatchConfig
from preference.online import OnlineLearner, train_online
from preference.pairing import PAIRINGS, PairingSettings, passes, similarity
from preference.pairs import make_pairs
from preference.pairs_config import PairFilterConfig
from preference.responses import Response
from preference.rounds import Candidates, pairs_of, within_budget
from preference.signs_of_trouble import Watch

PROMPTS = [[user(f"How much are {n} saws?")] for n in range(10)]
SMALL = {
    "rounds": 4,
    "prompts_per_round": 4,
    "responses": 3,
    "sampling": SamplingConfig(max_new_tokens=8),
    "minibatch_size": 2,
    "learning_rate": 5e-3,
    "tuning": TuningConfig(method="lora", rank=4),
    "evaluations": 0,
    "checkpoint_every": 1,
    "watch": WatchConfig(displaced_share=None, saturated_share=None, kl=None, length_growth=None),
}


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


class LikesLetters:
    """Scores a response by the letters that it has, e counting most."""

    name = "letters"

    def score(self, prompts, responses):
        return [sum({"e": 3, "t": 1}.get(c, 0) for c in text) / 10 for text in responses]


def no_figures(policy, reference, step, folder):
    return {}


def train(folder, base_folder, *, hook=no_figures, scorer=None, **changes):
    stage = Stage(folder / "stage", Reporter(quiet=True))
    figures = train_online(
        stage, config=OnlineConfig(**SMALL | changes), policy=Folder(base_folder),
        prompts=PROMPTS, scorer=scorer or LikesLetters(), hook=hook, seed=0,
    )  # fmt: skip
    return stage.folder, figures


# Pairing.


def pair(name, scores, seed=0, **settings):
    return PAIRINGS[name].function(scores, PairingSettings(**settings), random.Random(seed))


def test_ways_of_pairing_by_hand():
    scores = [0.5, 2.0, -1.0, 2.0]
    assert pair("best_worst", scores) == [(1, 2)]
    assert sorted(pair("all", scores)) == [(0, 2), (1, 0), (1, 2), (3, 0), (3, 2)]
    assert pair("near_gap", [0.5, 2.0, -1.2], target_gap=1.8) == [(0, 2)]
    assert pair("near_gap", [0.5, 2.0, -1.2], target_gap=9.0) == [(1, 2)]


@pytest.mark.parametrize("name", list(PAIRINGS))
def test_equal_scores_make_no_pair(name):
    assert pair(name, [1.0, 1.0, 1.0]) == []


@pytest.mark.parametrize("name", list(PAIRINGS))
def test_the_better_response_comes_first(name):
    for seed in range(20):
        scores = [random.Random(seed + n).random() for n in range(5)]
        assert all(scores[a] > scores[b] for a, b in pair(name, scores, seed))


def test_rso_keeps_responses_as_often_as_the_best_policy_would():
    """Of scores 0 and -ln 3 at beta 1, the second is accepted at once with probability 1/3."""
    scores = [0.0, -math.log(3), -50.0]
    pairs = [pair("rso", scores, seed, rso_beta=1.0) for seed in range(3000)]
    # -50 is kept only after both others; it never is, since two are enough.
    assert {tuple(p) for p in pairs} == {((0, 1),)}
    # With beta towards infinity all are as likely: which two come first is the order's.
    many = [pair("rso", [0.0, -1.0, -2.0], seed, rso_beta=2.0)[0] for seed in range(3000)]
    both = sum(p == (0, 1) for p in many) / 3000
    # Accepted in the first pass: 0 always, -1 with e^-1/2; or else -2 may come before it.
    first, second = math.exp(-0.5), math.exp(-1.0)
    passes = first + (1 - first) * (1 - second) * 1.0
    # In the second pass -1 is the best that is left, and so is accepted.
    assert both == pytest.approx(passes, abs=0.03)


# Pairs of one prompt.


def candidates(texts, scores):
    return Candidates(PROMPTS[0], [1, 2], [[10 + n] for n in range(len(texts))], texts, scores)


def test_equal_and_empty_responses_make_no_pairs_and_are_counted():
    config, dropped = OnlineConfig(**SMALL), Dropped()
    made = pairs_of(candidates(["a", " ", "a", "b"], [1.0, 9.0, 5.0, 0.0]), config, 0, 0, dropped)
    assert [(x.chosen_ids, x.rejected_ids) for x in made] == [([10], [13])]
    assert pairs_of(candidates(["a", "a", ""], [1.0, 2.0, 3.0]), config, 0, 0, dropped) == []
    assert pairs_of(candidates(["a", "b"], [1.0, 1.0]), config, 0, 0, dropped) == []
    assert dropped.reasons() == {
        "all responses are the same or empty": 1,
        "all responses have the same score": 1,
    }


def test_pairs_within_the_least_gap_are_left_out_and_counted():
    config, dropped = OnlineConfig(**SMALL | {"min_gap": 0.5, "pairing": "all"}), Dropped()
    made = pairs_of(candidates(["a", "b", "c"], [0.0, 0.4, 1.0]), config, 0, 0, dropped)
    assert sorted((x.chosen_ids[0], x.rejected_ids[0]) for x in made) == [(12, 10), (12, 11)]
    assert pairs_of(candidates(["a", "b"], [0.0, 0.4]), config, 0, 0, dropped) == []
    assert dropped.reasons() == {"is within min_gap": 1}


def test_pairs_that_are_alike_or_of_unlike_length_are_left_out_and_counted():
    assert similarity("abcd", "abed") == 2 * 3 / 8
    assert similarity("", "") == 1.0
    assert passes("abcd", "abed", 0.75, None) and not passes("abcd", "abed", 0.74, None)
    assert passes("ab", "abcd", None, 2.0) and not passes("ab", "abcd", None, 1.9)
    dropped = Dropped()
    config = OnlineConfig(**SMALL | {"pairing": "all", "filter": {"max_similarity": 0.7}})
    made = pairs_of(candidates(["abcd", "abed", "xy"], [2.0, 1.0, 0.0]), config, 0, 0, dropped)
    assert sorted((x.chosen_ids[0], x.rejected_ids[0]) for x in made) == [(10, 12), (11, 12)]
    assert pairs_of(candidates(["abcd", "abed"], [2.0, 1.0]), config, 0, 0, dropped) == []
    assert dropped.reasons() == {"filter lets no pair pass": 1}


def test_pairs_for_people_are_filtered_in_the_same_way():
    texts = [Response(text) for text in ("abcd", "abed", "x")]
    assert len(make_pairs(PROMPTS[0], texts, 3, 0)) == 3
    alike = make_pairs(PROMPTS[0], texts, 3, 0, PairFilterConfig(max_similarity=0.7))
    shown = [{row["a"][0]["content"], row["b"][0]["content"]} for row in alike]
    assert {"abcd", "abed"} not in shown and len(shown) == 2
    balanced = make_pairs(PROMPTS[0], texts, 3, 0, PairFilterConfig(max_length_ratio=2.0))
    assert [{row["a"][0]["content"], row["b"][0]["content"]} for row in balanced] == [
        {"abcd", "abed"}
    ]


# Training.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reference_every": 1, "epochs": 2},
        {"loss": "sft"},
        {"loss": "simpo", "beta": 2.0, "pairing": "all"},
    ],
    ids=["online", "iterative", "best of n", "without a reference"],
)
def test_the_policy_comes_to_say_what_the_scorer_likes(base_folder, tmp_path, changes):
    larger = {"rounds": 12, "prompts_per_round": 8, "responses": 6, "learning_rate": 3e-2}
    folder, figures = train(tmp_path, base_folder, **larger | changes)
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if "score" in line]
    scores = [line["score"] for line in lines]
    assert sum(scores[-3:]) > 1.5 * sum(scores[:3])
    assert figures["responses"] == 12 * 8 * 6
    assert figures["tokens_sampled"] == lines[-1]["tokens_sampled"]
    assert figures["tokens_scored"] > figures["tokens_sampled"]
    load_causal_lm(folder)


def test_a_reference_of_each_round_starts_each_round_at_no_margin(base_folder, tmp_path):
    one_step = {"minibatch_size": 64, "reference_every": 1}
    folder, _ = train(tmp_path / "a", base_folder, **one_step)
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
    assert [line["loss"] for line in lines] == pytest.approx([math.log(2)] * 4, abs=1e-4)
    folder, _ = train(tmp_path / "b", base_folder, minibatch_size=64)
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
    assert abs(lines[-1]["loss"] - math.log(2)) > 1e-3


def test_the_first_round_has_ppo_s_prompts_and_random_streams(base_folder, tokenizer):
    from plumbline.lm.policy import Policy
    from preference.rounds import sample_round
    from rl.config import PPOConfig
    from rl.sampler import RolloutSampler

    policy = Policy.load(base_folder)
    sampling = SamplingConfig(max_new_tokens=8)
    config = PPOConfig(
        batch_size=12, minibatch_size=12, group_size=3, sampling=sampling,
        advantage={"estimator": "rloo"},
    )  # fmt: skip
    sampler = RolloutSampler(NativeEngine(sampling), policy, PROMPTS, config, 0)
    episodes = sampler.sample_current(0)
    seen = []

    class Notes(LikesLetters):
        def score(self, prompts, responses):
            seen.extend(zip(prompts, responses, strict=True))
            return super().score(prompts, responses)

    engine = NativeEngine(sampling)
    sample_round(engine, policy, PROMPTS, Notes(), OnlineConfig(**SMALL), 0, 0, Dropped())
    expected = [policy.decode(episode.response_ids) for episode in episodes]
    assert [text for _, text in seen] == expected


# Budgets.


def generation(*ids, finished=True):
    return Generation(list(ids), [-1.0] * len(ids), finished)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (None, [([1, 2], True), ([3], True), ([4, 5, 6], True)]),
        (6, [([1, 2], True), ([3], True), ([4, 5, 6], True)]),
        (5, [([1, 2], True), ([3], True), ([4, 5], False)]),
        (3, [([1, 2], True), ([3], True)]),
        (1, [([1], False)]),
    ],
)
def test_responses_end_where_the_tokens_end(left, expected):
    kept = within_budget([generation(1, 2), generation(3), generation(4, 5, 6)], left)
    assert [(g.ids, g.finished) for g in kept] == expected
    assert all(len(g.logprobs) == len(g.ids) for g in kept)


@pytest.mark.parametrize("tokens", [1, 131, 400])
def test_a_training_samples_exactly_as_many_tokens_as_it_may(base_folder, tmp_path, tokens):
    seen = []

    class Notes(LikesLetters):
        def score(self, prompts, responses):
            seen.append(len(responses))
            return super().score(prompts, responses)

    how = {"rounds": 60, "max_sampled_tokens": tokens, "evaluations": 4}
    evaluated = []

    def hook(policy, reference, step, folder):
        evaluated.append(step)
        return {}

    _, figures = train(tmp_path, base_folder, hook=hook, scorer=Notes(), **how)
    assert figures["tokens_sampled"] == tokens
    assert figures["responses"] == sum(seen)
    assert figures["rounds"] == len(seen)
    assert evaluated[0] == 0 and evaluated[-1] == len(seen)
    assert evaluated == sorted(set(evaluated))
    assert len(evaluated) <= 5


def test_the_learning_rate_falls_with_the_tokens(base_folder, tmp_path, monkeypatch):
    rates = []
    step = OnlineLearner._step

    def noted(learner, pairs):
        rates.append(learner._optimizer.param_groups[0]["lr"] / learner.config.learning_rate)
        return step(learner, pairs)

    monkeypatch.setattr(OnlineLearner, "_step", noted)
    folder, _ = train(tmp_path, base_folder, rounds=60, max_sampled_tokens=300, minibatch_size=99)
    lines = [line["tokens_sampled"] for line in read_metrics(folder / "metrics.jsonl")]
    before = [0.0, *lines[:-1]]
    learnt = [1 - tokens / 300 for tokens in before]
    assert rates == pytest.approx(learnt[: len(rates)])
    assert lines[-1] == 300


def test_a_policy_beyond_the_kl_budget_is_rolled_back(base_folder, tmp_path):
    fast = {"rounds": 8, "prompts_per_round": 8, "learning_rate": 5e-2}
    free, figures = train(tmp_path / "free", base_folder, max_kl=1e9, **fast)
    kls = [line["kl"] for line in read_metrics(free / "metrics.jsonl")]
    # The first round's responses are the start's own: its KL from itself is rounding.
    assert kls[0] == pytest.approx(0, abs=1e-3)
    assert figures["rounds"] == 8
    limit = (kls[2] + max(kls)) / 2
    assert limit > kls[2]
    beyond = next(n for n, kl in enumerate(kls) if kl > limit)
    held, figures = train(tmp_path / "held", base_folder, max_kl=limit, **fast)
    # Round `beyond` drew what is too far, so that the policy of the round before is kept.
    assert figures["rounds"] == beyond - 1
    assert figures["responses"] == (beyond + 1) * 8 * 3
    shorter = read_metrics(held / "metrics.jsonl")
    assert [line["kl"] for line in shorter] == kls[:beyond]
    weights = load_file(held / "adapter_model.safetensors")
    other = load_file(free / "adapter_model.safetensors")
    assert any(not torch.equal(weights[name], other[name]) for name in weights)


def test_kl_is_that_of_the_responses_from_the_start(base_folder, tmp_path, tokenizer):
    """By transformers' own pass: the mean over responses of log p - log q, temperature included."""
    from plumbline.lm.policy import Policy
    from preference.budgets import KLBudget
    from preference.reference import PolicyAndReference
    from preference.rounds import sample_round

    roles = PolicyAndReference(base_folder, TuningConfig(method="lora", rank=4), tokenizer)
    with torch.no_grad():
        for name, parameter in roles.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    sampling = SamplingConfig(max_new_tokens=8, temperature=0.7)
    config = OnlineConfig(**SMALL | {"sampling": sampling, "max_kl": 1.0})
    engine = NativeEngine(sampling)
    drawn = sample_round(engine, roles.policy, PROMPTS, LikesLetters(), config, 0, 0, Dropped())
    found = KLBudget(config, roles, print).kl_of(drawn)

    def logprob(prompt, response):
        with torch.no_grad():
            logits = roles.model(input_ids=torch.tensor([prompt + response])).logits[0]
        rows = (logits[len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
        return float(rows.gather(1, torch.tensor(response).unsqueeze(1)).sum())

    pairs = list(zip(drawn.prompt_ids, drawn.response_ids, strict=True))
    policy = [logprob(*pair) for pair in pairs]
    with roles.model.disable_adapter():
        start = [logprob(*pair) for pair in pairs]
    expected = sum(p - q for p, q in zip(policy, start, strict=True)) / len(pairs)
    assert found == pytest.approx(expected, abs=1e-3)
    assert found > 0.05
    assert isinstance(roles.policy, Policy)


# Engines.


def test_a_server_samples_what_our_own_loop_samples(base_folder, tmp_path, serve):
    """Each round the server gets the weights as they are then."""
    server = serve()
    ours, figures = train(tmp_path / "ours", base_folder)
    served, other = train(
        tmp_path / "served", base_folder, rollouts={"engine": "vllm", "url": server.url}
    )
    assert other["tokens_sampled"] == figures["tokens_sampled"]
    loads = [body for path, body in server.seen if path == "/v1/load_lora_adapter"]
    assert len(loads) == 4
    mine, theirs = (
        [line["score"] for line in read_metrics(folder / "metrics.jsonl")]
        for folder in (ours, served)
    )
    assert theirs == pytest.approx(mine)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollouts": {"engine": "vllm"}}, r"set rollouts\.url to the server's address"),
        (
            {"rollouts": {"engine": "vllm", "url": "http://x"}, "tuning": {"method": "ia3"}},
            r"tuning\.method is ia3",
        ),
        ({"rounds": 3, "max_sampled_tokens": 9}, "it needs max_sampled_tokens: null"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(changes, message):
    with pytest.raises(ValidationError, match=message):
        OnlineConfig(**changes)


# Exact resume.


class KilledError(Exception):
    pass


@pytest.mark.parametrize("reference_every", [None, 2])
@pytest.mark.parametrize("killed_in", [2, 3])
def test_a_training_that_was_killed_ends_with_the_same_bytes(
    base_folder, tmp_path, reference_every, killed_in
):
    how = {"reference_every": reference_every, "rounds": 5, "checkpoint_every": 2}
    if reference_every is None:
        how = {"rounds": 60, "max_sampled_tokens": 250, "evaluations": 3, "max_kl": 50.0}

    class KillsOnce(LikesLetters):
        calls = 0

        def score(self, prompts, responses):
            self.calls += 1
            if self.calls == killed_in + 1:
                raise KilledError
            return super().score(prompts, responses)

    whole, _ = train(tmp_path / "whole", base_folder, **how)
    scorer = KillsOnce()
    with pytest.raises(KilledError):
        train(tmp_path / "cut", base_folder, scorer=scorer, **how)
    cut, _ = train(tmp_path / "cut", base_folder, scorer=scorer, **how)
    for name in ("adapter_model.safetensors", "metrics.jsonl", "dropped.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


# Signs of trouble.


def test_each_sign_is_said_once_with_what_helps():
    said = []
    watch = Watch(WatchConfig(kl=10.0, length_growth=2.0), said.append)
    watch.look_at_training(1, {"displaced_share": 0.2, "saturated_share": 0.1})
    watch.look_at_evaluation(1, {"kl": 2.0, "tokens": 10.0})
    assert said == []
    for step in (2, 3):
        watch.look_at_training(step, {"displaced_share": 0.6, "saturated_share": 0.95})
        watch.look_at_evaluation(step, {"kl": 12.0, "tokens": 25.0})
    assert [text.split("(watch.")[1].split(")")[0] for text in said] == [
        "displaced_share", "saturated_share", "kl", "length_growth",
    ]  # fmt: skip
    assert all("step 2" in text for text in said)
    assert "60%" in said[0] and "mixture: {sft: 0.1}" in said[0]
    assert "2.5 times" in said[3]


def test_without_a_reference_or_a_limit_nothing_is_said():
    said = []
    watch = Watch(WatchConfig(), said.append, has_reference=False)
    watch.look_at_training(1, {"displaced_share": 1.0, "saturated_share": 1.0})
    Watch(WatchConfig(kl=None), said.append).look_at_evaluation(1, {"kl": 1e3})
    assert said == []
