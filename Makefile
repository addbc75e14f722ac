# GNU make 4.3 or newer and a POSIX shell. `make help` lists the targets.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
# Tests wait for processes and servers more than they compute, so that one worker more than there are cores keeps all of them busy.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Left when the environment is complete. It is made again when what it was made from changed, or its Python is gone.
READY := $(VENV)/.ready
STALE := $(shell $(BIN)/python -c '' 2>/dev/null || echo FORCE)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup up down clean check test preview bench live docs garage servers faults audit lock FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make the Python environment, obtain the engine and the embedded store
	@$(BIN)/python -m synapse_media.engine

up: setup ## start the embedded store, make and prove the stack on it, render (METHOD=… sets its method)
	@$(BIN)/synapse-media embedded up $(if $(METHOD),--method $(METHOD))

down: $(READY) ## stop the embedded store, keep everything
	@$(BIN)/synapse-media embedded stop

clean: $(READY) ## delete the embedded stack, its server and its data (asks; YES=embedded answers; others' buckets only if BUCKETS="…" names them)
	@YES=$(YES) $(BIN)/synapse-media embedded clean $(foreach bucket,$(BUCKETS),--bucket $(bucket))

check: $(READY) ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: setup check ## all checks and all tests, with coverage
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=25 --cov --cov-report=term-missing:skip-covered

garage: $(READY) ## build Garage with cargo, once, for its tests (10 to 40 minutes)
	@$(BIN)/python -m tests.providers.garage_server

servers: $(READY) ## build MinIO, s3s-fs and SeaweedFS, once, for their tests (5 to 15 minutes each; NAMES="…" builds some)
	@$(BIN)/python -m tests.servers.real $(NAMES)

preview: setup ## preview every example stack from nothing, with no credentials, beside what it was (UPDATE_GOLDEN=1 accepts)
	$(BIN)/python -m pytest tests/previews

live: setup ## the acceptance on the real service, with your credentials (STACK=…)
	@test -n "$(STACK)" || { echo "make live STACK=<your stack>" >&2; exit 64; }
	@$(BIN)/python -m tests.live $(STACK)

docs: $(READY) ## generate what follows from the code (numbers, schemas, classes, man page, reference) anew, and the site in build/site
	@$(BIN)/python docs/update.py
	@$(BIN)/python docs/schema.py
	@$(BIN)/python docs/stack_schema.py
	@$(BIN)/python docs/manpage.py
	@$(BIN)/python docs/pages.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

bench: setup ## what it costs, beside an empty Pulumi program (STORES="1 10 50 150 500 1000"; PUBLISH=1: plot and table in docs/), and beside other programs that copy media (FILES=5000)
	@$(BIN)/python -m tests.bench $(if $(STORES),--stores $(STORES)) $(if $(PUBLISH),--publish)
	@$(BIN)/python -m tests.bench.media $(if $(FILES),--files $(FILES))

faults: setup ## kill and disturb every command at random moments, N=100 times (STORES=3; SAVED=at-end; SEED=… of an earlier run)
	@$(BIN)/python -m tests.faults $(if $(N),-n $(N)) $(if $(STORES),--stores $(STORES)) $(if $(SAVED),--saved $(SAVED)) $(if $(SEED),--seed $(SEED))

audit: $(READY) ## ask PyPI's vulnerability service about every locked dependency
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements.lock || { code=$$?; \
	  echo "Above: what is known to be vulnerable, or why the vulnerability service could not be asked; then nothing is known." >&2; \
	  exit $$code; }

lock: $(READY) ## write requirements.lock anew, as pyproject.toml wants it (UPGRADE=1: with the newest releases)
	@$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-annotate --group dev --all-extras $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.lock

# Every tool is asked for before the first minute is spent. Go is not needed where the engine was built before.
# An environment without a working pip was cut off while it was made.
$(READY): requirements.lock pyproject.toml $(STALE)
	@missing() { echo "$$1" >&2; exit 1; }; \
	command -v "$(PYTHON)" >/dev/null || missing \
	  "$(PYTHON) is not on PATH. Install Python 3.11 or newer (https://www.python.org/downloads/; Debian: apt install python3 python3-venv), or name one: make setup PYTHON=python3.12"; \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || missing \
	  "$(PYTHON) is $$("$(PYTHON)" -V 2>&1); 3.11 or newer is needed (https://www.python.org/downloads/). Or name one: make setup PYTHON=python3.12"; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || missing \
	  "$(PYTHON) can't make virtual environments. Install its venv module (Debian: apt install python3-venv)."; \
	command -v git >/dev/null || missing \
	  "git is not on PATH. Install it (https://git-scm.com/downloads; Debian: apt install git)."; \
	command -v go >/dev/null || [ -d "$${XDG_CACHE_HOME:-$$HOME/.cache}/synapse-media/engine" ] || missing \
	  "go is not on PATH; it builds the embedded store. Install Go 1.25 or newer (https://go.dev/dl/)."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear "$(VENV)"
	@echo "Installing the locked dependencies into $(VENV) …"
	@# uv installs in seconds what takes pip minutes. It reads no configuration of pip's: where only that names a mirror, pip installs.
	@# Without --no-deps an older pip takes the newest release for a name with an extra, whatever the lock says.
	@awk '/^uv==/ { block = 1 } block { print; if (!/\\$$/) exit }' requirements.lock > "$(VENV)/uv.lock"
	@$(PIP) --no-deps --require-hashes -r "$(VENV)/uv.lock"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock || \
	  $(PIP) --no-deps --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

FORCE:
