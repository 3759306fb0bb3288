"""A GPU changes nothing that the tests say: it is hidden from all but those marked ``gpu``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
TWO = """
import pytest

def test_of_the_cpu():
    pass

@pytest.mark.gpu
def test_of_the_gpu():
    pass
"""


@pytest.mark.parametrize(("gpu", "ran"), [("0", "test_of_the_cpu"), ("1", "test_of_the_gpu")])
def test_either_the_tests_of_the_gpu_run_or_all_others(tmp_path, gpu, ran):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_two.py").write_text(TWO)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-c", str(ROOT / "pyproject.toml"),
         "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path)],
        env=os.environ | {"PLUMBLINE_TEST_GPU": gpu},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 deselected" in done.stdout
    assert f"{ran} PASSED" in done.stdout


def test_no_gpu_is_seen_here_nor_in_a_process_that_a_test_starts():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not torch.cuda.is_available()


@pytest.mark.gpu
def test_the_gpu_is_seen_where_its_tests_run():
    assert torch.cuda.is_available()
