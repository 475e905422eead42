# Each target sets up what it needs, from a clone alone: Python 3.11 or newer with venv, nothing else.
# Node is wanted by the cross-language tests, two testees and two peers of the benchmarks only, a browser by the tests
# of the page; without them these are skipped, and it is said.

VENV := .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := $(VENV)/bin
NODE_DIR := tests/node
BENCH_NODE_DIR := benchmarks/peers/node
PYTEST_ARGS ?=
# Tests start processes of their own, and bound their waits: more at once than processors makes them late.
PYTEST_WORKERS ?= auto
BENCH_ARGS ?=
CONFORMANCE_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types conformance bench bench-instructions coverage node bench-node clean

help:
	@echo "make demo [DIR=path]  parent and child at work: a stream, its summary, a cancelled run"
	@echo "make test             the tests, on asyncio and trio"
	@echo "make test-all         all of them: slow ones and uvloop too, with coverage"
	@echo "make lint             ruff, mypy, pyright, import direction"
	@echo "make conformance      the conformance kit against its testees; less: CONFORMANCE_ARGS='--level 0 1'"
	@echo "make bench [SAVE=1]   speed and memory, beside others on the same machine, in about a quarter of an hour;"
	@echo "                      SAVE=1 writes benchmarks/results/; less: BENCH_ARGS='--rounds 2 --only ints'"
	@echo "make bench-instructions  instructions of a chunk and a call, beside the committed baseline (valgrind)"

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
define npm_ci
	@if [ ! -f $(1)/package-lock.json ]; then :; \
	elif ! command -v npm >/dev/null; then \
		echo "no Node here: $(2) are skipped"; test -z "$$KKRPC_REQUIRE_NODE"; \
	elif [ $(1)/node_modules/.stamp -nt $(1)/package-lock.json ]; then :; \
	elif (cd $(1) && npm ci --silent --no-audit --no-fund); then touch $(1)/node_modules/.stamp; \
	else echo "npm ci failed: $(2) are skipped"; test -z "$$KKRPC_REQUIRE_NODE"; fi
endef

node:
	$(call npm_ci,$(NODE_DIR),the cross-language tests)

bench-node:
	$(call npm_ci,$(BENCH_NODE_DIR),the peers on Node)

demo: $(VENV)/.run
	@$(BIN)/kkrpc-py demo $(DIR)

test: $(VENV)/.dev node
	$(BIN)/python -m pytest -q -n $(PYTEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

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

# All of them, even if one fails.
conformance: $(VENV)/.dev
	@failed=; \
	try() { echo "== $$*"; $(BIN)/kkrpc-py conformance $(CONFORMANCE_ARGS) -- "$$@" || failed=1; echo; }; \
	try $(BIN)/python -m kkrpc_py.conformance.testee --backend asyncio; \
	try $(BIN)/python -m kkrpc_py.conformance.testee --backend trio; \
	if command -v node >/dev/null; then try node spec/testees/node/testee.mjs; try node tests/js_client/testee.mjs; \
	else echo "no Node here: the JavaScript testees are skipped"; test -z "$$KKRPC_REQUIRE_NODE" || failed=1; fi; \
	test -z "$$failed"

$(VENV)/.bench: pyproject.toml $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

bench: $(VENV)/.bench bench-node
	$(BIN)/python -m benchmarks $(if $(SAVE),--save) $(BENCH_ARGS)

bench-instructions: $(VENV)/.dev
	$(BIN)/python -m benchmarks.instructions

clean:
	rm -rf $(VENV) $(NODE_DIR)/node_modules $(BENCH_NODE_DIR)/node_modules .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
