# Every command of the project. A fresh machine needs Python 3.11 or newer with venv, git and make.

VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip -qq
# The first interpreter that is new enough; PYTHON=… chooses another one.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$name && break; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PIP_NO_INPUT := 1
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME

SDK_SOURCES := opscore_sdk/pyproject.toml $(shell find opscore_sdk -name '*.py')
REPORT      := var/report
# `check` needs no service: this one refuses every connection.
CHECK_ENV   := OPSCORE_SECRET_KEY=check OPSCORE_BROKER_URL= \
	OPSCORE_DATABASE_URL=postgresql://nobody@127.0.0.1:1/none

.DEFAULT_GOAL := help
.PHONY: help setup dev-setup demo up test bench chaos check openapi format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.sdk ## Make the virtual environment and install what runs the platform

dev-setup: $(VENV)/.dev ## Install also what checks and tests need

$(VENV)/.runtime: requirements/runtime.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; found none on PATH." \
		"Install it, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing into $(VENV) with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian and Ubuntu install" \
		"the package python3-venv." >&2; exit 1; }
	@$(PIP) install --require-hashes --requirement requirements/runtime.txt
	@touch $@

# The `opscore` command; built with the locked hatchling, so without any download.
$(VENV)/.sdk: $(SDK_SOURCES) $(VENV)/.runtime
	@$(PIP) install --no-deps --no-build-isolation --force-reinstall ./opscore_sdk
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.sdk
	@echo "Installing what checks and tests need …"
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@touch $@

demo: setup ## Review a git repository (REPO=path) with agents; KILL=1 kills one in the middle
	@$(PY) manage.py demo $(if $(REPO),--repo "$(REPO)") $(if $(filter-out 0,$(KILL)),--kill)

up: setup ## Run the whole platform until Ctrl-C (PORT=8000, FLOWER=1)
	@$(PY) manage.py up $(if $(PORT),--port $(PORT)) $(if $(filter-out 0,$(FLOWER)),--flower)

# Each worker has services of its own; more than the cores of a small machine only makes time-outs.
WORKERS ?= 2
test: dev-setup ## Run every test with real services; print coverage (ARGS=… go to pytest)
	@mkdir -p $(REPORT) && rm -f .coverage .coverage.* $(REPORT)/*
	$(PY) -m coverage run -m pytest --numprocesses $(WORKERS) --dist loadgroup $(ARGS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report
	@$(PY) -m coverage json --quiet -o $(REPORT)/coverage.json
	@$(PY) tests/coverage_floor.py $(REPORT)/coverage.json

bench: dev-setup ## Measure engine and agents on services of their own
	@$(PY) -m tests.bench.engine

chaos: dev-setup ## Kill and freeze parts under load, then ask whether anything was lost (docs/chaos.md)
	@$(PY) -m tests.chaos --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1) \
		$(if $(BROKER),--broker $(BROKER)) $(if $(JOIN),--join $(JOIN)) \
		$(if $(BREAK),--break $(BREAK)) $(ARGS)

check: dev-setup ## Check format, lint, imports, types, migrations and the API document
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports --no-logo
	$(CHECK_ENV) $(VENV)/bin/mypy
	$(CHECK_ENV) $(PY) -W ignore manage.py makemigrations --check --dry-run
	@mkdir -p $(REPORT)
	$(CHECK_ENV) $(PY) manage.py spectacular --validate --fail-on-warn --file $(REPORT)/openapi.yaml
	@diff -u docs/openapi.yaml $(REPORT)/openapi.yaml || { \
		echo "docs/openapi.yaml is not what the code says: run make openapi" >&2; exit 1; }

openapi: dev-setup ## Write docs/openapi.yaml from the code
	$(CHECK_ENV) $(PY) manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

format: dev-setup ## Format the code and repair what ruff can
	$(VENV)/bin/ruff check --fix --exit-zero .
	$(VENV)/bin/ruff format .

LOCK := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links
lock: setup ## Choose versions anew for requirements/*.txt (UPGRADE=1: the newest ones)
	@$(PIP) install uv
	$(LOCK) $(if $(UPGRADE),--upgrade) requirements/base.in requirements/local.in \
		--output-file requirements/runtime.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) --constraint requirements/runtime.txt requirements/dev.in \
		--output-file requirements/dev.txt
	@! grep -nE '(index-url|find-links|https?://)' requirements/*.txt

clean: ## Remove the virtual environment and everything in var/, data included
	@home="$$(readlink var/postgres || true)"; \
		case "$$home" in /var/lib/opscore-*|/var/tmp/opscore-*|/tmp/opscore-*) rm -rf "$$home";; esac
	rm -rf $(VENV) var htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis
