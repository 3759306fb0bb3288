"""The notebooks of the docs, executed as they stand with the sizes of a tiny model."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: Words that the page of the last but one or last result must have.
SHOWN = {
    "evaluate_and_compare": "win rate",
    "ppo_with_your_reward_model": "evaluation",
    "train_on_your_data": "held_out_loss",
}


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_results(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert not any(cell.get("outputs") for cell in book.cells)


@pytest.fixture(scope="module")
def kernel():
    """One kernel for all notebooks, which imports the libraries once."""
    manager = KernelManager(kernel_name="python3")
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    manager.start_kernel(env=os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"})
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, kernel, base_folder, tmp_path):
    book = nbformat.read(path, as_version=4)
    # As in a kernel of its own: no name is left, and the folder is empty.
    begin = f"%reset -f\n%cd -q {tmp_path}\n%env PLUMBLINE_HOME={tmp_path / 'home'}"
    book.cells.insert(0, nbformat.v4.new_code_cell(begin))
    (parameters,) = [c for c in book.cells if "parameters" in c.metadata.get("tags", [])]
    parameters.source = (
        f'MODEL = {str(base_folder)!r}\nSIZE = {{"max_length": 120, "batch_size": 8}}\nTOKENS = 8\n'
    )
    NotebookClient(book, km=kernel, timeout=300).execute()  # raises where a cell does
    pages = [
        output["data"]["text/html"]
        for cell in book.cells
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    ]
    assert any(SHOWN[path.stem] in page for page in pages)
    assert any("<progress" in page for page in pages)
