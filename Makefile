# Every target first sets up what it needs. `make help` lists the targets.
PYTHON ?= python3
# A link to the newest environment in .venvs. An older one stays in place while a job runs from it.
VENV := .venv
RUN_STAMP := $(VENV)/.run-stamp
DEV_STAMP := $(VENV)/.dev-stamp
PIP := -m pip --quiet --disable-pip-version-check install
# The resolved path, so that late imports come from the environment in which the process began.
NEWEST_PYTHON = "$$(cd $(VENV) && pwd -P)/bin/python"
# Use the values as given: make must not expand a `$` in a file name.
override INPUT := $(value INPUT)
override OUTPUT := $(value OUTPUT)
export INPUT OUTPUT RATE WORKERS

ifeq ($(wildcard config/requirements.lock),)
$(error run make in the folder of the Makefile, or use `make -C FOLDER`)
endif

# If the checkout was moved, the scripts in its environment point to the old place.
ifneq ($(wildcard $(VENV)/.place),)
ifneq ($(shell cat $(VENV)/.place),$(CURDIR))
$(shell rm -f $(RUN_STAMP) $(DEV_STAMP))
endif
endif

.PHONY: help setup recover plan demo sandbox test bench lint audit pictures lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup: $(RUN_STAMP) ## create .venv and install the locked dependencies

$(RUN_STAMP): config/requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found: install Python 3.11 or newer, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), but the job needs 3.11 or newer: install it, or run make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv module: install it (Debian: apt install python3-venv)" >&2; exit 2; }
	@echo "setting up .venv (once, about a minute) ..." >&2
	@! test -d $(VENV) || test -L $(VENV) || ! grep -qsF "$$(pwd -P)/$(VENV)/bin/" /proc/[0-9]*/cmdline || { echo "error: a job is running from $(VENV), which an earlier version made: run this again when the job has ended" >&2; exit 2; }
	@set -e; new=.venvs/$$(date +%Y%m%d-%H%M%S)-$$$$; trap 'rm -rf "$$new"' EXIT; trap 'exit 2' HUP INT TERM; mkdir -p .venvs; \
		$(PYTHON) -m venv "$$new"; \
		"$$new/bin/python" $(PIP) --no-deps --require-hashes -r config/requirements.lock >&2; \
		"$$new/bin/python" $(PIP) --no-deps --no-build-isolation --editable . >&2; \
		printf '%s' "$(CURDIR)" > "$$new/.place"; touch "$$new/.run-stamp"; \
		test -L $(VENV) || ! test -d $(VENV) || mv $(VENV) "$$new-before"; \
		ln -s "$$new" "$(VENV)-$$$$"; $(PYTHON) -c 'import os, sys; os.replace(*sys.argv[1:])' "$(VENV)-$$$$" $(VENV); trap - EXIT
	@for old in $$(find .venvs -mindepth 1 -maxdepth 1 -mmin +60); do \
		test "$$old" = "$$(readlink $(VENV))" || ! test -d /proc/self || grep -qsF "/$$old/bin/" /proc/[0-9]*/cmdline || rm -rf "$$old"; done

$(DEV_STAMP): $(RUN_STAMP) config/requirements-dev.lock
	@echo "installing the tools for tests (once) ..." >&2
	@$(NEWEST_PYTHON) $(PIP) --no-deps --require-hashes -r config/requirements-dev.lock >&2
	@touch $@

recover: $(RUN_STAMP) ## run the job: make recover INPUT=installs.csv [OUTPUT=dir] [RATE=n] [WORKERS=n] [ARGS="..."]
	@test -n "$$INPUT" || { echo "error: INPUT is not set: make recover INPUT=installs.csv (\`make demo\` needs no INPUT)" >&2; exit 2; }
	@exec $(VENV)/bin/recover run $${OUTPUT:+--output "$$OUTPUT"} $${RATE:+--rate "$$RATE"} $${WORKERS:+--workers "$$WORKERS"} $(ARGS) -- "$$INPUT"

plan: $(RUN_STAMP) ## show what a run would do: make plan INPUT=installs.csv [OUTPUT=dir]
	@test -n "$$INPUT" || { echo "error: INPUT is not set: make plan INPUT=installs.csv" >&2; exit 2; }
	@exec $(VENV)/bin/recover plan $${OUTPUT:+--output "$$OUTPUT"} $(ARGS) -- "$$INPUT"

demo: $(RUN_STAMP) ## run the job on the example list against a local sandbox, again, and into an app's store
	@exec $(NEWEST_PYTHON) -m jobs.sandbox.demo

sandbox: $(RUN_STAMP) ## start a local HighLevel to rehearse with
	@exec $(VENV)/bin/recover sandbox

test: $(DEV_STAMP) ## run the tests: make test [ARGS="--cov=jobs"]
	@exec $(NEWEST_PYTHON) -m pytest -n 2 --dist worksteal $(ARGS)

bench: $(DEV_STAMP) ## compare this job with what people would use instead: make bench [ARGS="--rounds 5"]
	@exec $(NEWEST_PYTHON) -m tests.bench $(ARGS)

lint: $(DEV_STAMP) ## check the code with ruff and mypy, and the READMEs' links and commands
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/python -m tests.docs

audit: ## look up known vulnerabilities of the locked packages
	@test -x .venvs/audit/bin/pip-audit || { $(PYTHON) -m venv .venvs/audit && .venvs/audit/bin/python $(PIP) pip-audit; }
	@.venvs/audit/bin/python -m tests.audit

pictures: $(DEV_STAMP) ## make the README's pictures again, from real runs against the sandbox
	@set -e; for picture in tests/pictures/[a-z]*.py; do $(NEWEST_PYTHON) -m tests.pictures.$$(basename $$picture .py); done

lock: ## make the lock files again (needs uv)
	@uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 pyproject.toml --group build -o config/requirements.lock
	@uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 pyproject.toml --group build --group dev -o config/requirements-dev.lock

clean: ## remove the environment and the caches, but never data
	@rm -rf $(VENV) .venvs .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
