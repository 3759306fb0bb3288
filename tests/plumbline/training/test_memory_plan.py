"""What a training needs, against models that were built and tensors that were really kept."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from plumbline.commands.app import main
from plumbline.commands.plan import Setting, trainings_of
from plumbline.commands.planned_model import shape_of
from plumbline.errors import ConfigError
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.shardings import SHARDINGS
from plumbline.training.config import TrainingConfig
from plumbline.training.memory_plan import (
    CARDS,
    MODELS,
    Shape,
    Training,
    activations_of,
    learning_seconds,
    memory_of,
    reading_seconds,
    sampling_seconds,
)
from preference.config import DPOConfig

SMALL = {
    "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "vocab_size": 512,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
KINDS = [
    (LlamaConfig, LlamaForCausalLM, {}),
    (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
]


def build(config_class, model_class, changes):
    config = config_class(**SMALL | changes)
    with torch.device("meta"):
        return config, model_class(config)


@pytest.mark.parametrize(("config_class", "model_class", "changes"), KINDS)
def test_parameters_are_those_of_the_model_and_of_pefts_adapter(config_class, model_class, changes):
    from peft import get_peft_model

    config, model = build(config_class, model_class, changes)
    shape = Shape.of(config.to_dict())
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    adapted = get_peft_model(
        model, TuningConfig(method="lora", rank=4).peft_config(model, "CAUSAL_LM")
    )
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert shape.of_adapter(4) == trained


def test_the_named_sizes_are_as_large_as_their_models():
    """Parameters as the models' cards state them, in billions."""
    stated = {"0.5b": 0.49, "1b": 1.24, "8b": 8.03, "70b": 70.6}
    for name, billions in stated.items():
        assert MODELS[name].parameters / 1e9 == pytest.approx(billions, rel=0.01), name


def kept(compute, model):
    """Return the bytes that a forward pass keeps for its backward pass, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    alive, sizes = [], {}

    def pack(tensor):
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return sum(sizes.values())


@pytest.mark.parametrize(
    ("config_class", "model_class"),
    [(LlamaConfig, LlamaForCausalLM), (Qwen3Config, Qwen3ForCausalLM)],
)
def test_activations_are_what_a_pass_keeps(config_class, model_class):
    """The difference between four layers and two, so that what is not in layers does not count."""
    measured = []
    for layers in (2, 4):
        config = config_class(**SMALL | {"num_hidden_layers": layers})
        model = model_class(config)
        ids = torch.randint(0, 512, (8, 64))
        measured.append(kept(lambda model=model, ids=ids: model.model(input_ids=ids), model))
        shape = Shape.of(config.to_dict())
    planned = activations_of(Training(shape, None, tokens=8 * 64, computed=4)) // 2
    assert measured[1] - measured[0] == pytest.approx(planned, rel=0.03)


def test_memory_by_hand():
    """Two layers of width 4, one head, feed-forward 8, vocabulary 10, tied; ten tokens."""
    shape = Shape(4, 8, 2, 1, 1, 4, 10, tied=True)
    # Each layer: 4 matrices of 4 x 4, 3 of 4 x 8, two norms; embedding 40, last norm 4.
    parameters = 2 * (64 + 96 + 8) + 40 + 4
    assert shape.parameters == parameters == 380
    full = Training(shape, None, tokens=10, frozen=1)
    memory = memory_of(full, SHARDINGS["ddp"], processes=4)
    assert memory.parameters == 4 * 380 + 2 * 380  # trained in float32, a reference in 16 bits
    assert (memory.gradients, memory.optimizer) == (4 * 380, 8 * 380)
    # Of a token in a layer: 4 * 8 + 6 * 4 + 2 * (4 + 4) = 72 numbers of 2 bytes.
    assert memory.activations == 10 * 2 * 72 * 2
    assert memory.total == sum(memory[:4])
    zero2 = memory_of(full, SHARDINGS["zero2"], processes=4)
    assert (zero2.parameters, zero2.gradients, zero2.optimizer) == (2280, 380, 760 + 380)
    zero3 = memory_of(full, SHARDINGS["zero3"], processes=4)
    assert zero3.parameters == 570
    # An adapter of rank 2: q, k, v, o have sides 4 + 4; gate, up, down 4 + 8.
    lora = Training(shape, 2, tokens=10, sampled=(3, 5))
    adapter = 2 * 2 * (4 * 8 + 3 * 12)
    memory = memory_of(lora, SHARDINGS["ddp"])
    assert memory.parameters == 4 * adapter + 2 * 380
    assert memory.cache == 2 * 380 + 3 * 5 * (2 * 2 * 4) * 2


def test_time_by_hand():
    """6 operations for each parameter and token with full tuning, 4 with adapters."""
    shape = Shape(4, 8, 2, 1, 1, 4, 10, tied=True)
    card = CARDS["h100"]._replace(peak=1e6, bandwidth=1e6)
    full = learning_seconds(Training(shape, None, tokens=10), 100, card, 2)
    assert full == pytest.approx(100 * 6 * 380 / (1e6 * 0.37) / 2)
    lora = learning_seconds(Training(shape, 2, tokens=10), 100, card, 1)
    assert lora == pytest.approx(100 * 4 * 380 / (1e6 * 0.37))
    read = reading_seconds(Training(shape, 2, tokens=10), 100, card, 4)
    assert read == pytest.approx(100 * 2 * 380 / (1e6 * 0.37) / 4)
    sampling = Training(shape, 2, tokens=10, sampled=(3, 4))
    step = 2 * 380 + 3 * 4 * (2 * 2 * 4) * 2 / 2
    assert sampling_seconds(sampling, 6, card, 1) == pytest.approx(2 * 4 * step / (1e6 * 0.23))


def test_the_plan_of_a_recipe(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as done:
        main(["plan", "dpo_vs_ppo", "--model", "8b", "--rows", "1000", "--price", "2"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert "8.03 billion parameters" in shown
    rows = {line.split()[0]: line for line in shown.splitlines() if re.match(r"\w+ +\d", line)}
    assert set(rows) == {"sft", "reward", "dpo", "ppo"}
    # 1,000 pairs once of 2 * 512 - 256 tokens: 4 operations to learn, and 2 for the reference.
    seconds = 1000 * 768 * 6 * MODELS["8b"].parameters / (989e12 * 0.37)
    assert f" {round(seconds / 60 - 0.5)} min {round(seconds % 60):02d} s" in rows["dpo"]
    assert " no " in rows["sft"]  # 8 billion parameters of 16 bytes each, on one H100
    assert " yes " in rows["ppo"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpu", "abacus"), "none of a100-40"),
        (("--sharding", "magic"), "none of ddp, fsdp2, zero2"),
        (("--model", "nothing-here"), "The shape of the model nothing-here is not known"),
    ],
)
def test_what_cannot_be_planned(arguments, message, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["plan", "dpo_vs_ppo", "--model", "1b", *arguments])
    assert raised.value.code == ConfigError.exit_code
    assert message in capsys.readouterr().err


def plan_of(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main(["plan", *arguments])
    said = capsys.readouterr()
    return done.value.code, said.out + said.err


def test_the_embedded_model_and_a_recipe_without_its_data_are_planned(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, said = plan_of(capsys, "dpo_vs_ppo", "--gpu", "H100", "--processes", "3")
    assert code == 0 and "1.05 million parameters; memory of each process in MiB" in said
    assert "sft: 3 processes cannot share its batch of 16, so it would be refused" in said
    assert "…" not in said  # nothing is cut where a terminal is narrow
    code, said = plan_of(capsys, "train_sft", "--model", "8b")
    assert code == 0 and "8.03 billion" in said
    assert "The recipe names no model" in plan_of(capsys, "train_sft")[1]
    for recipe in ("train_classifier", "build_data"):
        assert f"{recipe} has no training that can be planned" in plan_of(capsys, recipe)[1]


CONFIG = {"model_type": "llama", **SMALL}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mixtral", "num_local_experts": 8}, "its model_type is 'mixtral'"),
        ({"model_type": "gpt_neox"}, "which is none of llama, mistral, qwen2, qwen3"),
        ({"num_attention_heads": 0}, "its num_attention_heads is 0"),
        ({"hidden_size": None}, "its hidden_size is None"),
        ({"quantization_config": {"bits": 4}}, "its weights are quantised"),
        ([], "describes no model that can be planned"),
        ("{", "describes no model that can be planned"),
    ],
)
def test_a_config_that_cannot_be_planned(tmp_path, change, message):
    text = change if isinstance(change, str) else json.dumps(change and CONFIG | change)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        shape_of(str(tmp_path), None)


def test_a_frozen_weight_is_as_large_as_it_is_held(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"dtype": "float32"}))
    assert shape_of(str(tmp_path), None)[1] == 4
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": ".."}')
    assert shape_of(str(adapter), None) == shape_of(str(tmp_path), None)
    # Layers in 4 bits and their scales, embedding, head and norms in 16 bits.
    large = MODELS["70b"]
    assert large.quantized * large.parameters / 1e9 == pytest.approx(
        0.516 * 68.45 + 2 * 2.1, rel=0.005
    )


def test_a_gathered_model_by_hand():
    """Two layers of 160 numbers, an embedding of 40: what is held beside a share."""
    shape = Shape(4, 8, 2, 1, 1, 4, 10, tied=True)
    training = Training(shape, None, tokens=10, sampled=(3, 5))
    whole, shared = (memory_of(training, SHARDINGS[name], processes=4) for name in ("ddp", "fsdp2"))
    assert shared.activations - whole.activations == 2 * (2 * 160 + 40)
    assert shared.cache - whole.cache == 2 * 380
    alone = memory_of(training, SHARDINGS["fsdp2"])
    assert alone == memory_of(training, SHARDINGS["ddp"])


@pytest.mark.parametrize(
    ("method", "width", "shares", "tokens"),
    [
        ("full", 512, False, 3 * 64 * 4),  # a prompt of 64 tokens is read once for both
        ("lora", 64, False, 3 * 64 * 4),
        ("lora", 2048, False, 4 * 64 * 4),  # too large for our own pass on a CPU
        ("full", 64, True, 4 * 64 * 4),
    ],
)
def test_the_prompt_of_a_pair_counts_once_where_it_is_read_once(method, width, shares, tokens):
    config = DPOConfig(
        tuning=TuningConfig(method=method), max_length=128,
        training=TrainingConfig(batch_size=4),
    )  # fmt: skip
    values = type("Recipe", (SimpleNamespace,), {"model_fields": {"dpo": None}})(dpo=config)
    shape = Shape(width, 3 * width, 8, 8, 4, width // 8, 400, tied=True)
    setting = Setting(on_cpu=True, processes=1, prompt_tokens=64, shares=shares)
    ((_, work),) = trainings_of(values, shape, setting)
    assert work.training.tokens == tokens
