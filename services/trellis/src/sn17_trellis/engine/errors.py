"""Everything the engine refuses to do, as types a caller can tell apart."""

from __future__ import annotations


class EngineError(Exception):
    """Base of all engine errors; the worker survives each of them."""


class CheckpointError(EngineError):
    """A checkpoint cannot be used; the message names the file and, where there is one, the key."""


class CheckpointMissingError(CheckpointError):
    """Files of a checkpoint, or a whole repository it refers to, are not on this machine."""


class EmptyStructureError(EngineError):
    """The sampled structure has no occupied voxel, so there is nothing to place gaussians on."""


class StructureTooLargeError(EngineError):
    """More voxels are occupied than the configured limit (attention is quadratic in them)."""


class UnsupportedRequestError(EngineError):
    """The loaded models cannot serve this kind of request."""


class ImageError(EngineError):
    """An input image that cannot be read or shows no object."""


class OutputError(EngineError):
    """The finished gaussians fail the sanity check (not finite, too few, or all transparent)."""


class DeviceMemoryError(EngineError):
    """The GPU ran out of memory; caches were emptied and the engine stays usable."""


class CancelledError(EngineError):
    """The caller gave the job up; raised between two sampler steps."""
