# `make test` and `make demo` set up everything they need, on a machine with Python 3.11 or newer.
.DEFAULT_GOAL := help
.PHONY: help setup lint test demo notebooks fuzz lock audit clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_LOGS := demo-logs/simulated.jsonl.gz
DEMO_OUTPUT := demo-output
FUZZ_SECONDS := 600
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

help: ## What can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(READY) ## Install Faultline and its tools into .venv (done by test and demo where needed)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Faultline needs Python 3.11 or newer: install it, or name it with make PYTHON=…"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

lint: $(READY) ## Check style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint ## Lint, then run all tests, one process for each core
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

demo: $(READY) ## Simulate an assistant's logs, label them, and show what came of it
	$(BIN)/faultline simulate --dialogues 300 --seed 2026 --output $(DEMO_LOGS)
	$(BIN)/faultline label --input $(DEMO_LOGS) --output $(DEMO_OUTPUT)
	@$(BIN)/python -m pipelines.demo $(DEMO_LOGS) $(DEMO_OUTPUT)

notebooks: $(READY) ## Run the notebooks from start to end, and write them back with their outputs
	$(BIN)/python notebooks/execute.py

fuzz: $(READY) ## Feed the readers of all formats hostile input for FUZZ_SECONDS (600)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS)

lock: ## Lock the newest versions that pyproject.toml allows, in constraints.txt
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --editable '.[dev]'
	grep '^#' constraints.txt > constraints.new
	$(VENV)-lock/bin/python -m pip freeze --exclude-editable | sed 's/+.*//' >> constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-lock

audit: $(READY) ## Look for known vulnerabilities in what is locked; it takes the network
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

clean: ## Remove .venv, the demo's logs and its output
	rm -rf $(VENV) $(dir $(DEMO_LOGS)) $(DEMO_OUTPUT)
