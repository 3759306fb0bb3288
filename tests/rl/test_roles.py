"""Policy, reference and value: what each sees, and what each may change."""

from __future__ import annotations

import pytest
import torch

from plumbline.artefacts import Artefact
from plumbline.batches import collate
from plumbline.models import TuningConfig, load_causal_lm, save_model, trainable_causal_lm
from rl.roles import Roles

TUNINGS = {
    "full": TuningConfig(method="full"),
    "lora": TuningConfig(method="lora", rank=4),
    "few": TuningConfig(method="lora", rank=2, target_modules=("q_proj", "v_proj")),
}


@pytest.fixture(params=[*TUNINGS, "goes on"])
def roles(request, base_folder, tokenizer, tmp_path):
    """Roles on a base, with each tuning; and on a policy that is an adapter already."""
    folder, tuning = base_folder, TUNINGS.get(request.param, TUNINGS["lora"])
    if request.param == "goes on":
        model = trainable_causal_lm(base_folder, tuning)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        folder = tmp_path / "policy"
        folder.mkdir()
        save_model(model, tokenizer, folder, source=base_folder, card="")
    torch.manual_seed(0)
    made = Roles(Artefact(folder), tuning)
    made.start = load_causal_lm(folder)
    return made


@pytest.fixture
def batch(tokenizer, policy, prompts):
    encoded = [policy.encode(prompt) for prompt in prompts[:4]]
    return collate(encoded, [[20] * (n + 1) for n in range(4)], policy.pad_id)


def one_step(roles, batch, which: str) -> None:
    """Take one optimiser step of one learner on a loss of its own."""
    parameters = getattr(roles, f"{which}_parameters")
    optimizer = torch.optim.Adam(parameters.values(), lr=0.01)
    if which == "policy":
        roles.policy.logprobs(batch).logprobs.sum().backward()
    else:
        (roles.values(batch) - 1).square().sum().backward()
    optimizer.step()


def test_policy_and_reference_start_equal_and_the_value_at_nought(roles, batch):
    from plumbline.logprobs import response_logprobs

    start = response_logprobs(roles.start, batch).logprobs
    torch.testing.assert_close(roles.policy.logprobs(batch).logprobs, start, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        roles.reference.logprobs(batch).logprobs, start, atol=1e-5, rtol=1e-4
    )
    assert not roles.values(batch).any()


def test_a_policy_step_moves_the_policy_alone(roles, batch):
    reference, values = roles.reference.logprobs(batch).logprobs, roles.values(batch)
    before = roles.policy.logprobs(batch).logprobs.detach()
    one_step(roles, batch, "policy")
    one_step(roles, batch, "policy")  # the first step of an adapter moves one of its factors only
    assert not torch.allclose(roles.policy.logprobs(batch).logprobs, before)
    torch.testing.assert_close(roles.reference.logprobs(batch).logprobs, reference)
    torch.testing.assert_close(roles.values(batch), values)


def test_a_value_step_moves_the_value_alone(roles, batch):
    before = roles.policy.logprobs(batch).logprobs.detach()
    reference = roles.reference.logprobs(batch).logprobs.detach()
    one_step(roles, batch, "value")
    one_step(roles, batch, "value")
    assert roles.values(batch).abs().sum() > 0
    torch.testing.assert_close(roles.policy.logprobs(batch).logprobs, before)
    torch.testing.assert_close(roles.reference.logprobs(batch).logprobs, reference)


def test_learners_share_no_weight_and_each_weight_is_named(roles):
    policy, value = roles.policy_parameters, roles.value_parameters
    assert policy
    assert value
    assert not {id(p) for p in policy.values()} & {id(p) for p in value.values()}
    assert {"value_head.weight", "value_head.bias"} <= set(value)


def test_a_value_is_that_of_the_state_before_its_token(roles, batch):
    """Changing a token must not change its own value, nor any before it."""
    one_step(roles, batch, "value")
    one_step(roles, batch, "value")
    before = roles.values(batch).detach()
    ids = batch.ids.clone()
    width = batch.response_mask.shape[1]
    ids[3, -width + 2] = 33  # the third token of the longest response
    after = roles.values(batch._replace(ids=ids)).detach()
    torch.testing.assert_close(after[3, :3], before[3, :3])
    assert not torch.allclose(after[3, 3], before[3, 3])


def test_values_of_a_row_do_not_depend_on_its_neighbours(roles, batch):
    one_step(roles, batch, "value")
    together = roles.values(batch)
    for row in range(4):
        alone = roles.values(batch.rows(slice(row, row + 1)).trimmed())
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], atol=1e-5, rtol=1e-4)


def test_dropout_is_off():
    assert TuningConfig().dropout == 0
