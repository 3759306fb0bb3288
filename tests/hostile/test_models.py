"""Model folders, manifests and runs that somebody else wrote: refused with a sentence, and no code
of theirs runs.
"""

from __future__ import annotations

import json
import random
import shutil
import struct

import pytest

from plumbline.errors import PlumblineError
from plumbline.lm.load import load_causal_lm
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.runs.isolation import run_isolated
from plumbline.runs.progress import Reporter
from plumbline.training.preflight import _try


@pytest.fixture(scope="module", autouse=True)
def libraries(tmp_path_factory):
    """The processes of stages have imported their libraries, which takes as long as it takes."""
    folder = tmp_path_factory.mktemp("stage")
    run_isolated(_try, folder, {"checks": []}, Reporter(quiet=True), lambda: None)


def header(**tensors):
    """A safetensors file whose header says anything."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


F32 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
#: File to content; None removes it. Each is laid over a whole model's folder.
FOLDERS = {
    "no config": {"config.json": None},
    "config empty": {"config.json": b""},
    "config is a list": {"config.json": b"[]"},
    "config is null": {"config.json": b"null"},
    "config cut": {"config.json": b'{"model_type": "qw'},
    "config deep": {"config.json": b"[" * 100_000},
    "config not UTF-8": {"config.json": b'{"model_type": "\xff"}'},
    "config without a type": {"config.json": b"{}"},
    "config of an unknown type": {"config.json": b'{"model_type": "nothing"}'},
    "config asks for code": {
        "config.json": b'{"model_type": "x", "auto_map": {"AutoConfig": "own.Own"}}',
        "own.py": b"import pathlib; pathlib.Path('it-ran').touch()",
    },
    "no weights": {"model.safetensors": None},
    "weights empty": {"model.safetensors": b""},
    "weights cut": {"model.safetensors": header(a=F32)[:20]},
    "weights of zeros": {"model.safetensors": bytes(100)},
    "header of a terabyte": {"model.safetensors": struct.pack("<Q", 1 << 40) + b"{}"},
    "header is no JSON": {"model.safetensors": struct.pack("<Q", 4) + b"xxxx"},
    "other tensors": {"model.safetensors": header(a=F32)},
    "huge shape": {"model.safetensors": header(a=F32 | {"shape": [1 << 60]})},
    "offsets outside": {"model.safetensors": header(a=F32 | {"data_offsets": [0, 1 << 40]})},
    "pickled weights": {
        "model.safetensors": None,
        "pytorch_model.bin": b"\x80\x04cos\nsystem\n(S'touch it-ran'\ntR.",
    },
    "weights are a page": {"model.safetensors": b"<!DOCTYPE html><html>404</html>"},
    "git-lfs pointer": {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"},
    "index of files that are not there": {
        "model.safetensors": None,
        "model.safetensors.index.json": b'{"weight_map": {"a": "none.safetensors"}}',
    },
    "index out of the folder": {
        "model.safetensors": None,
        "model.safetensors.index.json": b'{"weight_map": {"a": "../../x"}}',
    },
    "no tokenizer": {"tokenizer.json": None, "tokenizer_config.json": None},
    "tokenizer empty": {"tokenizer.json": b""},
    "tokenizer is a list": {"tokenizer.json": b"[]"},
    "tokenizer cut": {"tokenizer.json": b'{"version": "1.0", "model": {"ty'},
    "tokenizer deep": {"tokenizer.json": b"[" * 100_000},
    "tokenizer config is a list": {"tokenizer_config.json": b"[]"},
    "tokenizer config is cut": {"tokenizer_config.json": b'{"eos'},
    "tokenizer of its own code": {
        "tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["own.Own", null]},'
        b' "tokenizer_class": "Own"}',
        "own.py": b"import pathlib; pathlib.Path('it-ran').touch()",
        "tokenizer.json": None,
    },
    "template with a fault": {"chat_template.jinja": b"{% for"},
    "template not UTF-8": {"chat_template.jinja": b"\xff\xfe"},
    "template that says nothing": {"chat_template.jinja": b"hello"},
    "template that reaches out": {
        "chat_template.jinja": b"{{ ''.__class__.__mro__[1].__subclasses__() }}"
    },
    "template that reads a file": {"chat_template.jinja": b"{% include '/etc/passwd' %}"},
    "template that raises": {"chat_template.jinja": b"{{ raise_exception('no') }}"},
    "template beyond memory": {"chat_template.jinja": b"{{ 'x' * 10**15 }}"},
    "reference to nothing": {"reference.json": b'{"name_or_path": "../none"}', "config.json": None},
    "reference is a list": {"reference.json": b"[]", "config.json": None},
    "reference is empty": {"reference.json": b"{}", "config.json": None},
    "reference is cut": {"reference.json": b'{"name', "config.json": None},
    "reference to itself": {"reference.json": b'{"name_or_path": "."}', "config.json": None},
    "reference to a number": {"reference.json": b'{"name_or_path": 5}', "config.json": None},
    "reference with more keys": {
        "reference.json": b'{"name_or_path": "../x", "command": "rm"}',
        "config.json": None,
    },
    "reference of another dtype": {
        "reference.json": b'{"name_or_path": "./weights", "dtype": "int3"}',
        "config.json": None,
    },
    "adapter without a base": {"adapter_config.json": b'{"peft_type": "LORA"}'},
    "adapter on nothing": {
        "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": "../none"}'
    },
    "adapter on itself": {
        "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": "."}'
    },
    "adapter on a number": {
        "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": 5}'
    },
    "adapter config is a list": {"adapter_config.json": b"[]"},
    "adapter config is cut": {"adapter_config.json": b'{"peft'},
    "adapter config is deep": {"adapter_config.json": b"[" * 100_000},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_holds_no_model(base_folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(base_folder, tmp_path / "model")
    for file, content in FOLDERS[name].items():
        if content is None:
            (folder / file).unlink(missing_ok=True)
        else:
            (folder / file).write_bytes(content)
    with pytest.raises(PlumblineError) as refused:
        load_tokenizer(folder)
        load_causal_lm(folder)
    assert len(str(refused.value)) > 40, refused.value
    assert not (tmp_path / "it-ran").exists()


def flips():
    generator = random.Random(0)
    for number in range(20):
        yield number, generator.random(), generator.choice(["config.json", "tokenizer_config.json"])


@pytest.mark.parametrize(("number", "share", "file"), list(flips()))
def test_a_setting_of_a_model_that_was_changed(base_folder, tmp_path, number, share, file):
    """Whatever a value becomes, the model opens or is refused with a sentence."""
    generator = random.Random(number)
    folder = shutil.copytree(base_folder, tmp_path / "model")
    values = json.loads((folder / file).read_text())
    key = sorted(values)[int(share * len(values))]
    values[key] = generator.choice([None, -1, 0, "x", [], {}, True, 10**12, 1.5])
    (folder / file).write_text(json.dumps(values))
    try:
        load_tokenizer(folder)
        if values.get("hidden_size") != 10**12 and values.get("vocab_size") != 10**12:
            load_causal_lm(folder)
    except PlumblineError as refused:
        assert len(str(refused)) > 40, (key, values[key])


MODELS = ["", ".", "/nonexistent", "no-run:stage", "a:b:c", "\0", "\ud83d", "x" * 300, "../..", "*"]


@pytest.mark.parametrize("name", MODELS, ids=ascii)
def test_a_name_of_no_model(attempt, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    outcome = attempt("evaluate", name, "--home", str(tmp_path / "home"))
    assert outcome.code in (1, 2, 4, 5), outcome


MANIFESTS = {
    "empty": "", "null": "null", "list": "[]", "cut": '{"manifest_version": 2, "ki',
    "deep": "[" * 100_000, "newer": '{"manifest_version": 99}',
    "only a version": '{"manifest_version": 2}',
    "text as version": '{"manifest_version": "2"}',
    "out of the folder": '{"manifest_version": 2, "files": {"../../x": {"sha256": ""}}}',
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_somebody_wrote(attempt, tmp_path, name):
    folder = tmp_path / "home/store/policy-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(MANIFESTS[name])
    for command in (["show", "policy-01"], ["evaluate", "policy-01"]):
        outcome = attempt(*command, "--home", str(tmp_path / "home"))
        assert outcome.code in (4, 5), outcome


RUNS = ["", "null", "[]", "{", '{"stages": []}', '{"stages": {"a": 5}}', '{"stages": {"a": {}}}',
        '{"stages": {"a": {"artifact": "../../x"}}}', '{"stages": {}, "started": 5}',
        '{"stages": {}, "status": [], "seconds": "x"}', "[" * 100_000, "\\ud83d"]  # fmt: skip


@pytest.mark.parametrize("text", RUNS, ids=lambda text: text[:30])
def test_a_run_that_somebody_wrote(attempt, tmp_path, text):
    folder = tmp_path / "home/mine"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(text)
    attempt("runs", "--home", str(tmp_path / "home")).accepted()
    for command in (["show", "mine"], ["compare", "mine"], ["evaluate", "mine:sft"]):
        outcome = attempt(*command, "--home", str(tmp_path / "home"))
        assert outcome.code in (3, 4, 5), outcome


TASKS = [
    "nothing",
    "",
    "/none.jsonl",
    "text:/none",
    "text:",
    "lm-eval:",
    "file:\0",
    "\ud83d",
    "world:x",
]


@pytest.mark.parametrize("task", TASKS, ids=ascii)
def test_a_task_that_is_none(attempt, base_folder, tmp_path, monkeypatch, task):
    monkeypatch.chdir(tmp_path)
    outcome = attempt(
        "evaluate", str(base_folder), "--task", task, "--home", str(tmp_path / "home")
    )
    assert outcome.code in (2, 3), outcome
