"""Policy, reference and value: what each sees, and what each may change."""

from __future__ import annotations

import pytest
import torch
import transformers

from plumbline.errors import ConfigError, ModelError
from plumbline.lm.backbone import backbone
from plumbline.lm.batches import collate
from plumbline.lm.chat import encode_response
from plumbline.lm.generation import SamplingConfig, generate
from plumbline.lm.load import (
    load_causal_lm,
    load_sequence_scorer,
    trainable_causal_lm,
    trainable_sequence_scorer,
)
from plumbline.lm.model_folder import Reference
from plumbline.lm.precision import compute_precision
from plumbline.lm.save import save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from reward.calibration import Calibration
from reward.mounted import same_base
from reward.scorer import RewardModelScorer
from rl.config import ValueConfig
from rl.roles import Roles

TUNINGS = {
    "full": TuningConfig(method="full"),
    "lora": TuningConfig(method="lora", rank=4),
    "rslora": TuningConfig(method="rslora", rank=4),
    "dora": TuningConfig(method="dora", rank=4),
    "ia3": TuningConfig(method="ia3"),
    "bottleneck": TuningConfig(method="bottleneck", bottleneck_size=4),
    "few": TuningConfig(method="lora", rank=2, target_modules=("q_proj", "v_proj")),
}


@pytest.fixture(params=[*TUNINGS, "goes on", "ia3 goes on"])
def roles(request, toy, tmp_path):
    """Roles on a base, with each tuning; and on a policy that is an adapter already."""
    base_folder, tokenizer = toy.folder, load_tokenizer(toy.folder)
    folder, tuning = base_folder, TUNINGS.get(request.param, TUNINGS["lora"])
    if request.param.endswith("goes on"):
        tuning = TUNINGS[request.param.partition(" ")[0] if "ia3" in request.param else "lora"]
        model = trainable_causal_lm(base_folder, tuning)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        folder = tmp_path / "policy"
        folder.mkdir()
        save_model(model, tokenizer, folder, source=base_folder, card="")
    torch.manual_seed(0)
    made = Roles(Artifact(folder), tuning)
    made.start = load_causal_lm(folder)
    return made


@pytest.fixture
def batch():
    prompts = [[3, 6, 7, 1, 4], [3, 8, 1, 4], [3, 9, 10, 11, 6, 1, 4], [3, 1, 4]]
    return collate(prompts, [[8] * (n + 1) for n in range(4)], 0)


def one_step(roles, batch, which: str) -> None:
    """Take one optimiser step of one learner on a loss of its own."""
    parameters = getattr(roles, f"{which}_parameters")
    optimizer = torch.optim.Adam(parameters.values(), lr=0.01)
    if which == "policy":
        roles.policy.logprobs(batch).logprobs.sum().backward()
    else:
        (roles.values(batch) - 1).square().sum().backward()
    optimizer.step()


def test_policy_and_reference_start_equal_and_the_value_at_0(roles, batch):
    from plumbline.lm.logprobs import response_logprobs

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
    ids[3, -width + 2] = 10  # the third token of the longest response
    after = roles.values(batch._replace(ids=ids)).detach()
    torch.testing.assert_close(after[3, :3], before[3, :3])
    assert not torch.allclose(after[3, 3], before[3, 3])


def test_values_of_a_row_do_not_depend_on_its_neighbours(roles, batch):
    one_step(roles, batch, "value")
    together = roles.values(batch)
    for row in range(4):
        alone = roles.values(batch.rows(slice(row, row + 1)).trimmed())
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], atol=1e-5, rtol=1e-4)


# A reward model that moves in to the policy's base.

TUNING = TuningConfig(method="lora", rank=4, alpha=8)
CALIBRATED = Calibration(mean=0.7, std=1.6)


def shaken(model, size: float):
    """Give a new adapter (and a head) something to say."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def reward_model(toy, folder, tuning=TUNING):
    torch.manual_seed(0)
    model = shaken(trainable_sequence_scorer(toy.folder, tuning), 0.2)
    folder.mkdir(exist_ok=True)
    save_model(model, load_tokenizer(toy.folder), folder, source=toy.folder, card="")
    CALIBRATED.write(folder)
    return RewardModelScorer(folder)


ANSWERS = ["ab", "f", "", "cdefab"]


def test_a_reward_model_that_moved_in_scores_as_it_did(toy, tmp_path):
    scorer = reward_model(toy, tmp_path / "reward")
    roles = Roles(toy.artifact, TUNING, ValueConfig())
    held = sum(p.numel() for p in roles.model.parameters())
    mounted = roles.mount(scorer)
    assert mounted is not scorer
    assert sum(p.numel() for p in roles.model.parameters()) < 1.5 * held  # no second base
    shaken(roles.model, 0.3)  # what the policy learns is nothing to the reward
    prompts = toy.prompts[:4]
    expected = scorer.score(prompts, ANSWERS)
    assert max(expected) - min(expected) > 0.1
    assert mounted.score(prompts, ANSWERS) == pytest.approx(expected, abs=1e-4)
    trained = {*roles.policy_parameters, *roles.value_parameters}
    assert not any(".reward." in name for name in trained)
    assert all(
        p.requires_grad == (n in trained)
        for n, p in roles.model.named_parameters()
        if ".lora_" in n
    )


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("precision", ["model", "bfloat16"])
def test_a_reward_model_is_asked_by_the_fast_pass(toy, tmp_path, monkeypatch, moved, precision):
    scorer = reward_model(toy, tmp_path / "reward")
    roles = Roles(toy.artifact, TUNING, ValueConfig())
    plain = load_sequence_scorer(scorer.folder).eval()
    prompts = [toy.prompts[0], *toy.prompts[:3]]
    texts = (
        encode_response(scorer.tokenizer, prompt, answer)
        for prompt, answer in zip(prompts, ANSWERS, strict=True)
    )
    rows = [scorer.end_of([*prompt, *response]) for prompt, response in texts]
    with torch.no_grad():
        expected = [plain(input_ids=torch.tensor([row])).logits.item() for row in rows]
    asked = roles.mount(scorer) if moved else scorer

    def refuse(*_, **__):
        raise AssertionError("the model's own pass was taken")

    monkeypatch.setattr(type(backbone(scorer.model)), "forward", refuse)
    with compute_precision(precision, "cpu"):
        result = asked.score(prompts, ANSWERS)
    expected = [(raw - 0.7) / 1.6 for raw in expected]
    assert result == pytest.approx(expected, abs=1e-4 if precision == "model" else 0.03)
    # The head's product is not rounded to bfloat16: only what it reads is.
    numbers = torch.tensor(result) * 1.6 + 0.7
    assert not torch.equal(numbers, numbers.bfloat16().float())


def test_moving_in_changes_no_other_role(toy, tmp_path):
    roles = Roles(toy.artifact, TUNING, ValueConfig(head="normal"), moving_reference=True)
    shaken(roles.model, 0.3)
    rows = collate([[6, 7, 8]], [[9, 10, 11]], roles.policy.pad_id)

    def looks():
        return [
            roles.policy.logprobs(rows).logprobs.detach(),
            roles.reference.logprobs(rows).logprobs.detach(),
            roles.values(rows).detach(),
        ]

    before = looks()
    mounted = roles.mount(reward_model(toy, tmp_path / "reward"))
    mounted.score(toy.prompts[:1], ["ab"])
    for one, two in zip(before, looks(), strict=True):
        assert torch.equal(one, two)


def test_a_reward_model_of_another_base_stays_where_it_is(toy, tmp_path):
    scorer = reward_model(toy, tmp_path / "reward", TuningConfig(method="full"))
    assert Roles(toy.artifact, TUNING, ValueConfig()).mount(scorer) is scorer
    own = reward_model(toy, tmp_path / "adapter")
    full = Roles(toy.artifact, TuningConfig(method="full"), ValueConfig())
    assert full.mount(own) is own


def test_a_value_model_that_starts_as_the_reward_model(toy, tmp_path):
    """At the end token its value is the calibrated reward of the whole response."""
    scorer = reward_model(toy, tmp_path / "reward")
    roles = Roles(toy.artifact, TUNING, ValueConfig(start="reward"))
    roles.start_values_from(roles.mount(scorer))
    for prompt, answer in zip(toy.prompts[:4], ANSWERS, strict=True):
        ids = [*roles.tokenizer.encode(answer, add_special_tokens=False), 1]
        # The value at a token is that of the state before it, so one more is needed to see
        # what is thought of the response with its end.
        batch = collate([roles.policy.encode(prompt)], [[*ids, 0]], roles.policy.pad_id)
        (expected,) = scorer.score([prompt], [answer])
        assert roles.values(batch)[0, -1].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "other",
    [
        TuningConfig(method="lora", rank=2, alpha=8),
        TuningConfig(method="lora", rank=4, alpha=16),
        TuningConfig(method="lora", rank=4, alpha=8, target_modules=("q_proj", "v_proj")),
    ],
    ids=["rank", "alpha", "modules"],
)
def test_a_value_model_of_another_form_cannot_start_as_the_reward_model(toy, tmp_path, other):
    roles = Roles(toy.artifact, other, ValueConfig(start="reward"))
    mounted = roles.mount(reward_model(toy, tmp_path / "reward"))
    with pytest.raises(ModelError, match="the same rank, alpha and target_modules"):
        roles.start_values_from(mounted)


def test_without_a_reward_model_on_the_base_values_cannot_start_from_it(toy):
    roles = Roles(toy.artifact, TUNING, ValueConfig(start="reward"))
    with pytest.raises(ModelError, match="not an adapter on the policy's base"):
        roles.start_values_from(object())


# A reference that follows, and a trunk that is shared.


@pytest.mark.parametrize("tuning", [TUNING, TuningConfig(method="full")], ids=["lora", "full"])
def test_a_reference_follows_by_hand(toy, tuning):
    roles = Roles(toy.artifact, tuning, None, moving_reference=True)
    start = {name: p.detach().clone() for name, p in roles.reference_parameters.items()}
    assert set(start) == set(roles.policy_parameters)
    shaken(roles.model, 0.1)
    for name, p in roles.reference_parameters.items():  # it was not moved by that itself
        if tuning.method == "lora":
            p.data.copy_(start[name])
    moved = {name: p.detach().clone() for name, p in roles.policy_parameters.items()}
    roles.update_reference(0.75)
    for name, parameter in roles.reference_parameters.items():
        expected = 0.75 * start[name] + 0.25 * moved[name]
        torch.testing.assert_close(parameter.detach(), expected)
        assert torch.equal(roles.policy_parameters[name], moved[name])


def test_one_pass_through_a_shared_trunk_says_what_two_would(toy):
    roles = Roles(toy.artifact, TUNING, ValueConfig(trunk="shared", head="normal"))
    shaken(roles.model, 0.2)
    rows = collate([[6, 7, 8], [3, 9]], [[9, 10, 1], [7, 1]], roles.policy.pad_id)
    said, values = roles.logprobs_and_values(rows, 0.7)
    alone = roles.policy.logprobs(rows, 0.7)
    torch.testing.assert_close(said.logprobs, alone.logprobs)
    torch.testing.assert_close(said.entropy, alone.entropy)
    torch.testing.assert_close(values, roles.values(rows))
    assert set(roles.value_parameters) == {"value_head.weight", "value_head.bias"}
    (values - 1).square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in roles.policy_parameters.values())


@pytest.mark.parametrize("kind", ["granite", "cohere"])
def test_a_head_that_is_more_than_a_matrix_is_asked_as_a_whole(toy, tmp_path, kind):
    """Granite divides its logits by a number, Cohere multiplies them."""
    config, model, scale = {
        "granite": (transformers.GraniteConfig, transformers.GraniteForCausalLM, "logits_scaling"),
        "cohere": (transformers.CohereConfig, transformers.CohereForCausalLM, "logit_scale"),
    }[kind]
    tokenizer = toy.make_tokenizer()
    torch.manual_seed(0)
    model(
        config(
            **{scale: 4.0},
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            initializer_range=0.5,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    roles = Roles(Artifact(tmp_path), TUNING, ValueConfig(trunk="shared", head="normal"))
    prompts = [roles.policy.encode(prompt) for prompt in toy.prompts[:3]]
    drawn = generate(
        roles.model,
        prompts,
        range(3),
        SamplingConfig(max_new_tokens=6),
        end_ids=frozenset(),
        pad_id=0,
        value_head=roles.value_of,
    )
    rows = collate(prompts, [g.ids for g in drawn], roles.policy.pad_id)
    with torch.no_grad():
        said, values = roles.logprobs_and_values(rows, 1.0)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(said.logprobs, torch.tensor([g.logprobs for g in drawn]), **close)
    torch.testing.assert_close(said.logprobs, roles.policy.logprobs(rows).logprobs, **close)
    torch.testing.assert_close(values, torch.tensor([g.values for g in drawn]), **close)
    torch.testing.assert_close(values, roles.values(rows), **close)
    assert values.std() > 0.1


def test_full_tuning_trains_in_float32_whatever_the_base_is_stored_in(toy, tmp_path):
    tokenizer = load_tokenizer(toy.folder)
    load_causal_lm(toy.folder).bfloat16().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    roles = Roles(
        Artifact(tmp_path), TuningConfig(method="full"), ValueConfig(), moving_reference=True
    )
    for parameters in (
        roles.policy_parameters, roles.value_parameters, roles.reference_parameters
    ):  # fmt: skip
        assert {p.dtype for p in parameters.values()} == {torch.float32}
    rows = collate([[6, 7, 8]], [[9, 10, 11]], roles.policy.pad_id)
    assert torch.equal(
        roles.policy.logprobs(rows).logprobs, roles.reference.logprobs(rows).logprobs
    )
    before = {name: p.detach().clone() for name, p in roles.policy_parameters.items()}
    optimizer = torch.optim.AdamW(roles.policy_parameters.values(), lr=1e-6, weight_decay=0.0)
    roles.policy.logprobs(rows).logprobs.sum().backward()
    moving = {name for name, p in roles.policy_parameters.items() if p.grad.any()}
    optimizer.step()
    for name in moving:
        assert not torch.equal(roles.policy_parameters[name], before[name])


@pytest.mark.parametrize("goes_on", [False, True])
def test_the_first_policy_stays_where_the_reference_follows(toy, tmp_path, goes_on):
    folder = toy.folder
    if goes_on:
        folder = tmp_path / "policy"
        folder.mkdir()
        model = shaken(trainable_causal_lm(toy.folder, TUNING), 0.2)
        save_model(model, load_tokenizer(toy.folder), folder, source=toy.folder, card="")
    roles = Roles(Artifact(folder), TUNING, ValueConfig(), moving_reference=True)
    rows = collate([[6, 7, 8]], [[9, 10, 11]], roles.policy.pad_id)
    start = roles.policy.logprobs(rows).logprobs.detach()
    torch.testing.assert_close(roles.initial_reference.logprobs(rows).logprobs, start)
    with torch.no_grad():
        for parameter in roles.policy_parameters.values():
            parameter.add_(0.2 * torch.randn_like(parameter))
    roles.update_reference(0.2)
    assert not torch.allclose(roles.reference.logprobs(rows).logprobs, start, atol=1e-2)
    torch.testing.assert_close(roles.initial_reference.logprobs(rows).logprobs, start)


@pytest.mark.parametrize("tuning", [TUNING, TuningConfig(method="full")], ids=["lora", "full"])
def test_another_model_is_the_reference_where_it_is_given(toy, tmp_path, tuning):
    other = tmp_path / "other"
    other.mkdir()
    model = shaken(trainable_causal_lm(toy.folder, TuningConfig(method="full")), 0.2)
    save_model(model, load_tokenizer(toy.folder), other, source=toy.folder, card="")
    roles = Roles(toy.artifact, tuning, given_reference=Artifact(other))
    rows = collate([[6, 7, 8]], [[9, 10, 11]], roles.policy.pad_id)
    plain = transformers.AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        logprobs = plain(torch.tensor([[6, 7, 8, 9, 10, 11]])).logits.log_softmax(-1)
    expected = logprobs[0, [2, 3, 4], [9, 10, 11]]
    torch.testing.assert_close(roles.reference.logprobs(rows).logprobs[0], expected)
    one_step(roles, rows, "policy")
    torch.testing.assert_close(roles.reference.logprobs(rows).logprobs[0], expected)
    assert not torch.allclose(roles.policy.logprobs(rows).logprobs[0], expected, atol=1e-2)
    with pytest.raises(ConfigError, match="can be no other model"):
        Roles(toy.artifact, tuning, moving_reference=True, given_reference=Artifact(other))


def test_under_bfloat16_a_value_is_not_rounded_to_it(toy):
    roles = Roles(toy.artifact, TUNING, ValueConfig(head="normal"))
    rows = collate([[6, 7, 8]], [[9, 10, 11, 7, 8]], roles.policy.pad_id)
    with torch.no_grad(), compute_precision("bfloat16", "cpu"):
        values = roles.values(rows)
    assert not torch.equal(values, values.bfloat16().float())


def test_another_revision_is_another_base(toy, tmp_path):
    scorer = reward_model(toy, tmp_path / "reward")
    roles = Roles(toy.artifact, TUNING, ValueConfig())
    assert same_base(scorer.folder, roles.model)
    roles.model.peft_config["default"].revision = "v2"
    assert not same_base(scorer.folder, roles.model)


def test_roles_say_what_base_and_revision_they_are_on(toy, tmp_path):
    tokenizer = load_tokenizer(toy.folder)
    Reference(str(toy.folder), revision="v2").write(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    roles = Roles(Artifact(tmp_path), TUNING, ValueConfig())
    config = roles.model.peft_config["default"]
    assert (config.base_model_name_or_path, config.revision) == (str(toy.folder), "v2")


def test_a_normal_head_has_the_paper_s_standard_deviation(toy):
    torch.manual_seed(0)
    heads = [Roles(toy.artifact, TUNING, ValueConfig(head="normal")).value_head for _ in range(4)]
    weights = torch.cat([head.weight.detach().flatten() for head in heads])
    assert weights.std().item() == pytest.approx(33**-0.5, rel=0.2)  # 128 draws
    assert not any(head.bias.any() for head in heads)
