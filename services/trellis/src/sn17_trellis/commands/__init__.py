"""Subcommands of ``sn17-trellis`` beside ``serve``."""
