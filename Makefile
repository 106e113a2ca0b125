# Tritonfleet: every target sets up what it needs in .venv and can be run first.
#
#   make demo          the main job on this machine, start to end
#   make test          the tests
#
# PYTHON        a Python 3.11 or 3.12 (default: the first of python3.12, python3.11, python3 that is one)
# TORCH_FLAGS   flags for installing PyTorch, e.g. --index-url of the CPU wheels (see the README)
# FLAGS         passed on: make demo FLAGS=--json, make test FLAGS="-k onnx -x"

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
TORCH_FLAGS ?=
FLAGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo serve test lint bench soak clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -9

$(VENV)/run.stamp: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 found. Install one, or name it: make demo PYTHON=/path/to/python3.12" >&2; exit 2; }
	@echo "Setting up $(VENV) with $(PYTHON) (once; PyTorch's CPU build is the largest part) ..."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(PIP) install $(TORCH_FLAGS) $(TORCH)
	@$(PIP) install --constraint constraints.txt --editable '.[cpu,embedded,export,models]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@$(PIP) install --constraint constraints.txt --editable '.[cpu,embedded,export,models,dev]'
	@touch $@

demo: $(VENV)/run.stamp
	@$(BIN)/tritonfleet demo $(FLAGS)

serve: $(VENV)/run.stamp
	@$(BIN)/tritonfleet build
	@$(BIN)/tritonfleet serve $(FLAGS)

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest $(FLAGS)

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.bench $(FLAGS)

soak: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.faults.soak $(FLAGS)

clean:
	rm -rf $(VENV) .tritonfleet .model_repository.staging .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf model_repository/*/[0-9]*/ build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
