"""A numpy-only generator for tests and for trying things out: any prompt gives some object."""

from sn17_trellis.procedural.backend import ProceduralBackend

__all__ = ["ProceduralBackend"]
