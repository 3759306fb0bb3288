"""What pages say of commands and settings is true: each command is read, each setting exists."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from evaluation.measures.registry import MEASURES
from plumbline.commands.recipe_book import as_overrides, find
from plumbline.commands.settings import resolved
from plumbline.config import declared
from plumbline.errors import ConfigError
from site_builder.command_pages import all_commands, options_of, takes_value
from site_builder.links import lines
from site_builder.modules import PACKAGES, module_file
from site_builder.pages import ROOT
from site_builder.settings_pages import all_keys, command_schemas

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(file for file in sorted((ROOT / "docs").rglob("*.md")) if "example-report" not in file.parts),
]
COMMANDS = dict(all_commands())
GROUPS = {name.rpartition(" ")[0] for name in COMMANDS} - {"plumbline"}

#: What begins a dotted name that is no setting: a variable of an example, or another package.
NOT_SETTINGS = {
    "my_module",
    "my_package",
    "stage",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
}

ONE_STAGE = {
    "plumbline train sft": "train_sft",
    "plumbline train reward": "train_reward",
    "plumbline train dpo": "train_dpo",
    "plumbline train kto": "train_kto",
    "plumbline train ppo": "train_ppo",
    "plumbline pairs": "sample_pairs",
}

FILES = {
    f".{end}"
    for end in [
        "csv",
        "gz",
        "html",
        "json",
        "jsonl",
        "md",
        "parquet",
        "py",
        "safetensors",
        "toml",
        "txt",
        "yaml",
    ]
}


def commands_in(text: str) -> list[str]:
    """Return every command line of a page: in blocks of code, and alone in inline code."""
    code = "".join(line if is_code else "\n" for line, is_code in lines(text))
    rows = [row.strip() for row in code.replace("\\\n", " ").splitlines()]
    prose = "".join(line for line, is_code in lines(text) if not is_code)
    rows += [" ".join(match.split()) for match in re.findall(r"`([^`]+)`", prose)]
    rows = [" ".join(re.sub(r"^(?:\$ )?(?:\.venv/bin/)?", "", row).split()) for row in rows]
    return [row for row in rows if row.startswith("plumbline ")]


def problem_of(command: str) -> str | None:
    """Return what is wrong with a command line, or None."""
    words = [w for w in shlex.split(command, comments=True) if not set(w) <= set("…[]|/")]
    name = "plumbline"
    while len(words) > 1 and f"{name} {words[1]}" in COMMANDS | dict.fromkeys(GROUPS):
        name = f"{name} {words.pop(1)}"
    if name in GROUPS | {"plumbline"}:
        rest = [word for word in words[1:] if not word.startswith("-")]
        return f"there is no command {name} {rest[0]}" if rest else None
    return _problem_of_options(name, words[1:])


def _problem_of_options(name: str, words: list[str]) -> str | None:
    options, known, other, configs, changes = options_of(COMMANDS[name]), [], [], [], []
    while words:
        word = words.pop(0)
        option, sign, value = word.partition("=")
        if option not in options:
            known.append(word) if not word.startswith("-") and not other else other.append(word)
            continue
        if not takes_value(options[option]):
            continue
        value = value if sign else (words.pop(0) if words else "")
        changes += [value] if option in ("--set", "-s") else []
        configs += [value] if option in ("--config", "-c") else []
    if name in ("plumbline run", "plumbline config"):
        is_named = bool(known) and known[0].islower() and not {"/", "."} & set(known[0])
        recipe = find(known[0]) if is_named else None
        if recipe is None or any(
            "/" in file or file.isupper() or file.endswith(".yaml") for file in configs
        ):
            return None  # a placeholder, or a script of the reader's own
        resolved(recipe, configs[0] if configs else None, [*changes, *as_overrides(other)])
        return None
    if name in ONE_STAGE:
        resolved(find(ONE_STAGE[name]), None, [*changes, *as_overrides(other)])
        return None
    if other:
        return f"{name} has no option {other[0]}"
    schema = command_schemas().get(name.removeprefix("plumbline "))
    keys = {"KEY", *(setting.key for setting in declared(schema))} if schema else set()
    wrong = [change for change in changes if schema and change.partition("=")[0] not in keys]
    return f"{name} has no setting {wrong[0]}" if wrong else None


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_command_on_a_page_is_one(file):
    text = file.read_text(encoding="utf-8")
    wrong = {command: problem_of(command) for command in commands_in(text)}
    assert not {command: problem for command, problem in wrong.items() if problem}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_setting_on_a_page_exists(file):
    keys = all_keys()
    known = {key.split(".", start)[-1] for key in keys for start in range(key.count(".") + 1)}
    # Of a whole group, too: `ppo.value`.
    known |= {prefix for key in known for prefix in _prefixes(key)}
    text = "".join(line for line, is_code in lines(file.read_text("utf-8")) if not is_code)
    named = set(re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)(?::[^`]*)?`", text))
    unknown = {name for name in named if name not in known and not _is_something_else(name)}
    assert not unknown


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _is_something_else(name: str) -> bool:
    """Whether a dotted name is a file, a module, a part of a measure, or in another package."""
    first, *_ = name.split(".")
    if Path(name).suffix in FILES or first in NOT_SETTINGS or first in MEASURES:
        return True
    modules = (name, name.rpartition(".")[0])
    return first in PACKAGES and any(module_file(module).is_file() for module in modules)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_place_waits_for_text(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if re.fullmatch(r"[A-Z_]{4,}", line)]


def test_a_wrong_command_is_seen():
    assert problem_of("plumbline runn dpo_vs_ppo") == "there is no command plumbline runn"
    assert (
        problem_of("plumbline annotate puush x") == "there is no command plumbline annotate puush"
    )
    assert problem_of("plumbline watch RUN --port 0") is None
    assert problem_of("plumbline watch RUN --pirt 0") == "plumbline watch has no option --pirt"
    assert problem_of("plumbline evaluate M --set evaluation.sampling.temperature=1") is None
    with pytest.raises(ConfigError, match=r"no setting 'dpo\.betta'"):
        problem_of("plumbline train dpo --model M --data D --dpo.betta 1")
    assert "has no setting" in problem_of("plumbline evaluate M --set evaluation.sampling.t=1")
    with pytest.raises(Exception, match=r"no setting 'ppo\.kl\.coeficient'"):
        problem_of("plumbline run dpo_vs_ppo --ppo.kl.coeficient 1")
    with pytest.raises(Exception, match="no config 'quickstrat'"):
        problem_of("plumbline run dpo_vs_ppo --config quickstrat")


def test_commands_are_found_in_blocks_and_in_text():
    text = "Use `plumbline runs`.\n\n    .venv/bin/plumbline show RUN  # all\n\n"
    text += "```sh\nplumbline run a \\\n--b\n```\n"
    found = ["plumbline run a --b", "plumbline runs", "plumbline show RUN # all"]
    assert sorted(commands_in(text)) == found


def test_design_names_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *(p for e in extras for p in extras[e] if e != "dev")]
    page = (ROOT / "docs" / "design.md").read_text("utf-8").partition("## Dependencies")[2]
    names = {re.split(r"[<>=\[]", package)[0].lower() for package in named}
    assert len(names) > 45
    found = {word.strip(".") for word in re.findall(r"[\w.-]+", page.lower())}
    assert sorted(names - found) == []


@pytest.mark.parametrize("room", ["annotation", "evaluation", "preference", "reward", "rl", "sft"])
def test_a_room_s_page_names_each_of_its_folders(room):
    page = (ROOT / "docs" / "rooms" / f"{room}.md").read_text("utf-8")
    folders = {f"(../../{file.parent.relative_to(ROOT)}" for file in ROOT.glob(f"{room}/*/*.py")}
    assert sorted(folder for folder in folders if folder not in page) == []
