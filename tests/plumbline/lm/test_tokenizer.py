"""Tokenizers as they come: padding that the model has a row for, templates, and none at all."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from plumbline.errors import ModelError
from plumbline.lm import chat_template
from plumbline.lm.chat import (
    DEFAULT_TEMPLATE,
    ConversationRefusedError,
    encode_demonstration,
    end_token_ids,
)
from plumbline.lm.load import load_causal_lm, trainable_causal_lm
from plumbline.lm.policy import Policy
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig

KINDS = ("chatml", "base-chatml", "unmarked-end", "plain", "short-context")


@pytest.mark.parametrize("kind", KINDS)
def test_padding_ends_no_response_and_has_a_row(model_of_kind, kind):
    folder = model_of_kind(kind)
    tokenizer = load_tokenizer(folder)
    rows = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight.shape[0]
    assert tokenizer.pad_token_id not in end_token_ids(tokenizer)
    assert tokenizer.pad_token_id < rows == len(tokenizer)


def test_an_adapter_s_tokenizer_pads_with_a_token_that_its_base_has(
    model_of_kind, tmp_path, tools, monkeypatch
):
    """With plain PEFT and the saved tokenizer, as other tools open it."""
    base = model_of_kind("base-chatml")
    model = trainable_causal_lm(base, TuningConfig(method="lora", rank=4))
    tools.nudge(model)
    folder = tools.saved(model, tmp_path / "adapter", base, load_tokenizer(base))
    monkeypatch.chdir(folder)
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(named), folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["hello there", "hi"], return_tensors="pt", padding=True)
    assert tokenizer.pad_token_id in batch["input_ids"]
    alone = tokenizer(["hi"], return_tensors="pt")
    length = alone["input_ids"].shape[1]
    with torch.no_grad():
        torch.testing.assert_close(
            opened(**batch).logits[1, :length], opened(**alone).logits[0], atol=1e-5, rtol=1e-4
        )


def test_a_row_that_no_token_has_is_taken_before_a_token_of_the_template(
    base_folder, tokenizer, tmp_path
):
    from tokenizers import Tokenizer

    folder = shutil.copytree(base_folder, tmp_path / "model")
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["added_tokens"] = [t for t in raw["added_tokens"] if t["content"] != "<|pad|>"]
    del raw["model"]["vocab"]["<|pad|>"]
    last = max(raw["model"]["vocab"].values())
    raw["model"]["vocab"] = {t: 0 if n == last else n for t, n in raw["model"]["vocab"].items()}
    changed = copy.deepcopy(tokenizer)
    changed._tokenizer = Tokenizer.from_str(json.dumps(raw))
    changed.pad_token = changed.eos_token
    changed.save_pretrained(folder)
    loaded = load_tokenizer(folder)
    rows = load_causal_lm(folder).get_input_embeddings().weight.shape[0]
    assert (loaded.pad_token, loaded.pad_token_id) == ("<|pad|>", rows - 1)


def test_an_adapter_whose_base_lacks_a_row_says_so(model_of_kind, tmp_path, tools, monkeypatch):
    base = model_of_kind("base-chatml")
    monkeypatch.setattr("plumbline.lm.tokenizer._padding", lambda *_: "<|pad|>")
    tokenizer = load_tokenizer(base)
    model = trainable_causal_lm(base, TuningConfig(method="lora", rank=4))
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    folder = tools.saved(model, tmp_path / "adapter", base, tokenizer)
    assert f"resize_token_embeddings({len(tokenizer)})" in (folder / "README.md").read_text()
    load_causal_lm(folder)


def test_the_end_of_a_turn_is_in_the_saved_generation_config(model_of_kind, tmp_path, tools):
    base = model_of_kind("base-chatml")
    tokenizer = load_tokenizer(base)
    ends = sorted(tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"]))
    assert Policy.load(base).end_ids == frozenset(ends)
    for method in ("full", "lora"):
        model = trainable_causal_lm(base, TuningConfig(method=method))
        folder = tools.saved(model, tmp_path / method, base, tokenizer)
        config = json.loads((folder / "generation_config.json").read_text())
        assert config["eos_token_id"] == ends
        assert Policy.load(folder).end_ids == frozenset(ends)


def test_a_single_end_token_stays_one(base_folder, tokenizer, tmp_path, tools):
    model = trainable_causal_lm(base_folder, TuningConfig(method="full"))
    folder = tools.saved(model, tmp_path / "policy", base_folder, tokenizer)
    config = json.loads((folder / "generation_config.json").read_text())
    assert config["eos_token_id"] == tokenizer.eos_token_id


def test_generation_settings_that_transformers_would_not_save_are_dropped(
    model_of_kind, tmp_path, tools
):
    base = shutil.copytree(model_of_kind("plain"), tmp_path / "base")
    file = base / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 0.6, "top_p": 0.9}))
    model = trainable_causal_lm(base, TuningConfig(method="full"))
    tools.saved(model, tmp_path / "policy", base, load_tokenizer(base))


# Folders without a tokenizer, and templates that do not serve.


@pytest.fixture
def plain(model_of_kind, tmp_path):
    return shutil.copytree(model_of_kind("plain"), tmp_path / "plain")


def test_a_folder_without_a_tokenizer_is_refused(plain):
    for file in plain.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer(plain)


def test_a_damaged_tokenizer_is_a_sentence(plain):
    (plain / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(plain)


def test_a_tokenizer_without_an_end_token_is_refused(plain):
    file = plain / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config["eos_token"] = None  # without the key, the class has one
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        load_tokenizer(plain)


def test_a_template_with_a_fault_is_refused_at_the_start(plain):
    (plain / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}")
    with pytest.raises(ModelError, match="cannot write a question with its answer"):
        load_tokenizer(plain)


ENDLESS = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3


def test_a_template_without_an_end_stops_at_a_time_limit(plain, monkeypatch):
    monkeypatch.setattr(chat_template, "TEMPLATE_SECONDS", 0.5)
    (plain / "chat_template.jinja").write_text(ENDLESS)
    with pytest.raises(ModelError, match="did not end in 0 seconds"):
        load_tokenizer(plain)


def test_a_template_that_does_not_end_for_some_conversations_costs_these_rows(plain, monkeypatch):
    template = DEFAULT_TEMPLATE + "{% if messages | length == 4 %}" + ENDLESS + "{% endif %}"
    (plain / "chat_template.jinja").write_text(template)
    tokenizer = load_tokenizer(plain)
    monkeypatch.setattr(chat_template, "TEMPLATE_SECONDS", 0.5)
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for _ in range(2):  # a row each
        with pytest.raises(ConversationRefusedError, match="did not end"):
            encode_demonstration(tokenizer, turn * 2)
        assert encode_demonstration(tokenizer, turn)
    with pytest.raises(ModelError, match="for 3 conversations") as refused:
        encode_demonstration(tokenizer, turn * 2)
    assert not isinstance(refused.value, ConversationRefusedError)


def test_a_text_beyond_all_memory_is_a_row_s_error(plain):
    template = DEFAULT_TEMPLATE + "{% if messages | length == 4 %}{{ 'x' * 10**15 }}{% endif %}"
    (plain / "chat_template.jinja").write_text(template)
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(ConversationRefusedError, match="the chat template refuses it"):
        encode_demonstration(load_tokenizer(plain), turn * 2)


@pytest.fixture
def changed(model_of_kind, tmp_path):
    """Return the folder of a model whose tokenizer's settings and template are changed."""

    def change(*, template=None, **settings):
        folder = tmp_path / "model"
        shutil.copytree(model_of_kind("chatml"), folder, dirs_exist_ok=True)
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return folder

    return change


def test_an_end_token_that_the_model_lacks_is_refused(changed):
    """A misspelt eos_token becomes a new token, beyond the model's embeddings."""
    with pytest.raises(ModelError, match=r"'<\|nope\|>' of .* no response could end by it"):
        load_tokenizer(changed(eos_token="<|nope|>"))


def test_tokens_of_conversations_that_the_model_lacks_are_refused(changed):
    """They would get new rows, of which nothing was learnt."""
    with pytest.raises(ModelError, match=r"begins a text '<\|nope\|>' of .* Set bos_token in"):
        load_tokenizer(changed(bos_token="<|nope|>"))
    added = {"extra_special_tokens": ["<|turn|>"]}
    folder = changed(bos_token=None, template=DEFAULT_TEMPLATE + "<|turn|>", **added)
    with pytest.raises(ModelError, match=r"chat template '<\|turn\|>' of .*jinja write a token of"):
        load_tokenizer(folder)


def test_a_tokenizer_of_another_model_is_refused(changed):
    folder = changed()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 200}))
    with pytest.raises(ModelError, match="rows for 200: they do not belong together"):
        load_tokenizer(folder)


def test_padding_that_the_model_lacks_is_another_token(changed):
    """Masks hide it, so any token serves; as in models that were given a [PAD] beyond their end."""
    folder = changed(pad_token="<|nope|>")
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert AutoTokenizer.from_pretrained(folder).pad_token_id >= rows
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token_id < rows
    assert tokenizer.pad_token_id not in end_token_ids(tokenizer)
