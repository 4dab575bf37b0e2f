"""A numpy-only generator for tests and for trying things out: it knows the local network's grammar."""

from sn17_trellis.procedural.backend import ProceduralBackend

__all__ = ["ProceduralBackend"]
