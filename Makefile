# The two commands a newcomer needs are `make run` and `make test`. Each sets up what it needs first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
CONFIG ?= config.yaml
PYTEST = PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest
# A worker for each core; a file's tests stay together, for they share fixtures.
PARALLEL := --numprocesses=logical --maxprocesses=8 --dist=loadfile --no-loadscope-reorder
# Each parser is fuzzed for as long as FUZZ_SECONDS says, beside others even on few cores.
FUZZING := --numprocesses=8 --dist=load

.PHONY: help setup run test test-fast fuzz coverage bench lint format lock docs images clean

help: ## List the targets
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

run: setup ## Set up and measure: the experiment in config.yaml (up to 12 minutes on 2 cores the first time)
	@$(BIN)/inference-energy check --files-only config.yaml $(filter-out config.yaml,$(CONFIG)) > /dev/null
	@echo "==> run: measuring with $(CONFIG); cached stages are not repeated"
	@start=$$SECONDS; \
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/snakemake $(if $(filter-out config.yaml,$(CONFIG)),--configfile $(CONFIG)) --quiet rules; \
	echo "==> run: done in $$((SECONDS - start)) s"

test: setup lint ## Set up, then lint and run all tests, with a real CPU vLLM and real Snakemake runs (up to 30 minutes on 2 cores)
	@echo "==> test: tests that may run beside others, on all cores"
	@start=$$SECONDS; failed=0; \
	$(PYTEST) $(PARALLEL) -m "not realtime and not fuzz" --durations=10 \
	  --ignore=tests/architecture/test_workflow_lint.py --ignore=tests/docs/test_prose.py || failed=$$?; \
	echo "==> test: damaged input for every parser, 30 s each"; \
	$(PYTEST) $(FUZZING) tests/fuzz || failed=$$?; \
	echo "==> test: tests in real time, one after another"; \
	$(PYTEST) -m realtime --durations=10 || failed=$$?; \
	test $$failed = 0 || { echo "==> test: failed, see the summary of each part above" >&2; exit $$failed; }; \
	echo "==> test: done in $$((SECONDS - start)) s"

test-fast: setup ## Run the quick tests: no vLLM, no Snakemake, nothing slow (under 2 minutes)
	@$(PYTEST) $(PARALLEL) --quiet -m "not realtime and not pipeline and not slow and not fuzz"
	@$(PYTEST) --quiet -m "realtime and not vllm and not pipeline and not slow"

fuzz: setup ## Feed every parser damaged input, 10 minutes each (FUZZ_SECONDS=600)
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(PYTEST) $(FUZZING) --quiet tests/fuzz

coverage: setup ## Measure line coverage without vLLM, Snakemake and real time, and compare it with the floor in pyproject.toml
	@$(PYTEST) $(PARALLEL) -m "not vllm and not pipeline and not realtime and not fuzz" --cov --cov-report=term:skip-covered

bench: setup ## Check this installation against a simulated GPU with known truth (about 3 minutes)
	@echo "==> bench: simulated sessions, then one live run on a virtual GPU"
	@start=$$SECONDS; \
	$(BIN)/inference-energy bench check; \
	echo "==> bench: done in $$((SECONDS - start)) s"

lint: setup ## Check style, types, spelling, prose and workflow
	@echo "==> lint: ruff, mypy, snakefmt, codespell, prose, snakemake --lint"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/snakefmt --check Snakefile workflow
	@$(BIN)/codespell
	@$(PYTEST) --quiet tests/architecture/test_workflow_lint.py tests/docs/test_prose.py

format: setup ## Format the code
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/snakefmt Snakefile workflow

docs: setup ## Generate comments, JSON schema and reference pages, then build the documentation into site/
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/inference-energy document config.yaml config/*.yaml \
	  --schema workflow/schemas/config.schema.json --page docs/reference/configuration.md \
	  --reasons docs/reference/reasons.md --cli docs/reference/cli.md --files docs/reference/files.md
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/inference-energy estimate score \
	  --page docs/validation/estimators.md --images docs/images > /dev/null
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "==> docs: site/index.html"

images: setup ## Redraw the pictures of docs/reference/metrics.md from results/metrics (needs Chromium)
	@$(BIN)/python scripts/metric_images.py results/metrics docs/images

lock: setup ## Renew the lock files from pyproject.toml and the .in files
	@echo "==> lock"
	@echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
	  --no-annotate -o requirements/bootstrap.lock -
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
	  --extra dev pyproject.toml requirements/build.in -o requirements/requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
	  --override envs/cpu/overrides.txt --no-emit-package torch envs/cpu/requirements.in -o envs/cpu/requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
	  envs/cuda/requirements.in -o envs/cuda/requirements.lock

clean: ## Remove the environments and converted models (results stay)
	rm -rf $(VENV) .cache
