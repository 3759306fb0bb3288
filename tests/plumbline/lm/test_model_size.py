"""The size of a model, by headers and by what the hub tells."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import torch
from huggingface_hub.hf_api import ModelInfo
from safetensors.torch import load_file, save_file

from plumbline.lm.model_size import ModelSize, model_size


def test_a_folder(base_folder, tmp_path):
    numbers = sum(x.numel() for x in load_file(base_folder / "model.safetensors").values())
    assert model_size(str(base_folder)) == ModelSize(numbers)
    assert model_size(str(base_folder)).float32_bytes == 4 * numbers
    (tmp_path / "config.json").write_text("{}")
    for part in (1, 2):  # in two files, of 16 bits
        save_file(
            {"x": torch.zeros(part, 5, dtype=torch.bfloat16)}, tmp_path / f"{part}.safetensors"
        )
    assert model_size(str(tmp_path)) == ModelSize(15)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 20, b"\x02" + bytes(7) + b"[]"])
def test_a_damaged_file_counts_nothing(tmp_path, content):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    assert model_size(str(tmp_path)) == ModelSize(0)


def test_a_gguf_file(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.add_tensor("a", torch.zeros(3, 4).numpy())
    writer.add_tensor("b", torch.zeros(7).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert model_size(str(tmp_path / "x.gguf")) == ModelSize(19)


# The hub.

FILES = [
    {"rfilename": "config.json", "size": 500},
    {"rfilename": "model-1.safetensors", "size": 2000},
    {"rfilename": "model-2.safetensors", "size": 1000},
    {"rfilename": "pytorch_model.bin", "size": 3000},
]


@pytest.fixture
def hub(monkeypatch):
    """The hub's answers, in the form of its interface."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)

    def answer(**told):
        asked = lambda *_, **__: ModelInfo(id="org/model", siblings=FILES, **told)  # noqa: E731
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", asked)

    return answer


def test_a_model_of_the_hub_by_what_it_tells(hub):
    hub(safetensors={"parameters": {"BF16": 1500}, "total": 1500})
    assert model_size("org/model") == ModelSize(1500, 3000)
    hub()  # an old model, of which the hub has not counted the numbers
    assert model_size("org/model") == ModelSize(1500, 3000)


def test_a_model_in_the_cache_is_not_fetched_again(hub, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({}))
    save_file({"x": torch.zeros(6)}, tmp_path / "model.safetensors")
    cached = str(tmp_path / "config.json")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: cached)
    assert model_size("org/model") == ModelSize(6)


def test_where_the_hub_does_not_answer_nothing_is_known(hub, monkeypatch):
    def fails(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fails)
    assert model_size("org/model") is None
    assert model_size("not/a/model name") is None
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert model_size("org/model") is None
