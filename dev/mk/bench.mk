# Benchmarks print a table and compare with a baseline in the same run; --json FILE writes the same.
.PHONY: bench chaos

BENCHES ?= splats fixer worker scorer operator_fleet miner gateway

bench: sync ## Run the benchmarks that need no GPU (BENCHES="splats fixer" for some; minutes each)
	@set -e; for name in $(BENCHES); do echo "== $$name"; .venv/bin/python -m sn17_bench.$$name; done

WORLD ?= stack
RUNS ?= 40
SEED ?= 17

chaos: sync ## Break the local stack on purpose (WORLD=stack; plane or lanes, which need make tools; RUNS, SEED)
	@.venv/bin/python -m sn17_bench.chaos --world $(WORLD) --runs $(RUNS) --seed $(SEED)
