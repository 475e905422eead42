# Each target sets up what it needs, from a clone alone: Python 3.11 or newer with venv, nothing else.
# Node is wanted by the cross-language tests only; without it they are skipped, and it is said.

VENV := .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := $(VENV)/bin
NODE_DIR := tests/node
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types bench coverage node clean

help:
	@echo "make demo [DIR=path]  parent and child at work: a stream, its summary, a cancelled run"
	@echo "make test             the tests, on asyncio and trio"
	@echo "make test-all         all of them: slow ones and uvloop too, with coverage"
	@echo "make lint             ruff, mypy, pyright, import direction"
	@echo "make bench            speed, beside a bare pipe on the same machine"

$(VENV)/.run: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (make PYTHON=/path/to/python3)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) has no venv (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# KKRPC_REQUIRE_NODE=1 turns "no Node" into an error.
node:
	@if [ ! -f $(NODE_DIR)/package-lock.json ]; then :; \
	elif ! command -v npm >/dev/null; then \
		echo "no Node here: the cross-language tests are skipped"; test -z "$$KKRPC_REQUIRE_NODE"; \
	elif [ $(NODE_DIR)/node_modules/.stamp -nt $(NODE_DIR)/package-lock.json ]; then :; \
	elif (cd $(NODE_DIR) && npm ci --silent --no-audit --no-fund); then touch $(NODE_DIR)/node_modules/.stamp; \
	else echo "npm ci failed: the cross-language tests are skipped"; test -z "$$KKRPC_REQUIRE_NODE"; fi

demo: $(VENV)/.run
	@$(BIN)/kkrpc-py demo $(DIR)

test: $(VENV)/.dev node
	$(BIN)/python -m pytest -q $(PYTEST_ARGS)

test-all: coverage

coverage: $(VENV)/.dev node
	@rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest -q -m "" $(PYTEST_ARGS)
	@$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: $(VENV)/.dev types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pytest -q tests/test_layers.py

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/pyright

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(NODE_DIR)/node_modules .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
