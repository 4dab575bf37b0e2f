"""What a file is, by its first bytes alone."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_pictures import name_of, phrase_of


def archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a", "b")
    return made.getvalue()


FILES = {
    b"": "an empty file",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff\xe1": "a JPEG picture",
    b"RIFF\0\0\0\0WEBPVP8 ": "a WebP picture",
    b"RIFF\0\0\0\0WAVEfmt ": "a WAV file",
    b"\0\0\0\x18ftypavif": "an AVIF file",
    b"\0\0\0\x18ftypmp42": "an MP4 or MOV file",
    b"ply\nformat ascii 1.0\n": "a PLY file",
    b"glTF\x02\0\0\0": "a binary glTF file",
    b'{"asset": {"version": "2.0"}}': "a glTF file",
    b'\xef\xbb\xbf  {"detail": "busy"}': "a JSON file",
    json.dumps([1] * 99_999).encode(): "a JSON file",
    b"{not json": "a text file",
    b"  <!doctype html><title>404</title>": "a web page",
    b"<div><html lang=en>": "a web page",
    b"<Error><Code>NoSuchKey</Code></Error>": "an XML file",
    b"<?xml version='1.0'?><svg/>": "an SVG file",
    b"\nversion https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer (the file itself was not fetched: "
    "git lfs pull)",
    b"solid cube": "an STL file",
    b"\x93NUMPY\x01\0": "a NumPy array",
    pickle.dumps({"a": 1}, protocol=2): "a Python pickle",
    pickle.dumps({"a": 1}): "a Python pickle",
    archive(): "a zip archive",
    gzip.compress(b"x", mtime=0): "a gzip archive",
    b"\x28\xb5\x2f\xfd\0": "a Zstandard file",
    b"SQLite format 3\0": "an SQLite database",
    b"iVBORw0KGgoAAAA": "base64 text",
    b"data:image/png;base64,iVBO": "a data URI in text",
    b"P6 1 1 255 ": "a Netpbm file",
}


@pytest.mark.parametrize(("data", "phrase"), FILES.items(), ids=list(map(str, range(len(FILES)))))
def test_a_file_is_named_by_its_first_bytes(data: bytes, phrase: str) -> None:
    assert phrase_of(data) == phrase


@given(
    st.sampled_from([data for data in FILES if data and data[:1] not in b"{[<\xef \n"]),
    st.binary(max_size=99),
)
def test_what_follows_does_not_matter(data: bytes, tail: bytes) -> None:
    assert phrase_of(data + tail) == FILES[data]


@given(st.binary(max_size=400) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_named_or_unknown(data: bytes) -> None:
    phrase = phrase_of(data)
    assert phrase is None or phrase.isprintable()
    assert (name_of(data) is None) == (phrase is None or not data)
