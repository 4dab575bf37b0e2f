"""Checks of this machine: values that a probe returns, and their judgement."""
