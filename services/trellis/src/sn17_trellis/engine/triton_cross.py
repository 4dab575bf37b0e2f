"""Attention to a condition of few tokens, with the norm of the queries: one pass over memory."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["tokens"])
def cross_attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    gamma_ptr,
    out_ptr,
    q_branch,
    tokens,
    keys,
    scale,
    heads: tl.constexpr,
    main: tl.constexpr,
    rest: tl.constexpr,
    query_block: tl.constexpr,
    key_block: tl.constexpr,
    normed: tl.constexpr,
):
    """One block of queries of one head: q [B or 1, tokens, heads, main + rest], k and v [B, keys, ...].

    All are dense. `q_branch` elements lie between two branches of q, 0 where all share it. `scale` is the
    softmax's times log2(e); where `normed` each query is first divided by its length and multiplied by
    `gamma_ptr` [heads, main + rest] and the square root of its width. `key_block` holds all keys.
    """
    width: tl.constexpr = main + rest
    head, branch = tl.program_id(1) % heads, (tl.program_id(1) // heads).to(tl.int64)
    query = tl.program_id(0) * query_block + tl.arange(0, query_block)
    there = (query < tokens)[:, None]
    key = tl.arange(0, key_block)
    known = (key < keys)[:, None]
    column, more = tl.arange(0, main), main + tl.arange(0, rest if rest > 0 else 16)
    row, key_row = query[:, None] * heads * width, key[:, None] * heads * width
    q_ptr += branch * q_branch + head * width
    k_ptr += branch * keys * heads * width + head * width
    v_ptr += branch * keys * heads * width + head * width
    out_ptr += branch * tokens * heads * width + head * width
    k_main = tl.load(k_ptr + key_row + column[None, :], mask=known, other=0.0)
    v_main = tl.load(v_ptr + key_row + column[None, :], mask=known, other=0.0)
    q_main = tl.load(q_ptr + row + column[None, :], mask=there, other=0.0)
    q_rest = q_main
    if rest > 0:
        k_rest = tl.load(k_ptr + key_row + more[None, :], mask=known, other=0.0)
        v_rest = tl.load(v_ptr + key_row + more[None, :], mask=known, other=0.0)
        q_rest = tl.load(q_ptr + row + more[None, :], mask=there, other=0.0)
    if normed:
        q = q_main.to(tl.float32)
        square = tl.sum(q * q, 1)
        q_more = q_rest.to(tl.float32)
        if rest > 0:
            square += tl.sum(q_more * q_more, 1)
        shorter = (tl.sqrt(width * 1.0) / tl.maximum(tl.sqrt(square), 1e-12))[:, None]
        q_main = (q * shorter * tl.load(gamma_ptr + head * width + column)[None, :]).to(q_main.dtype)
        if rest > 0:
            q_rest = (q_more * shorter * tl.load(gamma_ptr + head * width + more)[None, :]).to(q_main.dtype)
    logits = tl.dot(q_main, tl.trans(k_main))
    if rest > 0:
        logits = tl.dot(q_rest, tl.trans(k_rest), logits)
    logits = tl.where((key < keys)[None, :], logits * scale, -float("inf"))
    weights = tl.exp2(logits - tl.max(logits, 1)[:, None])
    inverse = (1.0 / tl.sum(weights, 1))[:, None]
    weights = weights.to(v_main.dtype)
    main_out = tl.dot(weights, v_main) * inverse
    tl.store(out_ptr + row + column[None, :], main_out.to(out_ptr.dtype.element_ty), mask=there)
    if rest > 0:
        rest_out = tl.dot(weights, v_rest) * inverse
        tl.store(out_ptr + row + more[None, :], rest_out.to(out_ptr.dtype.element_ty), mask=there)
