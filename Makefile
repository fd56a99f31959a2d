# The two commands a newcomer needs are `make run` and `make test`. Each sets up what it needs first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
CONFIG ?= config.yaml

.PHONY: help setup run test test-fast lint format lock docs clean

help: ## Say what each target does
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with inference-energy and snakemake in it (about a minute; nothing to do the next time)

$(STAMP): pyproject.toml requirements/bootstrap.lock requirements/requirements.lock
	@echo "==> setup: Python environment in $(VENV), from the lock file (about a minute)"
	@start=$$SECONDS; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "setup: $(PYTHON) is older than Python 3.11; name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }; \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "setup: the venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 2; }; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock; \
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode requirements/requirements.lock; \
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .; \
	touch $(STAMP); \
	echo "==> setup: done in $$((SECONDS - start)) s; activate it with: source $(VENV)/bin/activate"
