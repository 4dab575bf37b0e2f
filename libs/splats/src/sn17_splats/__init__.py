"""Gaussian splat container, PLY and SPZ codecs, statistics."""

from sn17_splats.container import Limits, SplatError, Splats, SplatTooLarge
from sn17_splats.ply import is_canonical, read_ply, write_ply
from sn17_splats.sniff import read_splat
from sn17_splats.spz import decode_spz, encode_spz
from sn17_splats.statistics import ColumnStatistics, SplatStatistics, alpha, statistics

__all__ = [
    "ColumnStatistics",
    "Limits",
    "SplatError",
    "SplatStatistics",
    "SplatTooLarge",
    "Splats",
    "alpha",
    "decode_spz",
    "encode_spz",
    "is_canonical",
    "read_ply",
    "read_splat",
    "statistics",
    "write_ply",
]
