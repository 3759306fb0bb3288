"""The digest of code: what could change a result changes it, and nothing else does."""

from __future__ import annotations

import gc
import importlib.util
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plumbline.runs import code_version
from plumbline.runs.code_version import PACKAGES, PRESENTATION, closure, digest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of ours with three modules: a uses b, and c stands alone."""
    folder = tmp_path / "made_up"
    folder.mkdir()
    sources = {
        "__init__": "",
        "a": '"""A."""\nfrom made_up.b import f\n\ndef g():\n    """G."""\n    return f() + 1\n',
        "b": "def f():\n    return 1\n",
        "c": "def h():\n    return 1\n",
    }
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(code_version, "PACKAGES", {*code_version.PACKAGES, "made_up"})
    importlib.invalidate_caches()

    def forget() -> None:
        for function in vars(code_version).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()

    def change(name: str, old: str, new: str) -> str:
        path = folder / f"{name}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        forget()
        return digest("made_up.a")

    forget()
    yield change
    forget()
    sys.modules.pop("made_up", None)


def test_a_change_in_what_is_imported_counts(package):
    before = digest("made_up.a")
    assert package("b", "return 1", "return 2") != before


def test_docstrings_and_strangers_do_not_count(package):
    before = digest("made_up.a")
    assert package("a", '"""G."""', '"""Another text."""') == before
    assert package("a", '"""A."""', '"""B."""\n# and a comment') == before
    assert package("c", "return 1", "return 2") == before


def test_imports_for_types_alone_do_not_count(package):
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made_up.c import h\n"
    package("a", "from made_up.b import f\n", f"from made_up.b import f\n{types}")
    assert "made_up.c" not in closure("made_up.a")
    before = digest("made_up.a")
    assert package("a", "made_up.c import h", "made_up.c import h as k") == before


def test_modules_are_found_without_importing_them(package):
    assert closure("made_up.a") >= {"made_up.a", "made_up.b"}
    assert "made_up.a" not in sys.modules


def test_every_module_that_is_listed_exists():
    assert [name for name in sorted(PRESENTATION) if code_version._path(name) is None] == []


def test_a_folder_of_code_beside_a_module_is_there():
    named = {
        file: folder
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*.py")
        for folder in re.findall(r'^CODE_BESIDE = "(.*)"$', file.read_text(), re.MULTILINE)
    }
    assert len(named) > 3
    assert [file for file, folder in named.items() if not (file.parent / folder).is_dir()] == []


def test_labels_do_not_depend_on_how_models_are_loaded():
    modules = closure("annotation.aggregation.aggregate")
    assert "plumbline.data.labels" in modules
    assert not {name for name in modules if name.startswith("plumbline.lm")}


def test_a_trainer_s_identity_covers_its_losses_and_not_the_progress_bar():
    modules = closure("rl.ppo")
    assert {"rl.losses", "rl.advantages", "plumbline.lm.logprobs"} <= modules
    assert not modules & {
        "plumbline.runs.progress",
        "preference.dpo",
        "evaluation.comparison.compare",
    }


def test_threads_may_describe_stages_at_a_time():
    """Python 3.11 fails where a collection of garbage lets a second thread parse meanwhile."""

    def give_way(*_) -> None:
        time.sleep(0)

    folder = Path(code_version.__file__).parent
    modules = [f"plumbline.runs.{file.stem}" for file in folder.glob("*.py")]
    threshold = gc.get_threshold()
    gc.callbacks.append(give_way)
    gc.set_threshold(100, 2, 2)
    try:
        with ThreadPoolExecutor(8) as threads:
            trees = list(threads.map(code_version._tree.__wrapped__, 6 * modules))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(give_way)
    assert len(trees) == 6 * len(modules)
