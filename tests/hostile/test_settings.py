"""Settings: YAML files that anyone may have written, ``--set``, and names that become files."""

from __future__ import annotations

import random

import pytest

from plumbline.commands.recipe_book import find
from plumbline.config import settings

RANDOM = random.Random(0)
SETTINGS = list(settings(find("dpo_vs_ppo").load(None, [])))

#: Values that a setting of a kind does not take.
WRONG = {
    "int": ["true", '"3"', "1.5", "[1]", "{a: 1}", "null", ".inf", "1e400", "9" * 30, "''"],
    "float": ["true", '"0.1"', "[0.1]", "{a: 1}", ".nan", "-.inf", "1e999", "zero"],
    "bool": ["1", '"true"', "[]", "perhaps", "2001-01-01"],
    "str": ["5", "[a]", "{a: b}", "true", "1.5"],
}


def wrong_values():
    """Some setting of each kind with each wrong value of it, as YAML and as --set."""
    for kind, values in WRONG.items():
        keys = [s.key for s in SETTINGS if s.type.split(" (")[0] == kind]
        assert keys, kind
        for value in values:
            yield RANDOM.choice(keys), value


def as_yaml(key, value):
    *above, name = key.split(".")
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(above)]
    return "\n".join([*lines, f"{'  ' * len(above)}{name}: {value}"]) + "\n"


@pytest.mark.parametrize(("key", "value"), wrong_values())
def test_a_value_of_another_kind(attempt, tmp_path, key, value):
    file = tmp_path / "config.yaml"
    file.write_text(as_yaml(key, value))
    line = key.count(".") + 1
    attempt("config", "dpo_vs_ppo", "--config", str(file)).refused(2, str(file), f"line {line}")
    attempt("config", "dpo_vs_ppo", "--set", f"{key}={value}").refused(2, key.split(".")[-1])


def misspelt():
    for setting in RANDOM.sample(SETTINGS, 40):
        name = list(setting.key)
        place = RANDOM.randrange(len(name))
        name[place] = RANDOM.choice("xqz_")
        if (key := "".join(name)) not in {s.key for s in SETTINGS}:
            yield key


@pytest.mark.parametrize("key", misspelt())
def test_a_setting_that_is_not_there(attempt, key):
    attempt("config", "dpo_vs_ppo", "--set", f"{key}=1").refused(2, "set")


def bomb(width, depth):
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, depth)]
    return "\n".join(lines)


FILES = {
    "alias bomb": bomb(10, 12),
    "small aliases": bomb(10, 6),
    "alias of itself": "seeds: &a [*a]\n",
    "mapping of itself": "sft: &a {sft: *a}\n",
    "unknown alias": "seeds: *nobody\n",
    "deep lists": "seeds: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "".join(f"{' ' * n}a:\n" for n in range(400)),
    "deep flow": "{a: " * 3000,
    "NUL": "seeds: [0]\0\n",
    "escape": "seeds: [0] \x1b[31m\n",
    "a tab": "sft:\n\tevaluations: 2\n",
    "python object": "seeds: !!python/object/apply:os.system ['true']\n",
    "python name": "seeds: !!python/name:os.system\n",
    "own tag": "seeds: !mine [0]\n",
    "binary": "seeds: !!binary aGVsbG8=\n",
    "a set": "seeds: !!set {0, 1}\n",
    "timestamp": "seeds: 2001-12-14t21:59:43.10-05:00\n",
    "list key": "? [a, b]\n: 1\n",
    "mapping key": "? {a: b}\n: 1\n",
    "null key": "~: 1\n",
    "true key": "true: 1\n",
    "float key": "1.5: 1\n",
    "a list": "- 1\n- 2\n",
    "a text": "hello\n",
    "a number": "5\n",
    "two documents": "seeds: [0]\n---\nseeds: [1]\n",
    "key twice": "seeds: [0]\nseeds: [1]\n",
    "open quote": 'base: {name_or_path: "abc\n',
    "open brace": "base: {name_or_path: abc\n",
    "colon": "seeds: [0]: 1\n",
    "at sign": "seeds: @here\n",
    "backtick": "seeds: `here`\n",
    "percent": "%YAML 9.9\nseeds: [0]\n",
    "huge number": f"data_seed: {'9' * 5000}\n",
    "hexadecimal": f"data_seed: 0x{'f' * 500}\n",
    "sexagesimal": "data_seed: " + ":".join(["59"] * 500) + "\n",
    "infinity": "dpo: {beta: .inf}\n",
    "not a number": "dpo: {beta: .nan}\n",
    "seeds without bound": "seeds: 0-999999999\n",
    "seeds backwards": "seeds: 5-2\n",
    "seeds twice": "seeds: [1, 1]\n",
    "negative seed": "seeds: [-1]\n",
    "seed too large": "data_seed: 99999999999\n",
    "many values": "seeds: [" + ", ".join(map(str, range(30_000))) + "]\n",
    "too large": "# " + "x" * (2 << 20),
    "merge of a list": "<<: [1, 2]\nseeds: [0]\n",
    "null section": "sft: null\n",
    "list as a section": "sft: [1]\n",
    "text as a section": "sft: hello\n",
    "number as a section": "ppo: {kl: 5}\n",
    "half a character": 'base: {name_or_path: "\\uD83D"}\n',
    "windows path": "files: {folder: C:\\x, demonstrations: a}\n",
}
BYTES = {
    "UTF-16": "seeds: [0]\n".encode("utf-16"),
    "UTF-16 without mark": "seeds: [0]\n".encode("utf-16-le"),
    "UTF-32": "seeds: [0]\n".encode("utf-32"),
    "Latin-1": "base: {name_or_path: café}\n".encode("latin-1"),
    "cut character": "base: {name_or_path: é".encode()[:-1],
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0",
    "random": random.Random(1).randbytes(300),
    "zip": b"PK\x03\x04" + bytes(40),
}


@pytest.mark.parametrize("name", [*FILES, *BYTES])
def test_a_file_that_is_no_config(attempt, tmp_path, name):
    file = tmp_path / "config.yaml"
    file.write_bytes(BYTES[name] if name in BYTES else FILES[name].encode())
    attempt("config", "dpo_vs_ppo", "--config", str(file)).refused(2, str(file))


def test_a_control_character_in_a_setting_is_shown_as_an_escape(attempt):
    outcome = attempt("config", "dpo_vs_ppo", "--set", 'base.name_or_path="a\\e[2J\\u202eb"')
    outcome.accepted()
    assert "\\u001b" in outcome.said and "\\u202e" in outcome.said


OVERRIDES = [
    "", "=", "=1", "seeds", "seeds=", "seeds=[", "seeds={", ".=1", "..=1", ".seeds=1", "seeds.=1",
    "seeds.x=1", "sft.=1", "sft..evaluations=1", "sft.evaluations.x=1", "a=b=c", "sft=1",
    "sft=[1]", "sft={nothing: 1}", "seeds=*a", "seeds=&a", "seeds=!!python/name:os.system",
    "seeds=0-", "seeds=-3", "seeds=0--3", "seeds=a-b", "seeds=0,,1", "seeds=1,1", "seeds=٣",
    "seeds=[[0]]", "seeds=[true]", "seeds=[0.5]", "data_seed=-1", "data_seed=1e5", "data_seed=null",
    "dpo.beta=0", "dpo.beta=-1", "dpo.beta=.nan", "dpo.loss=nothing",
    "dpo.loss=no.such.module", "dpo.loss=..", "dpo.loss=a.", "dpo.loss=.a", "dpo.loss=a..b",
    "dpo.loss=os", "ppo.rollouts.engine=none", "base.revision=x",
    "base.dtype=int8", "sft.training.optimizer=sgd", "sft.training.log_every=0",
    "sft.training.checkpoint_every=7", "sft.tuning.rank=0", "ppo.kl.estimator=k9",
    "files.folder=x", "files.demonstrations=x", "preferences.max_rows=3",
    "measures.tables=x", "world.documents=1", "seeds=" + "[" * 2000,
    "base.name_or_path=" + "x" * 100_000 + "\0", "\ud83d=1", "seeds=\ud83d", "seeds=\x1b[31m",
]  # fmt: skip


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda text: ascii(text)[:40])
def test_an_override_that_cannot_be(attempt, override):
    attempt("config", "dpo_vs_ppo", "--set", override).refused(2)


NAMES = [
    "../x", "/tmp/x", "a/b", "a\\b", "..", ".", ".x", "-x", " ", "a b", "a\nb", "é", "\u202ea",
    "a" * 101, "store", "STORE", "campaigns", "comparisons", "server", "x.", "a\0b", "a:b", "con|x",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_run_whose_name_is_no_folder(attempt, tmp_path, name):
    home = tmp_path / "home"
    outcome = attempt("run", "dpo_vs_ppo", "--name", name, "--home", str(home))
    outcome.refused(2, "cannot be the name of a run")
    assert not home.exists()


@pytest.mark.parametrize("recipe", ["", "none", "../x", "/etc/passwd", "x.py", "\0"])
def test_a_recipe_that_is_not_there(attempt, recipe):
    attempt("run", recipe).refused(2, "There is no recipe")


@pytest.mark.parametrize("arguments", [["x"], ["--seed"], ["--", "x"], ["--seed=1", "2"],
                                       ["--no.such.setting", "1"], ["--=1"], ["---"]])  # fmt: skip
def test_options_that_are_no_settings(attempt, tmp_path, arguments):
    attempt("run", "dpo_vs_ppo", "--home", str(tmp_path), *arguments).refused(2)


@pytest.mark.parametrize("command", ["run", "config", "show", "evaluate", "compare"])
def test_an_argument_that_is_no_utf8_is_refused_by_every_command(attempt, command):
    attempt(command, "caf\udce9").refused(2, "is not UTF-8 at character 4")


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["reward", "audit", "MODEL", "--data", "FILE", "--proxy", "score"], "--samples"),
        (["reward", "audit", "MODEL", "--data", "FILE", "--gold-column", "true"], "--samples"),
        (["evaluate", "MODEL", "--prompts", "FILE", "--tasks-folder", "."], "lm-eval:NAME"),
        (["evaluate", "MODEL", "--prompts", "FILE", "--judge-set", "model=x"], "--judge llm"),
        (["compare", "--samples", "FILE", "--currency", "€"], "price_per_hour"),
        (["data", "check", "FILE", "--as", "labels", "--format", "messages"], "no effect"),
        (["data", "check", "FILE", "--as", "labels", "--columns", "prompt=label"], "no effect"),
    ],
    ids=lambda value: value[-2] if isinstance(value, list) else None,
)
def test_an_option_without_effect_is_refused(attempt, tmp_path, arguments, needs):
    file = tmp_path / "rows.csv"
    file.write_text("item,person,label\n1,ana,a\n")
    given = [str(file) if argument == "FILE" else argument for argument in arguments]
    attempt(*given).refused(2, needs)
