# The real axon and dendrite of bittensor against our client and our local validators, in an environment of
# their own: they cannot live beside the release that reads today's chain.
.PHONY: conformance

conformance: $(UV) ## The real Axon and Dendrite against our client and local validators
	@$(UV) sync -q --frozen --project tests/conformance --python-preference only-system
	@cd tests/conformance && .venv/bin/python -m pytest
