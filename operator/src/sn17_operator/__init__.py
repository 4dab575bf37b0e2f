"""Watches TRELLIS workers and heals them."""
