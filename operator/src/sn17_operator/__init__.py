"""Watches TRELLIS workers and remediates degraded ones."""
