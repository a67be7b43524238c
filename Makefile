# Every target sets up what it needs: python3, make and git are enough (Java and Maven for a real broker).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready

.PHONY: demo test test-long check bench format lock clean

demo: $(RUNS)
	@$(BIN)/streamsvc demo

test: $(READY)
	$(BIN)/python -m pytest -m "not long" -n 2 --dist worksteal

test-long: $(READY)
	$(BIN)/python -m pytest -m long

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m loadtest.bench

format: $(READY)
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

# What runs it, and beside that what tests it.
$(RUNS): requirements.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12"'
	@echo "Installing into $(VENV), a minute or so"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.lock -r requirements-build.lock
	$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(READY): requirements-dev.lock $(RUNS)
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# Writes the lock files anew; needs uv.
lock:
	uv pip compile --quiet --all-extras --generate-hashes --universal --no-header --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements.lock
	uv pip compile --quiet --all-extras --group dev --generate-hashes --universal --no-header --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements-dev.lock
	echo hatchling | uv pip compile --quiet --constraint requirements-dev.lock --generate-hashes --universal --no-header --no-annotate --no-emit-index-url --python-version 3.11 - -o requirements-build.lock

clean:
	rm -rf $(VENV) .cache demo
