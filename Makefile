# Needs make and Python >= 3.11, nothing else: .venv is made on first use, again when pyproject.toml or constraints.txt change.

.DEFAULT_GOAL := help
.PHONY: help demo test cluster matrix check bench sql clean
.NOTPARALLEL:
SHELL := /bin/sh
BIN := .venv/bin
REQUIREMENTS := pyproject.toml constraints.txt

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/.installed-test ## Run orders on two nodes, kill one with SIGKILL, verify every result
	$(BIN)/continuum demo --once

test: .venv/.installed-test ## Run the whole suite, group by group (only some: make test groups="unit journal")
	@$(BIN)/python tools/run_tests.py $(groups)

cluster: .venv/.installed-test ## Run the cluster tests alone: server processes, real signals, one PostgreSQL
	@$(BIN)/python tools/run_tests.py cluster

matrix: .venv/.installed-test ## Run journals and scenarios on PostgreSQL 14-18, PgBouncer, SQLite, Python 3.11-3.13, uvloop (only="14 uvloop" chooses)
	@$(BIN)/python -m tools.run_matrix $(only)

check: .venv/.installed-dev ## Lint, formatting, types, import floors, lengths
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python tools/check_lengths.py
	@if [ -d tests/typing ]; then set -ex; $(BIN)/mypy tests/typing/*.py; $(BIN)/pyright tests/typing; fi

bench: .venv/.installed-test ## Measure on a real PostgreSQL with fsync on
	$(BIN)/python -m benchmarks

sql: .venv/.installed-test ## Print every statement of both dialects into docs/sql
	$(BIN)/python -m tools.print_sql docs/sql

clean: ## Remove .venv, caches, build and test output
	rm -rf .venv .matrix dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .test-results .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed-%: $(REQUIREMENTS)
	@python=$$(tools/find-python) && "$$python" tools/bootstrap.py $*
