# Every target sets up by itself what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
RUN_STAMP := $(VENV)/.run-stamp
DEV_STAMP := $(VENV)/.dev-stamp
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes
# As they were given: a `$` in a file's name is no variable of make's.
override INPUT := $(value INPUT)
override OUTPUT := $(value OUTPUT)
export INPUT OUTPUT RATE WORKERS

ifeq ($(wildcard config/requirements.lock),)
$(error run make in the folder of the Makefile, or as `make -C FOLDER`)
endif

# A checkout that was moved has an environment whose scripts point to the old place.
ifneq ($(wildcard $(VENV)/.place),)
ifneq ($(shell cat $(VENV)/.place),$(CURDIR))
$(shell rm -f $(RUN_STAMP) $(DEV_STAMP))
endif
endif

.PHONY: help setup recover plan demo sandbox test bench lint pictures lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup: $(RUN_STAMP) ## create .venv and install the locked dependencies

$(RUN_STAMP): config/requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not there: install Python 3.11 or newer, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1) and 3.11 or newer is needed: install it, or run make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv module: install it (Debian: apt install python3-venv)" >&2; exit 2; }
	@echo "setting up .venv (once, about a minute) ..." >&2
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(PIP) -r config/requirements.lock >&2
	@$(VENV)/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable . >&2
	@printf '%s' "$(CURDIR)" > $(VENV)/.place
	@touch $@

$(DEV_STAMP): $(RUN_STAMP) config/requirements-dev.lock
	@echo "installing the tools for tests (once) ..." >&2
	@$(PIP) -r config/requirements-dev.lock >&2
	@touch $@

recover: $(RUN_STAMP) ## the job: make recover INPUT=installs.csv [OUTPUT=dir] [RATE=n] [WORKERS=n] [ARGS="..."]
	@test -n "$$INPUT" || { echo "error: INPUT is not set: make recover INPUT=installs.csv (\`make demo\` needs nothing)" >&2; exit 2; }
	@exec $(VENV)/bin/recover run $${OUTPUT:+--output "$$OUTPUT"} $${RATE:+--rate "$$RATE"} $${WORKERS:+--workers "$$WORKERS"} $(ARGS) -- "$$INPUT"

plan: $(RUN_STAMP) ## what a run would do: make plan INPUT=installs.csv [OUTPUT=dir]
	@test -n "$$INPUT" || { echo "error: INPUT is not set: make plan INPUT=installs.csv" >&2; exit 2; }
	@exec $(VENV)/bin/recover plan $${OUTPUT:+--output "$$OUTPUT"} $(ARGS) -- "$$INPUT"

demo: $(RUN_STAMP) ## the job on the example list against the local sandbox, then the rerun
	@exec $(VENV)/bin/python -m jobs.demo

sandbox: $(RUN_STAMP) ## a local HighLevel to rehearse with
	@exec $(VENV)/bin/recover sandbox

test: $(DEV_STAMP) ## the tests
	@exec $(VENV)/bin/python -m pytest

bench: $(DEV_STAMP) ## this job beside what people would use instead: make bench [ARGS="--rounds 5"]
	@exec $(VENV)/bin/python -m tests.bench $(ARGS)

lint: $(DEV_STAMP) ## ruff and mypy
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

pictures: $(DEV_STAMP) ## the pictures of the README anew, from real runs against the sandbox
	@set -e; for picture in tests/pictures/[a-z]*.py; do $(VENV)/bin/python -m tests.pictures.$$(basename $$picture .py); done

lock: ## make the locks anew (needs uv)
	@uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 pyproject.toml --group build -o config/requirements.lock
	@uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 pyproject.toml --group build --group dev -o config/requirements-dev.lock

clean: ## remove the environment and caches, never data
	@rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
