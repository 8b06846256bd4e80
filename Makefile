# Every target sets up what it needs: a virtual environment in .venv with the project installed in it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

SEED   ?=

.PHONY: run test check chaos prove bench bench-check clean
.DEFAULT_GOAL := run

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Outlive needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

run: $(VENV)/.ready        ## the demo: two bots on real prices, killed at random, and a verdict
	@$(BIN)/python -m demo

test: $(VENV)/.ready       ## all tests
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

check: $(VENV)/.ready      ## lint and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy

chaos: $(VENV)/.ready      ## 1,000 kills of real processes, and the demo's verdict; SEED=n repeats a run
	@$(BIN)/python -m tests.chaos --kills 1000 $(if $(SEED),--seed $(SEED))

prove: $(VENV)/.ready      ## the whole crash laboratory, to its long bounds; SEED=n repeats a run
	@$(BIN)/python -m tests.lab $(if $(SEED),--seed $(SEED))

$(VENV)/.bench: $(VENV)/.ready benchmarks/supervisord.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@test -x $(VENV)/supervisord/bin/python || $(PYTHON) -m venv $(VENV)/supervisord
	@$(VENV)/supervisord/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/supervisord.txt
	@touch $@

bench: $(VENV)/.bench      ## beside every peer: tables, plots and figures in bench-run
	@mkdir -p bench-run
	@$(BIN)/python -m benchmarks --json bench-run/results.json --plots bench-run/plots

bench-check: $(VENV)/.bench ## has something become much slower?
	@$(BIN)/python -m benchmarks.check

clean:                     ## remove what the targets made
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache demo-run bench-run
