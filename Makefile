# Two commands for a fresh machine: `make demo` and `make test`. Needed: Python >= 3.11 with venv, make, git.
# Each makes the virtual environment it needs in .venv, again when pyproject.toml changes.

SHELL := /bin/sh
PY := .venv/bin/python
ARGS ?=

ifdef CI
export NO_COLOR := 1
export PY_COLORS := 0
unexport FORCE_COLOR CLICOLOR_FORCE MYPY_FORCE_COLOR
endif

.DEFAULT_GOAL := help
.PHONY: help demo test check ruff types imports pytest coverage rules fast test-fast bench clean always

help:  ## this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "ARGS=... is handed on to the program that a target runs; PYTHON=... chooses the interpreter for .venv."

demo: .venv/run.stamp  ## the story in 15 seconds: real network namespaces as root, a memory link otherwise
	@$(PY) -m umuxstack demo $(ARGS)

test:  ## all checks and all tests that this machine allows; names what it left out
	@$(MAKE) --no-print-directory --keep-going check pytest

check: ruff types imports  ## ruff, mypy --strict, import contracts

ruff: .venv/dev.stamp
	$(PY) -m ruff check
	$(PY) -m ruff format --check

types: .venv/dev.stamp
	$(PY) -m mypy

imports: .venv/dev.stamp
	.venv/bin/lint-imports

pytest: .venv/dev.stamp  ## the tests alone
	$(PY) -m pytest $(ARGS)

coverage: .venv/dev.stamp  ## the tests, with branch coverage of the core
	$(PY) -m coverage run -m pytest $(ARGS)
	$(PY) -m coverage report

rules: .venv/dev.stamp  ## the table rule -> tests
	@$(PY) -m umuxstack.testing.rules $(ARGS)

fast: build/compiled/stamp  ## compiles the core into build/compiled, for `make bench` and `make test-fast` (two minutes; gcc)

SOURCES := $(sort $(shell find umuxstack tun -name '*.py'))

# What is gone has no time to compare; this list changes with it.
build/sources: always
	@mkdir -p build
	@echo '$(SOURCES)' | cmp -s - $@ || echo '$(SOURCES)' > $@

build/compiled/stamp: .venv/dev.stamp scripts/compile_core.py $(SOURCES) build/sources
	@echo "compiling the core into build/compiled (about two minutes)"
	@rm -rf build/compiled
	@mkdir -p build && touch build/begun
	@UMUX_COMPILE=1 $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --target build/compiled .
	@mv build/begun $@ # as old as the sources that were read: what was edited meanwhile is newer

# The order of paths, and no current directory before them: the compiled package comes before the sources that are here,
# in programs that the tests start as well.
test-fast: build/compiled/stamp  ## the tests again, of the core and of all that runs it, on the compiled core
	PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/compiled $(PY) -m pytest -o pythonpath="build/compiled ." -m "not plain" \
	    tests/core tests/conformance tests/control tests/cli tests/driver tests/fuzz tests/scale tests/sim tests/testing \
	    $(ARGS)

bench: .venv/dev.stamp  ## ratios to the kernel over veth, in JSON and as a table (root; six minutes; `make fast` adds rows)
	$(PY) -m benchmarks.run $(ARGS)

clean:  ## removes .venv and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/run.stamp: pyproject.toml scripts/make-venv
	@scripts/make-venv
	@touch $@

.venv/dev.stamp: pyproject.toml scripts/make-venv
	@echo "installing into .venv (about a minute the first time)"
	@scripts/make-venv test check
	@touch .venv/run.stamp $@
