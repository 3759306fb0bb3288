"""Models on disk: whole, adapters, references; and that other tools open them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from plumbline.errors import ConfigError, ModelError
from plumbline.lm.adapters import using_adapter
from plumbline.lm.load import (
    load_causal_lm,
    load_sequence_scorer,
    trainable_causal_lm,
    trainable_sequence_scorer,
)
from plumbline.lm.model_folder import Reference, source_of
from plumbline.lm.policy import Policy
from plumbline.lm.save import save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig, parameter_counts
from plumbline.training.base_model import BaseModelConfig, build_base

IDS = torch.tensor([[5, 20, 30, 40, 50]])


def logits(model) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def nudge(model) -> None:
    """Move every trainable weight, as training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def saved(model, folder, source, tokenizer):
    folder.mkdir()
    save_model(model, tokenizer, folder, source=source, card="# A model\n")
    assert not list(folder.rglob("*.bin"))
    assert not list(folder.rglob("*.pt"))
    return folder


def test_the_base_opens_with_from_pretrained_alone(base_folder):
    model = AutoModelForCausalLM.from_pretrained(base_folder)
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.chat_template
    torch.testing.assert_close(logits(model), logits(load_causal_lm(base_folder)))


def test_a_new_adapter_changes_nothing_until_it_is_trained(base_folder):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    torch.testing.assert_close(logits(model), logits(load_causal_lm(base_folder)))
    counts = parameter_counts(model)
    assert 0 < counts["trainable_parameters"] < counts["parameters"] / 2


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_is_saved_loads_as_it_was(base_folder, tokenizer, tmp_path, method):
    model = trainable_causal_lm(base_folder, TuningConfig(method=method, rank=4))
    nudge(model)
    folder = saved(model, tmp_path / "policy", base_folder, tokenizer)
    torch.testing.assert_close(logits(load_causal_lm(folder)), logits(model))
    assert (source_of(folder).adapter is None) == (method == "full")


def test_an_adapter_opens_in_peft_itself(base_folder, tokenizer, tmp_path):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    nudge(model)
    folder = saved(model, tmp_path / "policy", base_folder, tokenizer)
    opened = AutoPeftModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(opened), logits(model))


def test_an_adapter_goes_on_training_and_full_tuning_merges_it(base_folder, tokenizer, tmp_path):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    nudge(model)
    folder = saved(model, tmp_path / "policy", base_folder, tokenizer)
    again = trainable_causal_lm(folder, TuningConfig(method="lora", rank=99))
    assert isinstance(again, PeftModel)
    assert again.peft_config["default"].r == 4  # it keeps the rank it has
    assert parameter_counts(again)["trainable_parameters"] > 0
    merged = trainable_causal_lm(folder, TuningConfig(method="full"))
    assert not isinstance(merged, PeftModel)
    counts = parameter_counts(merged)
    assert counts["trainable_parameters"] == counts["parameters"]  # PEFT would leave some frozen
    torch.testing.assert_close(logits(merged), logits(model), atol=1e-5, rtol=1e-4)


def test_qlora_holds_the_base_in_four_bits_and_trains(base_folder, tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    model = trainable_causal_lm(base_folder, TuningConfig(method="qlora", rank=4))
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear4bit" in kinds
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert gradients
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
    nudge(model)
    folder = saved(model, tmp_path / "policy", base_folder, tokenizer)
    quantized = load_causal_lm(folder, quantize=True)
    # On some processors the frozen weights are multiplied in bfloat16 once nothing trains.
    torch.testing.assert_close(logits(quantized), logits(model), atol=2e-2, rtol=0)
    # The adapter may also be put on the base in full precision, which is near.
    assert torch.corrcoef(torch.stack([logits(load_causal_lm(folder)).flatten(),
                                       logits(model).flatten()]))[0, 1] > 0.9  # fmt: skip


def test_several_adapters_share_a_base_and_do_not_mix(base_folder):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    plain = logits(load_causal_lm(base_folder))
    nudge(model)
    trained = logits(model)
    model.add_adapter("second", model.peft_config["default"])
    with using_adapter(model, "second"):
        torch.testing.assert_close(logits(model), plain)
    with using_adapter(model, None):
        torch.testing.assert_close(logits(model), plain)
    torch.testing.assert_close(logits(model), trained)
    assert all(p.requires_grad for name, p in model.named_parameters() if ".default." in name)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_reward_head_is_saved_and_restored(base_folder, tokenizer, tmp_path, method):
    torch.manual_seed(0)
    model = trainable_sequence_scorer(base_folder, TuningConfig(method=method, rank=4))
    nudge(model)
    folder = saved(model, tmp_path / "reward", base_folder, tokenizer)
    expected = logits(model)
    assert expected.shape == (1, 1)
    torch.testing.assert_close(logits(load_sequence_scorer(folder)), expected)
    if method == "full":
        opened = AutoModelForSequenceClassification.from_pretrained(folder)
        torch.testing.assert_close(logits(opened), expected)


def test_a_reward_model_starts_from_the_policy_s_adapter(base_folder, tokenizer, tmp_path):
    policy = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4))
    nudge(policy)
    folder = saved(policy, tmp_path / "policy", base_folder, tokenizer)
    reward = trainable_sequence_scorer(folder, TuningConfig(method="lora", rank=4))
    ours = {n.split("base_model.model.")[-1]: p for n, p in reward.named_parameters()}
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            torch.testing.assert_close(ours[name.split("base_model.model.")[-1]], parameter)


def test_a_local_folder_is_referred_to_and_not_copied(base_folder, stage):
    build_base(stage, config=BaseModelConfig(name_or_path=str(base_folder)), texts=[], seed=0)
    assert sorted(path.name for path in stage.folder.iterdir()) == [
        "metrics.jsonl",
        "reference.json",
    ] or [path.name for path in stage.folder.iterdir()] == ["reference.json"]
    torch.testing.assert_close(
        logits(load_causal_lm(stage.folder)), logits(load_causal_lm(base_folder))
    )
    assert Policy.load(stage.folder).encode([{"role": "user", "content": "Hi"}])


def test_a_folder_that_is_not_there_is_said(stage):
    with pytest.raises(ConfigError, match="there is no folder"):
        build_base(stage, config=BaseModelConfig(name_or_path="./none"), texts=[], seed=0)


def test_a_hub_model_without_a_network_is_said(stage):
    with pytest.raises(ModelError, match="needs the network"):
        build_base(stage, config=BaseModelConfig(name_or_path="nobody/nothing"), texts=[], seed=0)


def test_an_empty_folder_holds_no_model(tmp_path):
    with pytest.raises(ModelError, match="holds no model"):
        source_of(tmp_path)


def test_a_moved_store_keeps_its_adapters(base_folder, tokenizer, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(base_folder, store / "base-1")
    model = trainable_causal_lm(store / "base-1", TuningConfig(method="lora", rank=4))
    nudge(model)
    saved(model, store / "policy-1", store / "base-1", tokenizer)
    store.rename(tmp_path / "moved")
    moved = load_causal_lm(tmp_path / "moved" / "policy-1")
    torch.testing.assert_close(logits(moved), logits(model))


def test_a_tokenizer_that_gained_a_token_gets_a_row(base_folder, tmp_path):
    """As with a hub model that pads with its end token: the model must grow with its tokenizer."""
    folder = tmp_path / "model"
    shutil.copytree(base_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = len(tokenizer)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<|pad|>"]
    assert tokenizer.pad_token == "<|pad|>"
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    loaded = load_tokenizer(folder)
    assert loaded.pad_token_id != loaded.eos_token_id
    assert load_causal_lm(folder).get_input_embeddings().weight.shape[0] >= len(loaded) >= before


def test_a_reference_keeps_how_to_load(tmp_path):
    Reference("org/model", revision="abc", dtype="bfloat16").write(tmp_path)
    options = source_of(tmp_path).base.options(quantize=False)
    assert options["revision"] == "abc"
    assert options["dtype"] == torch.bfloat16
    assert options["trust_remote_code"] is False


@pytest.mark.parametrize("trainable", [trainable_causal_lm, trainable_sequence_scorer])
def test_all_weights_that_train_are_in_float32(base_folder, tokenizer, tmp_path, trainable):
    # A step of 1e-6 is rounded away in bfloat16, in which many bases are stored.
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.bfloat16)
    folder = saved(model, tmp_path / "half", base_folder, tokenizer)
    assert load_causal_lm(folder).dtype == torch.bfloat16
    model = trainable(folder, TuningConfig(method="full"))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    adapted = trainable_causal_lm(folder, TuningConfig(method="lora"))
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
