"""Trains the small checkpoint `mini-text` through the engine's own networks."""
