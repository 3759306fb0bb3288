"""Loading models: whole, adapters, reward heads; and what is not the whole of one is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from plumbline.errors import ModelError
from plumbline.lm.adapters import using_adapter
from plumbline.lm.load import (
    load_causal_lm,
    load_sequence_scorer,
    trainable_causal_lm,
    trainable_sequence_scorer,
)
from plumbline.lm.model_folder import source_of
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig, parameter_counts
from plumbline.lm.weight_files import check_weights


def test_the_base_opens_with_from_pretrained_alone(base_folder, tools):
    model = AutoModelForCausalLM.from_pretrained(base_folder)
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.chat_template
    torch.testing.assert_close(tools.logits(model), tools.logits(load_causal_lm(base_folder)))


def test_a_new_adapter_changes_nothing_until_it_is_trained(base_folder, tools):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    torch.testing.assert_close(tools.logits(model), tools.logits(load_causal_lm(base_folder)))
    counts = parameter_counts(model)
    assert 0 < counts["trainable_parameters"] < counts["parameters"] / 2


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_is_saved_loads_as_it_was(base_folder, tokenizer, tmp_path, method, tools):
    model = trainable_causal_lm(base_folder, TuningConfig(method=method))
    tools.nudge(model)
    folder = tools.saved(model, tmp_path / "policy", base_folder, tokenizer)
    torch.testing.assert_close(tools.logits(load_causal_lm(folder)), tools.logits(model))
    assert (source_of(folder).adapter is None) == (method == "full")


def test_an_adapter_goes_on_training_and_full_tuning_merges_it(
    base_folder, tokenizer, tmp_path, tools
):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    tools.nudge(model)
    folder = tools.saved(model, tmp_path / "policy", base_folder, tokenizer)
    again = trainable_causal_lm(folder, TuningConfig(method="lora", rank=99))
    assert isinstance(again, PeftModel)
    assert again.peft_config["default"].r == 4  # it keeps the rank it has
    assert parameter_counts(again)["trainable_parameters"] > 0
    merged = trainable_causal_lm(folder, TuningConfig(method="full"))
    assert not isinstance(merged, PeftModel)
    counts = parameter_counts(merged)
    assert counts["trainable_parameters"] == counts["parameters"]  # PEFT would leave some frozen
    torch.testing.assert_close(tools.logits(merged), tools.logits(model), atol=1e-5, rtol=1e-4)


def test_several_adapters_share_a_base_and_do_not_mix(base_folder, tools):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    plain = tools.logits(load_causal_lm(base_folder))
    tools.nudge(model)
    trained = tools.logits(model)
    model.add_adapter("second", model.peft_config["default"])
    with using_adapter(model, "second"):
        torch.testing.assert_close(tools.logits(model), plain)
    with using_adapter(model, None):
        torch.testing.assert_close(tools.logits(model), plain)
    torch.testing.assert_close(tools.logits(model), trained)
    assert all(p.requires_grad for name, p in model.named_parameters() if ".default." in name)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_reward_head_is_saved_and_restored(base_folder, tokenizer, tmp_path, method, tools):
    torch.manual_seed(0)
    model = trainable_sequence_scorer(base_folder, TuningConfig(method=method))
    tools.nudge(model)
    folder = tools.saved(model, tmp_path / "reward", base_folder, tokenizer)
    expected = tools.logits(model)
    assert expected.shape == (1, 1)
    torch.testing.assert_close(tools.logits(load_sequence_scorer(folder)), expected)
    if method == "full":
        opened = AutoModelForSequenceClassification.from_pretrained(folder)
        torch.testing.assert_close(tools.logits(opened), expected)


def test_a_reward_model_starts_from_the_policy_s_adapter(base_folder, tokenizer, tmp_path, tools):
    policy = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    tools.nudge(policy)
    folder = tools.saved(policy, tmp_path / "policy", base_folder, tokenizer)
    reward = trainable_sequence_scorer(folder, TuningConfig(method="lora", rank=4))
    ours = {n.split("base_model.model.")[-1]: p for n, p in reward.named_parameters()}
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            torch.testing.assert_close(ours[name.split("base_model.model.")[-1]], parameter)


@pytest.mark.parametrize("trainable", [trainable_causal_lm, trainable_sequence_scorer])
def test_all_weights_that_train_are_in_float32(base_folder, tokenizer, tmp_path, trainable, tools):
    # A step of 1e-6 is rounded away in bfloat16, in which many bases are stored.
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.bfloat16)
    folder = tools.saved(model, tmp_path / "half", base_folder, tokenizer)
    assert load_causal_lm(folder).dtype == torch.bfloat16
    model = trainable(folder, TuningConfig(method="full"))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    adapted = trainable_causal_lm(folder, TuningConfig(method="lora"))
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}


# What is not the whole of a model.


@pytest.fixture
def plain(model_of_kind, tmp_path):
    """A copy of a tiny model, to be damaged."""
    return shutil.copytree(model_of_kind("plain"), tmp_path / "plain")


def change_weights(folder, change):
    file = folder / ("adapter_model.safetensors" if "adapter" in folder.name else
                     "model.safetensors")  # fmt: skip
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


UP = "model.layers.0.mlp.up_proj.weight"
LOADERS = [load_causal_lm, load_sequence_scorer]


def test_a_language_model_is_no_reward_model(plain):
    with pytest.raises(ModelError, match=r"no trained reward head \(score\.weight is not in it\)"):
        load_sequence_scorer(plain)


def test_a_policy_s_adapter_is_no_reward_model(base_folder, tokenizer, tmp_path, tools):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    folder = tools.saved(model, tmp_path / "adapter", base_folder, tokenizer)
    with pytest.raises(ModelError, match="no trained reward head"):
        load_sequence_scorer(folder)


def test_a_reward_model_is_no_language_model(plain, tokenizer, tmp_path, tools):
    model = trainable_sequence_scorer(plain, TuningConfig(method="full"))
    folder = tools.saved(model, tmp_path / "reward", plain, load_tokenizer(plain))
    with pytest.raises(ModelError, match=r"lm_head\.weight is not in its files.*has score\.weight"):
        load_causal_lm(folder)


def test_a_missing_weight_is_refused(plain):
    change_weights(plain, lambda weights: weights.pop(UP))
    for load in (load_causal_lm, lambda f: trainable_sequence_scorer(f, TuningConfig())):
        with pytest.raises(ModelError, match=rf"{UP} is not in its files"):
            load(plain)


def test_a_weight_of_another_shape_is_refused(plain):
    change_weights(plain, lambda weights: weights.update({UP: weights[UP][:10].clone()}))
    with pytest.raises(ModelError, match="other shapes than its config says"):
        load_causal_lm(plain)


def test_a_weight_too_many_is_refused(plain):
    change_weights(plain, lambda weights: weights.update({"v_head.weight": torch.zeros(1, 32)}))
    with pytest.raises(ModelError, match=r"no place for: v_head\.weight"):
        load_causal_lm(plain)


@pytest.mark.parametrize("bytes_left", [0, 5, 1000, -1])
def test_a_file_that_was_cut_is_found_by_its_header(plain, bytes_left):
    check_weights(plain)
    file = plain / "model.safetensors"
    file.write_bytes(file.read_bytes()[:bytes_left])
    for look in (check_weights, load_causal_lm):
        with pytest.raises(ModelError, match=r"weights of .*cannot be read"):
            look(plain)


def test_shapes_are_compared_with_the_config_by_the_headers(plain):
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ModelError, match=r"proj.weight is \[.*\] in its files, and .* says \[.*48"):
        check_weights(plain)


def test_an_index_that_names_what_is_not_there(plain):
    index = plain / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {UP: "model-00001-of-00002.safetensors"}}))
    with pytest.raises(ModelError, match=r"of-00002\.safetensors is not there, of 1 f"):
        check_weights(plain)
    index.write_text(json.dumps({"weight_map": {"gone.weight": "model.safetensors"}}))
    with pytest.raises(ModelError, match=r"gone\.weight is in its index and in none"):
        check_weights(plain)


@pytest.fixture
def adapter(base_folder, tokenizer, tmp_path, tools):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    return tools.saved(model, tmp_path / "adapter", base_folder, tokenizer)


def test_a_missing_weight_of_an_adapter_is_refused(adapter):
    change_weights(adapter, lambda weights: weights.pop(sorted(weights)[0]))
    with pytest.raises(ModelError, match=r"not the whole of an adapter: .*lora_A"):
        load_causal_lm(adapter)


def test_an_adapter_of_another_size_is_a_sentence(adapter):
    change_weights(
        adapter, lambda weights: weights.update({n: w[:, :3].clone() for n, w in weights.items()})
    )
    with pytest.raises(ModelError, match=r"cannot be loaded: size mismatch for .*other shapes"):
        load_causal_lm(adapter)


def test_an_adapter_without_its_file_is_a_sentence(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm(adapter)
