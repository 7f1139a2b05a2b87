# Everything from a fresh machine: `make train` watches an agent learn, `make test` runs the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SYSTEM_PACKAGES := libegl1 libosmesa6
TEST_PACKAGES := redis-server prometheus
RUN ?= runs/first
SEED ?= 0

.PHONY: install train test test-slow lint gpu clean

install: $(VENV)/.installed

# torch first: `requirements.lock` pins the rest, and a torch that is there is kept.
$(VENV)/.installed: pyproject.toml requirements.lock Makefile
	@$(MAKE) --no-print-directory system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	@touch $@

.PHONY: system-packages
system-packages:
	@if ! command -v dpkg >/dev/null || ! command -v apt-get >/dev/null; then \
	  echo "this is no Debian: install EGL or OSMesa yourself (Debian calls them $(SYSTEM_PACKAGES))"; exit 0; fi; \
	missing=$$(for p in $(SYSTEM_PACKAGES) $(EXTRA); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then :; else missing="$$missing python3-venv"; fi; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	else echo "missing system packages: run sudo apt-get install" $$missing; exit 1; fi

.PHONY: test-packages
test-packages:
	@$(MAKE) --no-print-directory system-packages EXTRA="$(TEST_PACKAGES)"

train: install
	$(BIN)/dreamfleet train --preset small --seed $(SEED) --run-dir $(RUN)
	$(BIN)/dreamfleet plot $(RUN) --out $(RUN)/curve.png
	@echo "curve: $(RUN)/curve.png   videos: $(RUN)/videos/"

test: install test-packages
	$(BIN)/python -m pytest -q

# Learning is one thread's work for minutes, and others wait more than they compute: two at a time.
test-slow: install test-packages
	$(BIN)/python -m pytest -q -m slow -n 2 --dist loadfile

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What goes to a cluster's nodes. setuptools packs what an earlier build has left behind, so that goes first.
.PHONY: wheel
wheel:
	rm -rf build dist
	$(PYTHON) -m pip wheel . --no-deps --quiet --wheel-dir dist
	@ls dist

# On a machine with a GPU; uses its own python3, which brings a PyTorch with CUDA.
gpu:
	PYTHON=$(PYTHON) tests/gpu/run.sh

clean:
	rm -rf $(VENV) *.egg-info build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
