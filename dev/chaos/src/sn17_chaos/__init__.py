"""Faults on purpose: what is broken, what must hold afterwards, and the table of both tiers."""
