.PHONY: postmortem decisions mutants

postmortem: sync ## The old set-up against sn17 on local validators, strict and lenient (no GPU; minutes)
	@.venv/bin/python -m sn17_bench.postmortem

decisions: sync ## What every automatic decision earns, in virtual time (--json FILE; minutes)
	@.venv/bin/python -m sn17_bench.decisions

mutants: sync ## One-line faults put into a copy of the cores: which of them do the tests notice?
	@.venv/bin/python -m sn17_bench.mutants
