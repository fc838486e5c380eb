# Every target sets up what it needs: a fresh clone with Python 3.11+, make and a package registry is enough.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
UV := $(shell command -v uv)
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
WHAT = --constraint constraints.txt --editable '.[local,dev]'
# Test processes at once: two more than cores, as tests wait for engines much of their time.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 2)')
# Measured in continuous integration; tracing makes the suite slower.
COVERAGE ?=

.PHONY: help install demo test dev lint format bench chaos browser clean

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(INSTALLED)  ## .venv with the extras `local` and `dev`

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 on PATH (3.11 or newer is needed)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11; pass another: make install PYTHON=..."; exit 1; }
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python $(WHAT)
else
	$(PYTHON) -m venv $(VENV)
	@# uv unpacks in seconds what takes pip more than a minute; where it cannot reach the registry, pip does it.
	{ $(PIP) --constraint constraints.txt uv && $(BIN)/uv pip install --quiet --python $(BIN)/python $(WHAT); } \
		|| $(PIP) $(WHAT)
endif
	@touch $@

demo: install  ## the whole flow on sample data, from nothing, and what came out
	$(BIN)/data-platform demo

test: install  ## all tests, in parallel, on embedded engines
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not load and not browser" --durations=25 $(COVERAGE) $(ARGS)

dev: install  ## embedded cloud, loader and the Dagster UI on 127.0.0.1:3000, until Ctrl-C
	$(BIN)/data-platform dev

lint: install  ## ruff, basedpyright (strict), import-linter, the catalogue, the definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/data-platform catalog check
	$(BIN)/dg check defs

format: install  ## put the code in the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## the benchmarks: each a ratio to a limit or a peer of the same run
	$(BIN)/python -m benchmarks

chaos: install  ## the full fault matrices, with a written report
	CHAOS_REPORT=$${CHAOS_REPORT:-$(CURDIR)/.local/chaos} $(BIN)/python -m pytest -m load --timeout 7200 tests $(ARGS)
	@ls -l $${CHAOS_REPORT:-$(CURDIR)/.local/chaos} 2>/dev/null || true

browser: install  ## the tests that look at the UI in headless Chromium
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	$(BIN)/python -m pytest -m browser $(ARGS)

clean:  ## stop the embedded cloud; remove its state, caches and .venv
	@if [ -x $(BIN)/data-platform ]; then $(BIN)/data-platform cloud down || true; fi
	rm -rf .local .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* coverage.xml build dist $(VENV)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
