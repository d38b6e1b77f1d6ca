# Everything from a bare machine: only Python 3.11 or newer and make are needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
QUIET ?= --quiet

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test lint types docs bench mutants clean

demo: $(INSTALLED)
	@$(BIN)/allen2022-surface demo

# Such as: make test TESTS=tests/nsd. Each of its processes computes on one core, and the hundreds that the tests start find
# their modules compiled.
test: export OPENBLAS_NUM_THREADS = 1
test: export PYTHONDONTWRITEBYTECODE =
test: lint types
	$(PYTEST) $(TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .

types: $(INSTALLED)
	$(BIN)/mypy --no-error-summary

docs: $(INSTALLED)
	$(BIN)/python -m sphinx --fresh-env -W --keep-going -b html docs docs/_build/html

bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench.py $(BENCH)

# Such as: make mutants MODULE=assemble/responses SAMPLE=50 SEED=1; a sample of every module without MODULE.
SAMPLE ?= 20
SEED ?= 0
mutants: $(INSTALLED)
	$(BIN)/python tests/tools/mutants.py $(MODULE) --sample $(SAMPLE) --seed $(SEED)

$(INSTALLED): setup.py constraints.txt
	@echo "Installing everything into $(VENV): once, 3 GB, two minutes with a fast network. To see pip's progress: make demo QUIET="
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install $(QUIET) --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist demo docs/_build docs/api *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
