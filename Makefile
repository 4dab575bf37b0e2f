# Every target sets up what it needs by itself: uv in .bootstrap, packages in .venv.
UV := .bootstrap/bin/uv
PYTHON ?= python3

# Many tests start processes. With byte code kept they start in half the time, also where an image turned that off.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo check-demo test coverage test-long test-cluster lint format sync site

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

$(UV): dev/tools/bootstrap.sh
	@PYTHON=$(PYTHON) sh dev/tools/bootstrap.sh

BACKEND ?= procedural
TASKS ?= $(if $(filter torch,$(BACKEND)),9,27)

# Arguments first; nothing that an earlier set-up installed is removed; gigabytes come with progress.
demo: check-demo $(UV) ## From prompt to accepted submission on this machine (BACKEND=procedural|torch, TASKS=n)
	@$(UV) sync $(if $(filter torch,$(BACKEND)),--extra torch,-q) --inexact --frozen --no-dev --package sn17 --python-preference only-system
	@.venv/bin/sn17 up --demo --validators 3 --tasks $(TASKS) --backend $(BACKEND)

check-demo:
	@case '$(BACKEND)' in procedural|torch) ;; *) echo "make demo: BACKEND=$(BACKEND) is neither procedural nor torch" >&2; exit 2;; esac
	@case '$(TASKS)' in ''|*[!0-9]*|0) echo "make demo: TASKS=$(TASKS) is not a number of tasks from 1" >&2; exit 2;; esac

sync: $(UV) ## Install every package with all extras and the development tools
	@$(UV) sync -q --frozen --all-packages --all-extras --python-preference only-system

# Whole files side by side, in the order that conftest.py gives. Threads of torch that wait in a loop would take
# the processors from the others.
JOBS ?= 2
SIDE_BY_SIDE := -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: export OMP_WAIT_POLICY := PASSIVE
test: export OMP_NUM_THREADS := 1
test: sync ## Lint, types, import rules and all tests that need Python only (JOBS=n side by side)
	@$(MAKE) --no-print-directory lint
	@.venv/bin/python -m pytest -m "not cluster and not slow" $(SIDE_BY_SIDE)

# The tests of the shipped packages beside their code; those across packages in tests/ and dev/ do not count.
# The floor lies below what was measured: dev/bench/results/coverage.json.
FLOOR ?= 85
COVERED ?= libs services operator cli

coverage: export OMP_WAIT_POLICY := PASSIVE
coverage: export OMP_NUM_THREADS := 1
coverage: sync ## How much of the shipped packages their own tests run, branches included; fails below FLOOR=percent (COVERED=folders)
	@rm -rf .coverage && mkdir .coverage
	@.venv/bin/python -m pytest -m "not cluster and not slow" $(SIDE_BY_SIDE) --cov --cov-report= $(COVERED)
	@.venv/bin/coverage report --fail-under=$(FLOOR)

test-long: sync ## The long forms of the tests that need Python only
	@SN17_LONG=1 .venv/bin/python -m pytest -m "slow and not cluster" -o timeout=1800

test-cluster: sync tools ## Chart and operator on a real API server, Prometheus and helm (needs Go, no root)
	@SN17_REQUIRE_CLUSTER=1 .venv/bin/python -m pytest -m "cluster and not node and not slow"

lint: sync ## ruff, mypy --strict, import-linter, shellcheck, licences, links, documentation site
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@.venv/bin/shellcheck $$(git ls-files '*.sh' .ci/run)
	@.venv/bin/python dev/tools/licences.py
	@.venv/bin/python dev/tools/links.py
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

format: sync ## Format and fix what can be fixed
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

site: sync ## Serve the documentation site on this machine
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs serve

-include dev/mk/*.mk
