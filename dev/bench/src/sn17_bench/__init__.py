"""Benchmarks of sn17, one module each: ``python -m sn17_bench.NAME``."""
