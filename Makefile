# Each target does all of its own set-up: a virtual environment in .venv, the package with its tested versions, then the work.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-slow test-tools lint types format clean help

help:            ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12

demo: .venv/run.stamp  ## synthesise, shard, train, evaluate, report: about four minutes on two cores
	$(BIN)/seqjepa demo

test: .venv/dev.stamp  ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8

test-slow: .venv/dev.stamp  ## the long ones: 50 SIGKILLs, every truncation …
	$(BIN)/python -m pytest -m slow

test-tools: .venv/tools.stamp  ## with other people's tools: wandb, trackio, lightning, notebooks …
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m tools

lint: .venv/dev.stamp  ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev.stamp  ## pyright
	$(BIN)/pyright

format: .venv/dev.stamp  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove the environment and the demo
	rm -rf .venv demo

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python {v[0]}.{v[1]} found, 3.11 or newer needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/run.stamp: .venv/python.stamp pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

.venv/dev.stamp: .venv/python.stamp pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

.venv/tools.stamp: .venv/dev.stamp pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e '.[tools]'
	@touch $@
