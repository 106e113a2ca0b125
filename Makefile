# Tritonfleet: every target sets up what it needs in .venv and can be run first.
#
#   make demo          the main job on this machine, start to end
#   make test          the tests
#
# PYTHON        a Python 3.11 or 3.12 (default: the first of python3.12, python3.11, python3 that is one)
# TORCH_FLAGS   flags for installing PyTorch, e.g. --index-url of the CPU wheels (see the README)
# ALLOW_CUDA    set to 1 to let PyTorch's CUDA build (gigabytes) be downloaded
# JOBS          how many tests run at a time (default: 2)
# FLAGS         passed on: make demo FLAGS=--json, make test FLAGS="-k onnx -x"

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
TORCH_FLAGS ?=
ALLOW_CUDA ?=
FLAGS ?=
JOBS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Exits with a sentence unless this Python has the shared libpython that Triton's Python stub is linked to.
define NEEDS_LIBPYTHON
import sys, sysconfig
from pathlib import Path
name = sysconfig.get_config_var("INSTSONAME") or ""
path = Path(sysconfig.get_config_var("LIBDIR") or "", name)
if ".so" not in name or not path.is_file():
    v = "python%d.%d" % sys.version_info[:2]
    sys.exit(f"{sys.executable} has no shared libpython ({path}), which Triton needs. Debian, Ubuntu: apt install "
             f"lib{v} {v}-venv. pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install.")
endef
# Exits with a sentence where installing PyTorch would bring CUDA along. Reads pip's report.
define NEEDS_CPU_TORCH
import json, sys
names = [item["metadata"]["name"] for item in json.load(sys.stdin)["install"]]
if any(name.startswith("nvidia-") for name in names):
    sys.exit("The package index offers PyTorch's CUDA build (gigabytes); the CPU build is enough. See 'Start Locally' on "
             "pytorch.org for its index and run: make demo TORCH_FLAGS='--index-url <that index>'; or ALLOW_CUDA=1.")
endef
export NEEDS_LIBPYTHON NEEDS_CPU_TORCH

.PHONY: help demo serve test lint bench soak fuzz clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -10

$(VENV)/run.stamp: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 found. Install one, or name it: make demo PYTHON=/path/to/python3.12" >&2; exit 2; }
	@"$(PYTHON)" -c "$$NEEDS_LIBPYTHON"
	@echo "Setting up $(VENV) with $(PYTHON) (once; PyTorch is the largest part) ..."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@test -n "$(ALLOW_CUDA)" || $(BIN)/python -c 'import torch' 2>/dev/null || \
		$(PIP) install --dry-run --report - $(TORCH_FLAGS) $(TORCH) 2>/dev/null | $(BIN)/python -c "$$NEEDS_CPU_TORCH"
	@$(PIP) install $(TORCH_FLAGS) $(TORCH)
	@$(PIP) install --constraint constraints.txt --editable '.[cpu,embedded,export,models,placement]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@$(PIP) install --constraint constraints.txt --editable '.[cpu,embedded,export,models,placement,dev]'
	@touch $@

demo: $(VENV)/run.stamp
	@$(BIN)/tritonfleet demo $(FLAGS)

serve: $(VENV)/run.stamp
	@$(BIN)/tritonfleet build text_embedding --required
	@$(BIN)/tritonfleet serve $(FLAGS)

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(FLAGS)

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.bench $(FLAGS)

soak: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.faults.fleet_soak $(FLAGS)
	@$(BIN)/python -m tests.faults.soak $(FLAGS)
	@$(BIN)/python -m tests.faults.agent_kills

fuzz: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.faults.fuzz_texts $(FLAGS)

clean:
	rm -rf $(VENV) .tritonfleet .model_repository.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf model_repository/*/[0-9]*/ build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
