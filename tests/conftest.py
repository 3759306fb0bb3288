"""What all tests share: no network, no GPU, one small model, and where real data may lie.

A GPU must not change what the tests say, so it is hidden from them. With ``PLUMBLINE_TEST_GPU=1``
it is seen, and the tests that are marked ``gpu`` run, and no others.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("PLUMBLINE_HOME", "/nonexistent")  # no test may write to a user's runs
# Before torch is imported, here and in every process that a test starts.
if os.environ.get("PLUMBLINE_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = ""
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: one thread each
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from filelock import FileLock

from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.world.corpus import corpus

GPU = os.environ.get("PLUMBLINE_TEST_GPU") == "1"
#: Real files, unchanged, beside the checkout; tests that need one skip where it is absent.
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """Heed ctrl-C even where the tests were started in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run either the tests of the GPU or all others."""
    elsewhere = [item for item in items if (item.get_closest_marker("gpu") is not None) != GPU]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


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
    return Stage(tmp_path / "stage", Reporter(quiet=True))


@pytest.fixture(scope="session")
def base_folder(once):
    """A small model with the embedded model's architecture, tokenizer and template; untrained."""
    from plumbline.training.base_model import BaseModelConfig, ScratchConfig, build_base
    from plumbline.training.config import TrainingConfig

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
