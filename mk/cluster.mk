# The cluster tests: tools from Go modules, a control plane, a node, images.
.PHONY: tools

TOOLS ?=

tools: ## Build the tools of the cluster tests into ~/.cache/sn17-tools (TOOLS="kubernetes etcd" for some)
	@$(PYTHON) tools/build.py $(TOOLS)
