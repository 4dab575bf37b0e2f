"""Wire format and signatures of Bittensor subnet 17: models, transport, signing, keys. No network.

The names here are plain data. ``transport``, ``signing`` and ``wallet`` load the wallet library and are
imported by their own names, so that whoever decides by these values needs no keys.
"""

from sn17_protocol.models import (
    QUALITY_THRESHOLD,
    SYNAPSES,
    Feedback,
    GetVersion,
    ImageTask,
    PullTask,
    SubmitResults,
    Synapse,
    Task,
    TerminalInfo,
    TextTask,
)
from sn17_protocol.snapshot import ChainSnapshot, Neuron

__all__ = [
    "QUALITY_THRESHOLD",
    "SYNAPSES",
    "ChainSnapshot",
    "Feedback",
    "GetVersion",
    "ImageTask",
    "Neuron",
    "PullTask",
    "SubmitResults",
    "Synapse",
    "Task",
    "TerminalInfo",
    "TextTask",
]
