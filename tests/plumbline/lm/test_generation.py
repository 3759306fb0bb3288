"""Sampling: a response depends on its prompt and its seed, not on its neighbours."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm.batches import collate
from plumbline.lm.generation import SamplingConfig, generate, sample_tokens
from plumbline.lm.logprobs import in_parts, response_logprobs, token_logprobs

CONFIG = SamplingConfig(max_new_tokens=24)


@pytest.fixture
def encoded(policy, prompts):
    return [policy.encode(prompt) for prompt in prompts]


def test_alone_or_in_company_the_response_is_the_same(policy, encoded):
    seeds = list(range(len(encoded)))
    together = policy.sample(encoded, seeds, CONFIG)
    alone = [
        policy.sample([prompt], [seed], CONFIG)[0]
        for prompt, seed in zip(encoded, seeds, strict=True)
    ]
    small = policy.sample(encoded, seeds, CONFIG.model_copy(update={"batch_size": 5}))
    assert [g.ids for g in together] == [g.ids for g in alone] == [g.ids for g in small]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_another_seed_gives_another_response(policy, encoded):
    first = policy.sample(encoded, [1] * len(encoded), CONFIG)
    second = policy.sample(encoded, [2] * len(encoded), CONFIG)
    assert [g.ids for g in first] != [g.ids for g in second]


def test_logprobs_of_sampling_equal_those_of_looking_again(policy, encoded):
    config = SamplingConfig(max_new_tokens=24, temperature=0.7)
    generations = policy.sample(encoded, range(len(encoded)), config)
    batch = collate(encoded, [g.ids for g in generations], policy.pad_id)
    looked = policy.logprobs(batch, temperature=0.7).logprobs
    for row, generation in enumerate(generations):
        seen = looked[row, : len(generation.ids)].tolist()
        assert seen == pytest.approx(generation.logprobs, abs=1e-4)
        assert not looked[row, len(generation.ids) :].any()


def test_a_response_ends_with_its_end_token_or_is_cut(policy, encoded):
    config = SamplingConfig(max_new_tokens=12, temperature=1.5)
    generations = policy.sample(encoded * 8, range(8 * len(encoded)), config)
    for generation in generations:
        inner = policy.end_ids.intersection(generation.ids[:-1])
        assert not inner
        assert generation.finished == (generation.ids[-1] in policy.end_ids)
        assert generation.finished or len(generation.ids) == 12
    assert {g.finished for g in generations} == {True, False}


def test_tokens_are_drawn_as_often_as_their_probability_says():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(40_000, 4)
    uniforms = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, logprobs = sample_tokens(logits, uniforms, SamplingConfig(temperature=2.0))
    expected = torch.softmax(logits[0] / 2, 0)
    seen = torch.bincount(tokens, minlength=4) / 40_000
    torch.testing.assert_close(seen, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(logprobs, expected.log()[tokens])


@pytest.mark.parametrize(
    ("filters", "allowed"),
    [({"top_k": 1}, {2}), ({"top_k": 2}, {1, 2}), ({"top_p": 0.5}, {2}), ({"top_p": 0.8}, {1, 2})],
)
def test_filters_exclude_by_hand(filters, allowed):
    # Probabilities 0.09, 0.24, 0.65, 0.02.
    logits = torch.tensor([[0.09, 0.24, 0.65, 0.02]]).log().expand(2000, 4)
    uniforms = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, logprobs = sample_tokens(logits, uniforms, SamplingConfig(**filters))
    assert set(tokens.tolist()) == allowed
    # The policy is the whole distribution: a filter is a way of sampling from it.
    torch.testing.assert_close(logprobs[tokens == 2][0], torch.tensor(0.65).log())


def test_the_largest_uniform_number_never_points_past_the_vocabulary():
    logits = torch.tensor([[0.0, 0.0, -30.0]])
    for filters in ({}, {"top_k": 2}):
        token, _ = sample_tokens(
            logits, torch.tensor([1 - 2**-53], dtype=torch.float64), SamplingConfig(**filters)
        )
        assert token.item() in (1, 2)


def test_generating_leaves_a_model_in_the_mode_it_was_in(policy, encoded):
    policy.model.train()
    generate(policy.model, encoded[:1], [0], CONFIG, end_ids=policy.end_ids, pad_id=policy.pad_id)
    assert policy.model.training


def test_logprobs_equal_a_plain_forward_pass_without_padding(policy, encoded):
    responses = [[20, 30, 40], [25], [31, 32, 33, 34, 35]]
    batch = collate(encoded[:3], responses, policy.pad_id)
    found = policy.logprobs(batch).logprobs
    for row, (prompt, response) in enumerate(zip(encoded, responses, strict=False)):
        logits = policy.model(torch.tensor([[*prompt, *response]])).logits[0]
        plain = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        expected = plain[range(len(response)), response]
        torch.testing.assert_close(found[row, : len(response)], expected, atol=1e-4, rtol=1e-4)


def test_logprobs_do_not_look_at_padding(policy, encoded):
    batch = collate(encoded, [[20] * (1 + n % 5) for n in range(len(encoded))], policy.pad_id)
    noisy = batch._replace(ids=batch.ids.where(batch.attention_mask.bool(), torch.tensor(7)))
    torch.testing.assert_close(policy.logprobs(noisy).logprobs, policy.logprobs(batch).logprobs)


def test_trimming_and_cutting_in_parts_change_nothing(policy, encoded):
    batch = collate(encoded, [[20] * (1 + n % 5) for n in range(len(encoded))], policy.pad_id)
    whole = policy.logprobs(batch).logprobs
    parts = in_parts(lambda part: policy.logprobs(part).logprobs, batch, size=3)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_token_logprobs_and_entropy_by_hand():
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, -1e9, -1e9]]])
    logprobs, entropy = token_logprobs(logits, torch.tensor([[1, 0]]), temperature=2.0)
    p = 1 / (1 + torch.e**-1)
    assert logprobs[0].tolist() == pytest.approx([-torch.log(torch.tensor(4.0)).item(), p_log(p)])
    assert entropy[0].tolist() == pytest.approx(
        [torch.log(torch.tensor(4.0)).item(), -p * p_log(p) - (1 - p) * p_log(1 - p)], abs=1e-5
    )


def p_log(p: float) -> float:
    return torch.log(torch.tensor(p)).item()


def test_the_gradient_reaches_only_response_positions(policy, encoded):
    batch = collate(encoded[:2], [[20, 21], [22]], policy.pad_id)
    embeddings = policy.model.get_input_embeddings().weight
    embeddings.grad = None
    response_logprobs(policy.model, batch).logprobs.sum().backward()
    # What the last response token predicts is not asked, so it has no influence.
    assert embeddings.grad[21].abs().sum() == 0
    assert embeddings.grad[20].abs().sum() > 0
    embeddings.grad = None
