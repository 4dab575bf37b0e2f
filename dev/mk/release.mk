# Wheels, the tests against them, and the checks of what a forge would run.
.PHONY: wheels test-wheels lint-workflows version

WHEEL_PYTHON ?= $(PYTHON)
TESTS ?= libs services operator cli dev/devnet
ZIZMOR := zizmor==1.32.0
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

version: ## Print the version
	@$(PYTHON) dev/tools/release.py version

wheels: $(UV) ## Build a wheel of every package into dist/
	@rm -rf dist
	@$(UV) build -q --wheel --all-packages -o dist

test-wheels: $(UV) ## Run the tests against the wheels in dist/ instead of the sources (WHEEL_PYTHON=python3.14 TESTS=folders)
	@$(UV) venv -q --clear --python $(WHEEL_PYTHON) --python-preference only-system .venv-wheels
	@$(UV) export -q --frozen --all-packages --all-extras --no-emit-workspace --no-hashes --no-header > dist/requirements.txt
	@$(UV) pip install -q --python .venv-wheels/bin/python -r dist/requirements.txt dist/*.whl
	@.venv-wheels/bin/python -m pytest -m "not cluster and not slow" -n $(JOBS) --dist loadfile $(TESTS)

lint-workflows: sync ## Check the GitHub workflows with actionlint and zizmor, their scripts with shellcheck (needs Go)
	@go run $(ACTIONLINT) -shellcheck .venv/bin/shellcheck
	@$(UV) tool run -q --from $(ZIZMOR) zizmor --offline --no-progress .github
