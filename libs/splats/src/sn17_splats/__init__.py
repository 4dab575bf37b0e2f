"""Gaussian splat container, PLY and SPZ codecs, statistics."""
