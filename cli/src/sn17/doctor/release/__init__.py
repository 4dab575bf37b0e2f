"""Checks of a cluster and a release in it: values that a probe returns, and their judgement."""
