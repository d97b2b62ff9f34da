# Each target does all of its own set-up: a virtual environment in .venv, the package with its tested versions, then the work.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Further options of every `pip install`: PIP_EXTRA="--extra-index-url …" for an index with CPU builds of torch (docs/install.md).
PIP_EXTRA ?=
INSTALL = $(PIP) install --quiet $(PIP_EXTRA) -c constraints.txt
# mkdocs-material's advertisement is no warning of ours.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.PHONY: demo test test-slow test-tools test-emulated lint types format docs docs-serve gpu-check clean help

help:            ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12

demo: .venv/run.stamp  ## synthesise, shard, train, evaluate, report: about four minutes on two cores
	$(BIN)/seqjepa demo

# Where the shell forbids Python its bytecode, every process would compile all that it imports, and all asserts, anew.
test: .venv/dev.stamp  ## the fast tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test-slow: .venv/dev.stamp  ## the long ones: 50 SIGKILLs, every truncation …
	$(BIN)/python -m pytest -m slow

test-tools: .venv/tools.stamp  ## with other people's tools: wandb, trackio, lightning, notebooks …
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m tools

test-emulated: .venv/dev.stamp  ## those that need a GPU, on an emulated one: devices, waits of the host, launches
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p gpu_emulated -m "gpu or emulated" tests

lint: .venv/dev.stamp  ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev.stamp  ## pyright
	$(BIN)/pyright

format: .venv/dev.stamp  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/docs.stamp  ## the documentation site, strictly, into site/: open site/index.html
	$(MKDOCS) build

gpu-check: .venv/dev.stamp  ## on a machine with a GPU: its tests and a short benchmark, under ten minutes
	PYTHON=$(CURDIR)/$(BIN)/python bash benchmarks/gpu.sh check

docs-serve: .venv/docs.stamp  ## … on http://127.0.0.1:8000, anew after every change
	$(MKDOCS) serve

clean:           ## remove the environment, the demo and the site
	rm -rf .venv demo site

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python {v[0]}.{v[1]} found, 3.11 or newer needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/run.stamp: .venv/python.stamp pyproject.toml constraints.txt
	$(INSTALL) -e .
	@touch $@

.venv/dev.stamp: .venv/python.stamp pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	@touch $@

.venv/docs.stamp: .venv/python.stamp pyproject.toml constraints.txt
	$(INSTALL) -e '.[docs]'
	@touch $@

.venv/tools.stamp: .venv/dev.stamp pyproject.toml constraints.txt
	$(INSTALL) -e '.[tools]'
	@touch $@
