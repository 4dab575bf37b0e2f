"""Diagnose, repair and encode gaussian splats."""
