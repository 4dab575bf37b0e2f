.PHONY: postmortem decisions mutants

postmortem: sync ## The old set-up against sn17 on local validators, strict and lenient (no GPU; a minute)
	@.venv/bin/python -m sn17_bench.postmortem

decisions: sync ## What every automatic decision earns, in virtual time (--json FILE; minutes)
	@.venv/bin/python -m sn17_bench.decisions

ONLY ?=

mutants: sync ## One-line faults put into a copy of each core: do its tests notice? (ONLY=gate for one core; minutes)
	@.venv/bin/python -m sn17_bench.mutants --only "$(ONLY)"
