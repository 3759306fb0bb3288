"""Where models lie: references and adapters, their bases by portable names, and whose code runs."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM

from plumbline.errors import ConfigError, ModelError
from plumbline.lm import remote_code
from plumbline.lm.load import load_causal_lm, trainable_causal_lm
from plumbline.lm.model_folder import Reference, source_of
from plumbline.lm.policy import Policy
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig, parameter_counts
from plumbline.training.base_model import BaseModelConfig, build_base

LORA = TuningConfig(method="lora", rank=4)


@pytest.fixture
def store(base_folder, tokenizer, tmp_path, tools):
    """A store with a base and an adapter on it, and what the adapter says."""
    shutil.copytree(base_folder, tmp_path / "store/base-1")
    model = trainable_causal_lm(tmp_path / "store/base-1", LORA)
    tools.nudge(model)
    base = tmp_path / "store/base-1"
    tools.saved(model, tmp_path / "store/policy-1", base, tokenizer)
    return tmp_path / "store", tools.logits(model)


def test_an_adapter_names_its_base_by_a_relative_path(store):
    folder, _ = store
    config = json.loads((folder / "policy-1/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../base-1"
    assert "relative to this folder" in (folder / "policy-1/README.md").read_text()


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_an_adapter_opens_where_it_was_moved_with_its_base(store, tmp_path, tools, how):
    folder, expected = store
    if how == "moved":
        folder.rename(tmp_path / "there")
    else:
        shutil.copytree(folder, tmp_path / "there")
    there = tmp_path / "there"
    assert source_of(there / "policy-1").base.name_or_path == str(there / "base-1")
    torch.testing.assert_close(tools.logits(load_causal_lm(there / "policy-1")), expected)


def test_peft_opens_it_from_its_own_folder_or_on_a_base_at_hand(
    store, tmp_path, tools, monkeypatch
):
    folder, expected = store
    there = folder.rename(tmp_path / "there")
    base = AutoModelForCausalLM.from_pretrained(there / "base-1")
    torch.testing.assert_close(
        tools.logits(PeftModel.from_pretrained(base, there / "policy-1")), expected
    )
    monkeypatch.chdir(there / "policy-1")  # PEFT looks from the working directory
    torch.testing.assert_close(
        tools.logits(AutoPeftModelForCausalLM.from_pretrained(".")), expected
    )


def test_an_adapter_that_is_in_the_making_names_its_base_as_it_will_lie(store, tokenizer, tools):
    folder, _ = store
    model = trainable_causal_lm(folder / "base-1", LORA)
    tools.nudge(model)
    making = folder / ".partial/policy-2/out"
    for place in (making, making / "checkpoints/step-3"):
        tools.saved(model, place, folder / "base-1", tokenizer)
        torch.testing.assert_close(tools.logits(load_causal_lm(place)), tools.logits(model))
    making.rename(folder / "policy-2")
    for place in (folder / "policy-2", folder / "policy-2/checkpoints/step-3"):
        config = json.loads((place / "adapter_config.json").read_text())
        named = place / config["base_model_name_or_path"]
        assert named.resolve() == folder / "base-1"
        load_causal_lm(place)


def test_an_adapter_of_an_earlier_version_has_an_absolute_path(store, tmp_path, tools):
    folder, expected = store
    file = folder / "policy-1/adapter_config.json"
    config = json.loads(file.read_text()) | {"base_model_name_or_path": str(folder / "base-1")}
    file.write_text(json.dumps(config))
    torch.testing.assert_close(tools.logits(load_causal_lm(folder / "policy-1")), expected)
    # In a copied store it is the copy beside it that counts, and not the old place.
    there = shutil.copytree(folder, tmp_path / "there")
    assert source_of(there / "policy-1").base.name_or_path == str(there / "base-1")
    shutil.rmtree(folder)
    torch.testing.assert_close(tools.logits(load_causal_lm(there / "policy-1")), expected)


def test_an_adapter_without_its_base_is_a_sentence(store):
    folder, _ = store
    shutil.rmtree(folder / "base-1")
    with pytest.raises(ModelError, match=r"refers to a model in \.\./base-1, and there is no"):
        load_causal_lm(folder / "policy-1")


def test_a_hub_id_stays_a_hub_id(base_folder, tokenizer, tmp_path, tools, monkeypatch):
    model = trainable_causal_lm(base_folder, LORA)
    base = tmp_path / "base"
    base.mkdir()
    Reference("org/model", revision="v1").write(base)
    # Nothing is fetched for the README: the config is that of the folder at hand.
    monkeypatch.setattr("plumbline.lm.save.load_config", lambda folder: model.config)
    folder = tools.saved(model, tmp_path / "policy", base, tokenizer)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/model", "v1")
    assert source_of(folder).base == Reference("org/model", revision="v1")


# References.


def test_a_local_folder_is_referred_to_and_not_copied(base_folder, stage, tools):
    build_base(stage, config=BaseModelConfig(name_or_path=str(base_folder)), texts=[], seed=0)
    assert {path.name for path in stage.folder.iterdir()} <= {"metrics.jsonl", "reference.json"}
    torch.testing.assert_close(
        tools.logits(load_causal_lm(stage.folder)), tools.logits(load_causal_lm(base_folder))
    )
    assert Policy.load(stage.folder).encode([{"role": "user", "content": "Hi"}])


def test_a_reference_is_found_where_both_or_one_of_them_moved(base_folder, tmp_path):
    shutil.copytree(base_folder, tmp_path / "a/models/base")
    (tmp_path / "a/runs").mkdir()
    Reference(str(tmp_path / "a/models/base")).write(tmp_path / "a/runs")
    (tmp_path / "a/runs").rename(tmp_path / "runs")  # alone: the absolute path is as good as ever
    assert Reference.read(tmp_path / "runs").name_or_path == str(tmp_path / "a/models/base")
    (tmp_path / "runs").rename(tmp_path / "a/runs")
    (tmp_path / "a").rename(tmp_path / "b")
    assert Reference.read(tmp_path / "b/runs").name_or_path == str(tmp_path / "b/models/base")


def test_a_folder_that_is_not_there_is_said(stage):
    with pytest.raises(ConfigError, match="there is no folder"):
        build_base(stage, config=BaseModelConfig(name_or_path="./none"), texts=[], seed=0)


def test_a_hub_model_without_a_network_is_said(stage):
    with pytest.raises(ModelError, match="needs the network"):
        build_base(stage, config=BaseModelConfig(name_or_path="nobody/nothing"), texts=[], seed=0)


def test_an_empty_folder_holds_no_model(tmp_path):
    with pytest.raises(ModelError, match="holds no model"):
        source_of(tmp_path)


def test_a_reference_to_itself_is_refused(tmp_path):
    Reference(str(tmp_path)).write(tmp_path)
    with pytest.raises(ModelError, match="refers to itself"):
        source_of(tmp_path)


def test_a_reference_keeps_how_to_load(tmp_path):
    Reference("org/model", revision="abc", dtype="bfloat16").write(tmp_path)
    assert source_of(tmp_path).base == Reference("org/model", "abc", "bfloat16")
    assert source_of(tmp_path).base.where == {"revision": "abc", "trust_remote_code": False}


# An adapter as the base, and adapters on adapters.


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_adapter_as_the_base_is_merged_or_goes_on_training(store, stage, tools, method):
    folder, expected = store
    config = BaseModelConfig(name_or_path=str(folder / "policy-1"))
    build_base(stage, config=config, texts=[], seed=0)
    assert source_of(stage.folder).adapter == folder / "policy-1"
    model = trainable_causal_lm(stage.folder, TuningConfig(method=method))
    assert isinstance(model, PeftModel) == (method == "lora")
    assert parameter_counts(model)["trainable_parameters"] > 0
    torch.testing.assert_close(tools.logits(model), expected, atol=1e-5, rtol=1e-4)


def test_an_adapter_on_an_adapter_stands_on_both(store, tokenizer, tools, tmp_path):
    folder, first = store
    # Another tool trained an adapter on the first one, merged.
    merged = trainable_causal_lm(folder / "policy-1", TuningConfig(method="full"))
    merged.save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    model = trainable_causal_lm(tmp_path / "merged", LORA)
    tools.nudge(model, 0.03)
    second = tools.saved(model, folder / "policy-2", tmp_path / "merged", tokenizer)
    file = second / "adapter_config.json"
    config = json.loads(file.read_text()) | {"base_model_name_or_path": "../policy-1"}
    file.write_text(json.dumps(config))

    assert source_of(second).adapters == (folder / "policy-1", second)
    again = trainable_causal_lm(second, LORA)
    torch.testing.assert_close(tools.logits(again), tools.logits(model), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(tools.logits(again), first, atol=1e-3)
    # What goes on from there names what it stands on.
    third = tools.saved(again, folder / "policy-3", second, tokenizer)
    assert source_of(third).adapters == (folder / "policy-1", third)
    torch.testing.assert_close(tools.logits(load_causal_lm(third)), tools.logits(again))
    with pytest.raises(ModelError, match="adapter on an adapter"):
        trainable_causal_lm(third, TuningConfig(method="qlora", rank=4))


def test_an_adapter_that_names_no_base_is_refused(store):
    folder, _ = store
    file = folder / "policy-1/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="names no base"):
        source_of(folder / "policy-1")


# Whose code may run.


@pytest.fixture
def with_code(base_folder, tmp_path, monkeypatch):
    """A model folder whose config asks for Python of its own, which leaves a trace."""
    folder = shutil.copytree(base_folder, tmp_path / "with-code")
    trace = tmp_path / "it-ran"
    (folder / "configuration_own.py").write_text(
        f"import pathlib\npathlib.Path({str(trace)!r}).write_text('')\n"
        "from transformers import Qwen3Config\n\n\nclass OwnConfig(Qwen3Config):\n"
        "    model_type = 'own'\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.delenv("PLUMBLINE_TRUSTED_MODELS", raising=False)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder, trace


def test_a_reference_from_outside_runs_no_code(with_code, tmp_path):
    folder, trace = with_code
    evil = tmp_path / "evil"
    evil.mkdir()
    Reference(str(folder), trust_remote_code=True).write(evil)
    with pytest.raises(ModelError, match="Python of its own"):
        load_causal_lm(evil)
    load_tokenizer(evil)  # which needs none
    assert not trace.exists()


def test_the_user_s_config_lets_it_run(with_code, stage):
    folder, trace = with_code
    config = BaseModelConfig(name_or_path=str(folder), trust_remote_code=True)
    with pytest.raises(ModelError):  # it has a config of its own, and no model for it
        build_base(stage, config=config, texts=[], seed=0)
    assert trace.exists()
    assert remote_code.may_run(str(folder), None)
    assert not remote_code.may_run(str(folder), "other")
    assert not remote_code.may_run("org/other", None)


def test_without_the_user_s_word_the_config_says_what_to_set(with_code, stage):
    folder, trace = with_code
    with pytest.raises(ModelError, match=r"base\.trust_remote_code"):
        build_base(stage, config=BaseModelConfig(name_or_path=str(folder)), texts=[], seed=0)
    assert not trace.exists()


def test_stages_have_what_the_command_allows(with_code):
    folder, _ = with_code
    remote_code.allow(str(folder), None)
    assert str(folder) in os.environ["PLUMBLINE_TRUSTED_MODELS"]
