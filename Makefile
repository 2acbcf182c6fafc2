# SPDX-License-Identifier: Apache-2.0
# The project's commands. `make` alone lists them. All of them prepare what they need first (tools/prepare).
#
# TOOL_FIREWALL_PYTHON=/path/to/python chooses an interpreter by hand.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:

BIN := build/venv/bin
STEP := tools/step
# The lab that starts real gateways is shared by the tests and the demo.
LAB := PYTHONPATH=tests/gateway
PYTEST := $(BIN)/python -m pytest -q -o cache_dir=build/pytest

.PHONY: help demo test test-native test-sanitized test-plugin test-faults test-gateway bench soak lint format wheel clean prepare

help: ## Say what the commands are
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do \
		printf '  make %-15s %s\n' "$$name" "$$what"; done

prepare:
	@tools/prepare

demo: prepare ## Play the whole story in a real gateway; writes build/demo/summary.json
	@$(LAB) $(BIN)/python -m demo

test: test-native test-sanitized test-plugin test-faults test-gateway ## Run all tests: native, Python, faults, real gateway
	@echo; echo "make test: everything passed"

test-native: prepare ## Native tests only
	@$(STEP) "native tests" tools/native_tests dev

test-sanitized: prepare ## Native tests under the address and undefined-behaviour sanitizers
	@$(STEP) "native tests with sanitizers" tools/native_tests asan

test-plugin: prepare ## Python tests only
	@$(STEP) "Python tests" $(PYTEST) tests/plugin

test-faults: prepare ## Killed workers, forks, clocks, lost files; TOOL_FIREWALL_FAULTS=full for all of it
	@$(STEP) "fault tests" $(PYTEST) -n 3 --dist loadfile tests/faults

test-gateway: prepare ## Tests in the real gateway only
	@$(STEP) "real-gateway tests" env $(LAB) $(PYTEST) -n 2 --dist loadfile tests/gateway

bench: prepare ## Measure the figures of docs/benchmarks.md; FULL=--full for their full length
	@tools/bench $(FULL)

soak: prepare ## A million names, and a day of a worker in half an hour: memory, time, and a victim's scores
	@tools/soak

lint: ## Formatting, clang-tidy, ruff, mypy, and the engine's independence of Python
	@tools/prepare lint
	@tools/lint

format: ## Format all C++ and Python code
	@tools/prepare lint
	@git ls-files -co --exclude-standard '*.cc' '*.h' | xargs clang-format -i
	@$(BIN)/ruff format --quiet .

wheel: prepare ## Build the wheel for this Python into dist/
	@rm -rf build/wheel && mkdir -p build/wheel dist
	@$(BIN)/python -m pip --quiet wheel --no-deps --no-build-isolation --wheel-dir build/wheel .
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl \
		>build/wheel/auditwheel.log 2>&1 || { cat build/wheel/auditwheel.log; exit 1; }
	@ls -1 dist/*.whl

clean: ## Remove everything that was built (not the Debian packages)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache
