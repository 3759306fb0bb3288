# Two commands: `make quickstart` runs the main job, `make test` passes the tests.
# Both set up what they need first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-cpu test-gpu check docs format setup clean

quickstart: setup
	$(BIN)/plumbline run dpo_vs_ppo --config quickstart

# The checks run beside the tests, which do not keep all cores busy at the start. A GPU is hidden
# from the tests; where there is one, those that are marked for it follow.
test: setup
	$(MAKE) --jobs 2 check test-cpu
	@if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then $(MAKE) test-gpu; fi

test-cpu: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-gpu: setup
	HF_HUB_OFFLINE=1 PLUMBLINE_TEST_GPU=1 $(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	PYTHONPATH=docs $(BIN)/python -m site_builder

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.installed

# torch first and on its own, so that its exact version is settled before anything asks for a range.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Plumbline needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing torch and about 230 packages into $(VENV), once (3 GB or more): some minutes.'
	$(BIN)/python -m pip install --constraint constraints.txt torch
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
