"""Multipart as it arrives: the same parts however the bytes are cut, and every bound holds."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest
from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from sn17_service.bodies import BodyError, MultipartReader, whole_body

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
NAMES = st.sampled_from(["prompt", "image", "a b", "x" * 64])
PARTS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), min_size=1, max_size=6)


def request(chunks: list[bytes], content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> Request:
    """A request whose body comes in these pieces; the client leaves where no last one is given."""
    waiting = list(chunks)

    async def receive() -> dict[str, object]:
        if not waiting:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def form(parts: list[tuple[str, bytes]]) -> bytes:
    lines = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\nContent-Type: x/y\r\n\r\n%s\r\n'
        % (BOUNDARY.encode(), name.encode(), content)
        for name, content in parts
    ]
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


async def read(asked: Request, limit: int = 10_000, part_limit: int = 10_000) -> list[tuple[str, bytes]]:
    reader, parts = MultipartReader(asked, limit, "too long"), []
    while (name := await reader.next_part()) is not None:
        parts.append((name, await reader.read(part_limit, name)))
    return parts


@settings(deadline=None)
@given(PARTS, st.lists(st.integers(1, 2000), max_size=8))
def test_pieces_of_any_size_give_the_same_parts(parts: list[tuple[str, bytes]], cuts: list[int]) -> None:
    body = form(parts)
    edges = [0, *sorted(cut % len(body) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in itertools.pairwise(edges)]
    assert asyncio.run(read(request(chunks))) == parts


@settings(deadline=None)
@given(PARTS, st.integers(1, 10_000))
def test_a_cut_body_is_never_a_whole_one(parts: list[tuple[str, bytes]], cut: int) -> None:
    body = form(parts)[:-4]  # without the last dashes and the end of the line
    with pytest.raises(BodyError, match=r"incomplete|malformed"):
        asyncio.run(read(request([body[: cut % len(body) or 1]])))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: read(request([form([("a", b"x" * 500)])], "text/plain")), "multipart/form-data"),
        (lambda: read(request([b""], f'multipart/form-data; boundary="{BOUNDARY}"')), "unquoted boundary"),
        (lambda: read(request([b""], "multipart/form-data")), "unquoted boundary"),
        (lambda: read(request([form([("a", b"x" * 500)])]), limit=400), "too long"),
        (lambda: read(request([form([("a", b"x" * 500)])]), part_limit=499), "a may have at most 499 bytes"),
        (lambda: read(request([form([("x" * 65, b"")])])), "malformed"),
        (lambda: read(request([form([("a", b"")]).replace(b"form-data", b"attachment")])), "malformed"),
        (lambda: read(request([b"nonsense" * 9])), "malformed"),
        (lambda: whole_body(request([b"x" * 60, b"x" * 41]), 100), "payload too large"),
    ],
)
def test_bounds(call: Callable[[], Awaitable[object]], message: str) -> None:
    async def run() -> None:
        await call()

    with pytest.raises(BodyError, match=message):
        asyncio.run(run())


def test_a_client_that_leaves() -> None:
    with pytest.raises(BodyError, match="left"):
        asyncio.run(whole_body(request([]), 100))


def test_text_is_utf8_without_nul() -> None:
    async def text(content: bytes) -> str:
        reader = MultipartReader(request([form([("a", content)])]), 10_000, "too long")
        assert await reader.next_part() == "a"
        return await reader.text(100, "a")

    assert asyncio.run(text("caf\u00e9".encode())) == "caf\u00e9"
    for content in (b"\xff", b"a\0b"):
        with pytest.raises(BodyError):
            asyncio.run(text(content))
