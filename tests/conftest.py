"""What all tests share: no network, no GPU, one small model, and where real data may lie.

A GPU must not change what the tests say, so it is hidden from them. With ``PLUMBLINE_TEST_GPU=1``
it is seen, and the tests that are marked ``gpu`` run, and no others.
"""

from __future__ import annotations

import gc
import os
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("PLUMBLINE_HOME", "/nonexistent")  # no test may write to a user's runs
# Before torch is imported, here and in every process that a test starts.
if os.environ.get("PLUMBLINE_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = ""
if "PYTEST_XDIST_WORKER" in os.environ:  # about as many processes as cores: one thread each
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from filelock import FileLock
from hypothesis import settings
from ruamel.yaml import YAML

from tests.warm_start import ADDRESS, WarmStart, keep_a_server_ready

# What imports torch is imported in fixtures: pytest's first process reads this file, too.
GPU = os.environ.get("PLUMBLINE_TEST_GPU") == "1"
DOCS = Path(__file__).resolve().parents[1] / "docs"
#: Variable with the folder where what is downloaded is kept.
_HUB = "PLUMBLINE_TESTS_HUB"
#: When the garbage collector was last told what stays, and after how long it is again.
_frozen, _SECONDS_BETWEEN_FREEZES = [time.monotonic()], 10.0
#: Real files, unchanged, beside the checkout; tests that need one skip where it is absent.
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Heed ctrl-C even where the tests were started in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ or config.getoption("dist", "no") == "no":
        gc.disable()  # until all tests are collected, which pytest's first process never does
    if _HUB not in os.environ:  # before any library is imported
        hub = os.environ["HF_HOME"] = os.environ[_HUB] = tempfile.mkdtemp(prefix="hub-")
        config.add_cleanup(partial(shutil.rmtree, hub))
    if config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        start_for_all = WarmStart(OMP_NUM_THREADS="1")
        os.environ[ADDRESS] = start_for_all.begin()  # before the workers, which read it
        config.add_cleanup(start_for_all.close)
    settings.register_profile("any-machine", deadline=None)  # a busy one is slow, not wrong
    settings.load_profile("any-machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run either the tests of the GPU or all others, and the files with slow tests first.

    The end of the run is then shared by all workers: none waits for another's last long test. Of
    the files that read the finished chain the first one comes first, and makes it; the others come
    after all that are slow, so that no worker waits for the chain.
    """
    elsewhere = [item for item in items if (item.get_closest_marker("gpu") is not None) != GPU]
    config.hook.pytest_deselected(items=elsewhere)
    left_out = set(elsewhere)
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items[:] = [item for item in items if item not in left_out]
    first, *later = dict.fromkeys(
        [item.path for item in items if "finished" in getattr(item, "fixturenames", ())]
    ) or [None]

    def place(item: pytest.Item) -> int:
        if item.path == first:
            return 0
        return 3 if item.path not in slow else 2 if item.path in later else 1

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what the tests and the libraries consist of.

    Each training ends with a collection, which walked through millions of objects that never go:
    half of the seconds of a small one.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        gc.freeze()
        gc.enable()
        return
    import plumbline.runs.preload  # noqa: F401  what most of a worker's tests need

    gc.freeze()
    keep_a_server_ready()  # of the stages that run in this process
    gc.enable()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Between two files, let the garbage collector leave alone what has come to stay.

    Libraries that tests import later are millions of objects more: a collection, which each
    training ends with, took 0.2 seconds in the middle of a run.
    """
    yield
    now = time.monotonic()
    ends = nextitem is None or nextitem.path != item.path
    if ends and now - _frozen[-1] > _SECONDS_BETWEEN_FREEZES:
        gc.collect()
        gc.freeze()
        _frozen.append(now)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a test of a file's bytes after its argument: packed bytes may differ by the second.

    Two workers that name a test differently refuse to run at all.
    """
    return argname if isinstance(val, bytes) and len(val) > 16 else None


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make a folder once for all tests, in whichever of pytest's processes they run.

    ``once(name, make)`` calls ``make(folder)`` where no other process has, and returns the folder.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of the process which started the workers

    def make_once(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = root / f"shared-{name}", root / f"shared-{name}.done"
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def hub_cache() -> Path:
    """Where commands keep what they download, and nothing of a user's lies."""
    return Path(os.environ[_HUB])


@pytest.fixture(scope="session")
def warm_start():
    """What starts commands of the command line in a moment (tests/warm_start.py)."""
    started = WarmStart(os.environ.get(ADDRESS))
    yield started
    started.close()


@contextmanager
def headless_chromium():
    """Open a browser that reaches nothing but this machine; skip where there is none."""
    from selenium import webdriver

    names = ("chromium", "chromium-browser", "chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("there is no chromium with its chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--window-size=1400,1100", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):  # fmt: skip
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield made
    finally:
        made.quit()


@pytest.fixture(scope="module")
def shared_chromium():
    """One browser for all tests of a file."""
    with headless_chromium() as driver:
        yield driver


@pytest.fixture
def fresh_chromium():
    """A browser that knows nothing of the test before."""
    with headless_chromium() as driver:
        yield driver


@pytest.fixture
def real_file():
    """Return the path of a real file, or skip."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"the real file {name} is not here")
        return path

    return find


@pytest.fixture
def stage(tmp_path):
    """A stage to work in, silent."""
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage

    return Stage(tmp_path / "stage", Reporter(quiet=True))


@pytest.fixture(scope="session")
def base_folder(once):
    """A small model with the embedded model's architecture, tokenizer and template; untrained."""
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage
    from plumbline.training.base_model import BaseModelConfig, ScratchConfig, build_base
    from plumbline.training.config import TrainingConfig
    from plumbline.world.corpus import corpus

    config = BaseModelConfig(
        scratch=ScratchConfig(
            vocab_size=400,
            hidden_size=64,  # blocks of 64 weights share a scale in NF4
            layers=2,
            heads=2,
            intermediate_size=128,
            context=256,
            block=64,
            training=TrainingConfig(learning_rate=3e-3, max_steps=20, batch_size=4),
        )
    )

    def build(folder: Path) -> None:
        stage = Stage(folder, Reporter(quiet=True))
        build_base(stage, config=config, texts=corpus(0, 300), seed=0)

    return once("base", build) / "out"


@pytest.fixture(scope="session")
def model_of_kind(tmp_path_factory):
    """Return the folder of a tiny model of a kind of tokenizer (tests/model_kinds.py)."""
    make = runpy.run_path(str(Path(__file__).with_name("model_kinds.py")))["make_model"]
    folder = tmp_path_factory.mktemp("kinds")

    def find(kind: str) -> Path:
        return folder / kind if (folder / kind).exists() else make(folder / kind, kind)

    return find


@pytest.fixture(scope="session")
def tokenizer(base_folder):
    from plumbline.lm.tokenizer import load_tokenizer

    return load_tokenizer(base_folder)


@pytest.fixture
def policy(base_folder):
    from plumbline.lm.policy import Policy

    return Policy.load(base_folder)


@pytest.fixture(scope="session")
def prompts():
    """Twelve prompts of the embedded world, of every kind."""
    from plumbline.world.data import prompts

    return prompts(0, 12, "heldout")


@dataclass(frozen=True)
class WorkedExample:
    """The code of a page of docs/extending, written to an empty folder, which is entered."""

    text: str
    module: str
    source: str
    settings: dict[str, Any]
    folder: Path

    def run_its_test(self, **fixtures: Any) -> int:
        """Run all functions of the page's test; return how many there are."""
        tests = runpy.run_path(str(self.folder / f"test_{self.module}.py"))
        functions = [tests[name] for name in tests if name.startswith("test_")]
        for function in functions:
            function(**{name: fixtures[name] for name in signature(function).parameters})
        return len(functions)


@pytest.fixture
def worked_example(tmp_path, monkeypatch):
    """Return what makes a `WorkedExample` of a page of docs/extending, by the page's name.

    Such a page holds the whole of two files, the user's and its test, and a config that names it.
    """
    modules = []

    def make(page: str) -> WorkedExample:
        text = (DOCS / "extending" / f"{page}.md").read_text(encoding="utf-8")
        files = re.findall(
            r"Put this into `(\w+\.py)`[^\n]*\n\n```python\n(.*?)```", text, re.DOTALL
        )
        (name, source), (test_name, test) = files
        assert test_name == f"test_{name}"
        folder = tmp_path / "worked-example"
        folder.mkdir()
        for file, content in ((name, source), (test_name, test)):
            (folder / file).write_text(content, encoding="utf-8")
        (settings,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        module = name.removesuffix(".py")
        modules.append(module)
        sys.modules.pop(module, None)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        return WorkedExample(text, module, source, YAML(typ="safe").load(settings), folder)

    yield make
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def serve(base_folder):
    """Start servers that speak vLLM's protocol, and stop them after the test."""
    from tests.vllm_server import Server

    started = []

    def start(**behavior):
        started.append(Server(base_folder, **behavior))
        return started[-1]

    yield start
    for server in started:
        server.close()
