# Everything from a bare machine: only Python 3.11 or newer and make are needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint types docs bench mutants clean

demo: $(INSTALLED)
	$(BIN)/allen2022-surface demo

test: lint types
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python -m sphinx --fresh-env -W --keep-going -b html docs docs/_build/html

bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench.py $(BENCH)

# Such as: make mutants MODULE=build/responses SAMPLE=50 SEED=1; a sample of every module without MODULE.
SAMPLE ?= 20
SEED ?= 0
mutants: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,mutants]'
	$(BIN)/python tests/mutants.py $(MODULE) --sample $(SAMPLE) --seed $(SEED)

$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build docs/_build docs/api *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
