# Benchmarks print a table and compare with a baseline in the same run; --json FILE writes the same.
.PHONY: bench

BENCHES ?= splats fixer worker scorer operator_fleet miner

bench: sync ## Run the benchmarks that need no GPU (BENCHES="splats fixer" for some; minutes each)
	@set -e; for name in $(BENCHES); do echo "== $$name"; .venv/bin/python bench/$$name.py; done
