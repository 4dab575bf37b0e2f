# The page in the browser: its vendored viewer from npm, and its tests, figures and pictures in a real Chromium.
.PHONY: page-vendor page-tools test-browser page-pictures

page-vendor: ## Build the page's splat viewer anew into libs/page (needs Node.js 20 and npm)
	@cd dev/page && npm ci --ignore-scripts --silent --no-audit --no-fund && node node_modules/esbuild/install.js && node build.mjs

page-tools: $(UV)
	@$(UV) sync -q --frozen --all-packages --all-extras --group browser --python-preference only-system
	@command -v npm >/dev/null || echo "Without npm the tests of accessibility are skipped: install Node.js 20." >&2
	@! command -v npm >/dev/null || (cd dev/page && npm ci --ignore-scripts --silent --no-audit --no-fund)

test-browser: page-tools ## The page in a real Chromium (apt-get install chromium, or SN17_CHROMIUM=its program)
	@.venv/bin/python -m pytest -m browser -rs tests/browser

page-pictures: page-tools ## Take the pictures of the page in docs/page anew, from real runs (needs Chromium)
	@.venv/bin/python -m sn17_bench.page_pictures docs/page
