"""TRELLIS worker: prompt in, gaussian splat out."""
