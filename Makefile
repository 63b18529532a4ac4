# Each target sets up what it needs on a fresh machine: Python 3.11 or newer, its venv module, pip.
# `make demo` shows it, `make test` checks it; README.md says what each of them takes.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PROZESS := $(VENV)/bin/prozess
STAMP := $(VENV)/.installed
RUNS := runs/nightly

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick nightly lint clean

help:
	@echo "make demo     a cluster of three processes on trial: 30 s of faults, then the verdict"
	@echo "make test     lint, then every test but the nightly ones; the last ones start processes"
	@echo "make quick    lint, and the tests without processes and without simulator"
	@echo "make nightly  the long tests, 5,000 seeds, the zoo, the models and ten trials, three hours"
	@echo "make lint     ruff and mypy"
	@echo "make clean    remove what these made, data of clusters and runs excepted"

# --- setup -------------------------------------------------------------------------------------------

setup: $(STAMP)

$(STAMP): pyproject.toml
	@echo "== setup: a virtual environment in $(VENV), rebuilt when pyproject.toml changes"
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON): install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Prozess needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)."; \
		echo "Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python's venv module is missing: install it (Debian, Ubuntu: apt-get install python3-venv)"; \
		echo "and run make again."; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

# --- the demonstration -------------------------------------------------------------------------------

demo: $(STAMP)
	@.ci/demo $(PROZESS)

# --- checks ------------------------------------------------------------------------------------------

lint: $(STAMP)
	@echo "== lint: ruff and mypy"
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .
	@$(VENV)/bin/mypy

quick: lint
	@echo "== tests that start no broker process, without the seeds of the simulator"
	@$(PY) -m pytest -q -n 2 --dist loadgroup -m 'not process and not nightly and not simulation'

# The second part runs also when the first one failed: whoever waits for it wants to know all.
test: lint
	@code=0; \
	echo "== 1 of 2: tests that start no broker process, two at a time"; \
	$(PY) -m pytest -q -n 2 --dist loadgroup -m 'not process and not nightly' || code=1; \
	echo "== 2 of 2: tests on real processes, one cluster at a time"; \
	$(PY) -m pytest -q -m 'process and not nightly' || code=1; \
	exit $$code

nightly: lint
	@echo "== the long tests"
	@$(PY) -m pytest -q -m nightly
	@echo "== 5,000 seeds of the simulator, and the zoo"
	@$(PROZESS) sim search --seeds 5000
	@$(PROZESS) sim zoo
	@echo "== the models"
	@$(PROZESS) tla check --tier nightly
	@echo "== ten trials of two minutes; a verdict other than valid ends this"
	@rm -rf $(RUNS)
	@for seed in 1 2 3 4 5 6 7 8 9 10; do \
		$(PROZESS) chaos run --time 120 --seed $$seed -o $(RUNS)/$$seed || exit 1; done
	@echo "== ten minutes with every kind of fault"
	@$(PROZESS) chaos run --profile nightly --time 600 --seed 1 -o $(RUNS)/every-fault
	@echo "== power losses of the whole cluster: nothing is gone; then with flush=async, and what is gone is proven"
	@for flush in ack async; do \
		$(PROZESS) chaos run --time 120 --seed 1 --nemesis power-loss,partition --flush $$flush \
			-o $(RUNS)/power-loss-$$flush || exit 1; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
