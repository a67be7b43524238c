# Every target sets up what it needs: python3, make and git are enough (Java and Maven for a real broker).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-long check bench format lock clean

demo: $(READY)
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

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12"'
	@echo "Installing into $(VENV): a minute or two, 1.2 GB"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $(READY)

# Writes the lock files anew; needs uv.
lock:
	uv pip compile --quiet --all-extras --generate-hashes --universal --no-header --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements.lock
	uv pip compile --quiet --all-extras --group dev --generate-hashes --universal --no-header --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements-dev.lock
	echo hatchling | uv pip compile --quiet --constraint requirements-dev.lock --generate-hashes --universal --no-header --no-annotate --no-emit-index-url --python-version 3.11 - -o requirements-build.lock

clean:
	rm -rf $(VENV) .cache demo
