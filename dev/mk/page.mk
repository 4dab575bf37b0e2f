# The splat viewer of the page in the browser, from npm.
.PHONY: page-vendor

page-vendor: ## Build the page's splat viewer anew into libs/page (needs Node.js 20 and npm)
	@cd dev/page && npm ci --ignore-scripts --silent --no-audit --no-fund && node node_modules/esbuild/install.js && node build.mjs
