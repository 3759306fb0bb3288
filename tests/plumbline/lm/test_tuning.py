"""Tuning methods: each trains, is saved in PEFT's format, reads right everywhere, or is refused."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from plumbline.errors import ModelError
from plumbline.lm.adapters import using_adapter
from plumbline.lm.batches import collate
from plumbline.lm.export import merge_model
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.layers import layer_groups, unfrozen_groups
from plumbline.lm.load import load_causal_lm, trainable_causal_lm, trainable_sequence_scorer
from plumbline.lm.logprobs import response_logprobs
from plumbline.lm.policy import Policy
from plumbline.lm.tuning import TuningConfig, for_use, parameter_counts
from plumbline.lm.tuning_methods import TUNING_METHODS

ADAPTERS = [name for name, row in TUNING_METHODS.items() if row.has_adapter and name != "qlora"]
TOKENS = [name for name, row in TUNING_METHODS.items() if row.weights == "virtual tokens"]
MERGED = [name for name in ADAPTERS if TUNING_METHODS[name].merges]
CONTINUED = [name for name in ADAPTERS if name not in TOKENS and name != "pissa"]


def text(tools, model):
    """Logits [1, T, V] at the tokens of a text; those of virtual tokens stand before them."""
    return tools.logits(model)[:, -tools.IDS.shape[1] :]


def saved(base_folder, tokenizer, tmp_path, tools, method, **settings):
    """A model whose weights moved as training moves them, and its folder."""
    torch.manual_seed(0)
    model = trainable_causal_lm(base_folder, TuningConfig(method=method, **settings))
    tools.nudge(model)
    return model, tools.saved(model.eval(), tmp_path / method, base_folder, tokenizer)


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_new_adapter_changes_nothing_or_only_by_its_tokens(base_folder, method, tools):
    model = trainable_causal_lm(base_folder, TuningConfig(method=method)).eval()
    plain = text(tools, load_causal_lm(base_folder).eval())
    counts = parameter_counts(model)
    assert 0 < counts["trainable_parameters"] < 0.5 * counts["parameters"]
    if method in TOKENS:
        assert not torch.allclose(text(tools, model), plain)
    else:
        torch.testing.assert_close(text(tools, model), plain, atol=1e-5, rtol=1e-4)
    if method != "pissa":
        with using_adapter(model, None):
            torch.testing.assert_close(text(tools, model), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ADAPTERS)
def test_peft_opens_what_is_saved_on_the_plain_base(
    base_folder, tokenizer, tmp_path, method, tools
):
    model, folder = saved(base_folder, tokenizer, tmp_path, tools, method)
    assert not torch.allclose(text(tools, model), text(tools, load_causal_lm(base_folder)))
    base = AutoModelForCausalLM.from_pretrained(base_folder)
    opened = PeftModel.from_pretrained(base, folder).eval()
    torch.testing.assert_close(text(tools, opened), text(tools, model), atol=2e-5, rtol=1e-3)
    ours = load_causal_lm(folder).eval()
    torch.testing.assert_close(text(tools, ours), text(tools, model), atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("method", MERGED)
def test_merged_equals_unmerged(base_folder, tokenizer, tmp_path, method, tools):
    model, folder = saved(base_folder, tokenizer, tmp_path, tools, method)
    merge_model(folder, tmp_path / "whole")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(text(tools, merged), text(tools, model), atol=1e-4, rtol=1e-3)
    again = trainable_causal_lm(folder, TuningConfig(method="full")).eval()
    torch.testing.assert_close(text(tools, again), text(tools, model), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", [name for name in ADAPTERS if name not in MERGED])
def test_what_cannot_be_merged_says_so(base_folder, tokenizer, tmp_path, method, tools):
    _, folder = saved(base_folder, tokenizer, tmp_path, tools, method)
    with pytest.raises(ModelError, match="cannot be merged"):
        merge_model(folder, tmp_path / "whole")
    with pytest.raises(ModelError, match="cannot be merged"):
        trainable_causal_lm(folder, TuningConfig(method="full"))
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize("method", CONTINUED)
def test_an_adapter_continues_as_what_it_is(base_folder, tokenizer, tmp_path, method, tools):
    model, folder = saved(base_folder, tokenizer, tmp_path, tools, method)
    again = trainable_causal_lm(folder, TuningConfig(method=method)).eval()
    torch.testing.assert_close(text(tools, again), text(tools, model))
    counts = [parameter_counts(m)["trainable_parameters"] for m in (again, model)]
    assert counts[0] == counts[1] > 0
    other = "ia3" if method != "ia3" else "lora"
    with pytest.raises(ModelError, match=f"of the kind {method}, and tuning.method is {other}"):
        trainable_causal_lm(folder, TuningConfig(method=other))


@pytest.mark.parametrize("method", TOKENS)
def test_virtual_tokens_are_not_trained_further(base_folder, tokenizer, tmp_path, method, tools):
    _, folder = saved(base_folder, tokenizer, tmp_path, tools, method)
    for other in (method, "lora"):
        with pytest.raises(ModelError, match="from the model before it"):
            trainable_causal_lm(folder, TuningConfig(method=other))


def test_a_pissa_adapter_is_saved_as_a_lora(base_folder, tokenizer, tmp_path, tools):
    model, folder = saved(base_folder, tokenizer, tmp_path, tools, "pissa", rank=4)
    again = trainable_causal_lm(folder, TuningConfig(method="lora")).eval()
    assert again.peft_config["default"].r == 8
    torch.testing.assert_close(text(tools, again), text(tools, model), atol=2e-5, rtol=1e-3)
    with pytest.raises(ModelError, match=r"Set tuning.rank to 64"):
        trainable_causal_lm(base_folder, TuningConfig(method="pissa", rank=65))


@pytest.mark.parametrize("method", ADAPTERS)
def test_samples_and_log_probabilities_agree_and_do_not_depend_on_the_batch(
    base_folder, tokenizer, tmp_path, method, tools
):
    """The decoder, the padded pass and PEFT's own pass on one row read the same model."""
    _, folder = saved(base_folder, tokenizer, tmp_path, tools, method)
    policy = Policy.load(folder)
    prompts = [[5, 6, 7], [9, 10, 11, 12, 13, 14, 15], [8]]
    config = SamplingConfig(max_new_tokens=6)
    together = policy.sample(prompts, [1, 2, 3], config)
    alone = [policy.sample([p], [s], config)[0] for p, s in zip(prompts, [1, 2, 3], strict=True)]
    assert [g.ids for g in together] == [g.ids for g in alone]
    batch = collate(prompts, [g.ids for g in together], policy.pad_id)
    ours = response_logprobs(policy.model, batch).logprobs
    for row, (prompt, generation) in enumerate(zip(prompts, together, strict=True)):
        ids = torch.tensor([prompt + generation.ids])
        with torch.no_grad():
            logits = policy.model(input_ids=ids).logits[0, -len(generation.ids) - 1 : -1]
        expected = torch.log_softmax(logits, -1)[range(len(generation.ids)), generation.ids]
        count = len(generation.ids)
        torch.testing.assert_close(ours[row, :count], expected, atol=1e-4, rtol=1e-4)
        sampled = torch.tensor(generation.logprobs)
        torch.testing.assert_close(sampled, expected, atol=1e-4, rtol=1e-4)
    with using_adapter(policy.model, None):
        without = response_logprobs(policy.model, batch).logprobs
    base = response_logprobs(load_causal_lm(base_folder).eval(), batch).logprobs
    torch.testing.assert_close(without, base, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["rslora", "dora", "ia3", "bottleneck"])
def test_a_reward_model_starts_from_an_adapter_of_any_kind(
    base_folder, tokenizer, tmp_path, method, tools
):
    policy, folder = saved(base_folder, tokenizer, tmp_path, tools, method)
    reward = trainable_sequence_scorer(folder, TuningConfig(method=method))
    ours = {n.split("base_model.model.")[-1]: p for n, p in reward.named_parameters()}
    trained = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    assert trained
    for name, parameter in trained.items():
        torch.testing.assert_close(ours[name.split("base_model.model.")[-1]], parameter)


@pytest.mark.parametrize("use", ["reward", "preferences", "ppo"])
def test_a_stage_refuses_what_it_cannot_use(use):
    check = for_use(use)
    for name, row in TUNING_METHODS.items():
        if use in row.cannot:
            with pytest.raises(ValueError, match=rf"method is {name}, which .* cannot use"):
                check(TuningConfig(method=name))
        else:
            check(TuningConfig(method=name))


def test_settings_of_another_method_are_refused():
    with pytest.raises(ValidationError, match="it needs method: bottleneck"):
        TuningConfig(method="lora", bottleneck_size=8)
    with pytest.raises(ValidationError, match="it needs method: prefix or prompt or p_tuning"):
        TuningConfig(method="ia3", virtual_tokens=3)
    with pytest.raises(ValidationError, match="Did you mean 'lora'"):
        TuningConfig(method="loro")


def test_houlsby_puts_adapters_behind_attention_too(base_folder):
    counts = {
        placement: parameter_counts(
            trainable_causal_lm(
                base_folder,
                TuningConfig(method="bottleneck", placement=placement, bottleneck_size=4),
            )
        )["trainable_parameters"]
        for placement in ("pfeiffer", "houlsby")
    }
    # Width 64, two layers: down 64 * 4 + 4, up 4 * 64 + 64.
    assert counts == {"pfeiffer": 2 * 580, "houlsby": 4 * 580}


def test_last_layers_train_the_end_of_the_model(base_folder):
    model = trainable_causal_lm(base_folder, TuningConfig(method="last_layers", trained_layers=1))
    training = {n for n, p in model.named_parameters() if p.requires_grad}
    assert training == {
        n
        for n, _ in model.named_parameters()
        if n.startswith(("model.layers.1.", "model.norm.", "lm_head."))
    }
    with pytest.raises(ModelError, match="has 2 layers"):
        trainable_causal_lm(base_folder, TuningConfig(method="last_layers", trained_layers=3))


def test_groups_are_in_the_order_of_unfreezing(base_folder):
    model = load_causal_lm(base_folder)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = [{names[id(p)] for p in group} for group in layer_groups(model)]
    assert [len(group) for group in groups[1:]] == [len(groups[0]) - 2, 1]
    assert groups[0] > {"model.norm.weight", "lm_head.weight"} and groups[-1] == {
        "model.embed_tokens.weight"
    }
    assert sum(map(len, groups)) == len(names)


def test_layers_are_unfrozen_evenly():
    # Three groups, all from step 5 of 10 on: one in [0, 2.5), two in [2.5, 5).
    assert [unfrozen_groups(s, 10, 3, 0.5) for s in range(10)] == [1, 1, 1, 2, 2, 3, 3, 3, 3, 3]
    assert [unfrozen_groups(s, 4, 5, 1.0) for s in range(5)] == [1, 2, 3, 4, 5]
