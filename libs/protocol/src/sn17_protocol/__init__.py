"""Wire format and signatures of Bittensor subnet 17: models, transport, signing, keys. No network."""

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
from sn17_protocol.signing import (
    DECLARATION,
    ResultSignatureError,
    result_message,
    sign_result,
    verify_result,
)
from sn17_protocol.snapshot import ChainSnapshot, Neuron
from sn17_protocol.transport import (
    EMPTY_BODY_HASH,
    NonceBook,
    TransportError,
    TransportHeaders,
    WireRequest,
    build_request,
    parse_request_headers,
    read_response,
    request_headers,
)
from sn17_protocol.wallet import WalletError, find_coldkey, load_hotkey, write_hotkey

__all__ = [
    "DECLARATION",
    "EMPTY_BODY_HASH",
    "QUALITY_THRESHOLD",
    "SYNAPSES",
    "ChainSnapshot",
    "Feedback",
    "GetVersion",
    "ImageTask",
    "Neuron",
    "NonceBook",
    "PullTask",
    "ResultSignatureError",
    "SubmitResults",
    "Synapse",
    "Task",
    "TerminalInfo",
    "TextTask",
    "TransportError",
    "TransportHeaders",
    "WalletError",
    "WireRequest",
    "build_request",
    "find_coldkey",
    "load_hotkey",
    "parse_request_headers",
    "read_response",
    "request_headers",
    "result_message",
    "sign_result",
    "verify_result",
    "write_hotkey",
]
