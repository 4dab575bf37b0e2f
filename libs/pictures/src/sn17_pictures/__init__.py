"""Decode pictures that strangers send, the way every viewer shows them."""

from sn17_pictures.decode import MAX_METADATA_BYTES, Decoded, PictureError, decode_picture
from sn17_pictures.kinds import ACCEPTED, name_of, phrase_of

__all__ = [
    "ACCEPTED",
    "MAX_METADATA_BYTES",
    "Decoded",
    "PictureError",
    "decode_picture",
    "name_of",
    "phrase_of",
]
