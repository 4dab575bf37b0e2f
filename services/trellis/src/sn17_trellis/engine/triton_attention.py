"""Self-attention for head widths that are no power of two, of any number of tokens, without a plan for each.

A width of 80 is taken as 64 + 16: matrix products need no filling up, neither along the heads nor along the
tokens. The softmax is the online one of FlashAttention (Dao 2022): running maximum and sum, in base 2. Where
keys have length 1 no logit of a query is larger than the query is long (Cauchy-Schwarz): this bound stands
for the maximum, and nothing is compared or rescaled.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

TOP = tl.constexpr(14)
"""Bounded weights reach up to 2^14, a quarter of what float16 holds, and are exact down to 2^-14."""


@triton.jit
def _keys(
    state_max,
    state_sum,
    main_out,
    rest_out,
    q_main,
    q_rest,
    k_ptr,
    v_ptr,
    k_stride,
    v_stride,
    start,
    stop,
    tokens,
    scale,
    main: tl.constexpr,
    rest: tl.constexpr,
    key_block: tl.constexpr,
    masked: tl.constexpr,
    bounded: tl.constexpr,
):
    """Keys `start` to `stop` for one block of queries; `masked` where the last of them may not exist."""
    column, more = tl.arange(0, main), main + tl.arange(0, rest if rest > 0 else 16)
    for first in tl.range(start, stop, key_block):
        key = first + tl.arange(0, key_block)
        k_row, v_row = key[:, None] * k_stride, key[:, None] * v_stride
        if masked:
            there = (key < tokens)[:, None]
            k_main = tl.load(k_ptr + k_row + column[None, :], mask=there, other=0.0)
            v_main = tl.load(v_ptr + v_row + column[None, :], mask=there, other=0.0)
        else:
            k_main = tl.load(k_ptr + k_row + column[None, :])
            v_main = tl.load(v_ptr + v_row + column[None, :])
        logits = tl.dot(q_main, tl.trans(k_main))
        if rest > 0:
            if masked:
                k_rest = tl.load(k_ptr + k_row + more[None, :], mask=there, other=0.0)
                v_rest = tl.load(v_ptr + v_row + more[None, :], mask=there, other=0.0)
            else:
                k_rest = tl.load(k_ptr + k_row + more[None, :])
                v_rest = tl.load(v_ptr + v_row + more[None, :])
            logits = tl.dot(q_rest, tl.trans(k_rest), logits)
        if masked:
            logits = tl.where((key < tokens)[None, :], logits, -float("inf"))
        if bounded:
            weights = tl.exp2(logits - state_max[:, None])
        else:
            largest = tl.maximum(state_max, tl.max(logits, 1) * scale)
            weights = tl.exp2(logits * scale - largest[:, None])
            shrink = tl.exp2(state_max - largest)
            state_sum *= shrink
            state_max = largest
            main_out *= shrink[:, None]
            if rest > 0:
                rest_out *= shrink[:, None]
        state_sum += tl.sum(weights, 1)
        weights = weights.to(v_main.dtype)
        main_out = tl.dot(weights, v_main, main_out)
        if rest > 0:
            rest_out = tl.dot(weights, v_rest, rest_out)
    return state_max, state_sum, main_out, rest_out


@triton.jit(do_not_specialize=["tokens"])
def attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    q_stride,
    k_stride,
    v_stride,
    tokens,
    scale,
    heads: tl.constexpr,
    main: tl.constexpr,
    rest: tl.constexpr,
    query_block: tl.constexpr,
    key_block: tl.constexpr,
    bounded: tl.constexpr,
):
    """One block of queries of one head: q, k, v [B, tokens, heads, main + rest], rows `*_stride` apart.

    out [B, tokens, heads, main + rest] is dense; `scale` is the softmax's times log2(e). With `bounded` keys
    have length 1 and the queries hold all of the scale.
    """
    width: tl.constexpr = main + rest
    head, branch = tl.program_id(1) % heads, (tl.program_id(1) // heads).to(tl.int64)
    query = tl.program_id(0) * query_block + tl.arange(0, query_block)
    there = (query < tokens)[:, None]
    column, more = tl.arange(0, main), main + tl.arange(0, rest if rest > 0 else 16)
    q_ptr += branch * tokens * q_stride + head * width
    k_ptr += branch * tokens * k_stride + head * width
    v_ptr += branch * tokens * v_stride + head * width
    q_row = query[:, None] * q_stride
    q_main = tl.load(q_ptr + q_row + column[None, :], mask=there, other=0.0)
    q_rest = q_main
    if rest > 0:
        q_rest = tl.load(q_ptr + q_row + more[None, :], mask=there, other=0.0)
    state_max = tl.full([query_block], -float("inf"), tl.float32)
    if bounded:
        square = tl.sum(q_main.to(tl.float32) * q_main.to(tl.float32), 1)
        if rest > 0:
            square += tl.sum(q_rest.to(tl.float32) * q_rest.to(tl.float32), 1)
        state_max = tl.sqrt(square) - TOP
    state_sum = tl.zeros([query_block], tl.float32)
    main_out = tl.zeros([query_block, main], tl.float32)
    rest_out = tl.zeros([query_block, rest if rest > 0 else 16], tl.float32)
    whole = tokens // key_block * key_block
    state_max, state_sum, main_out, rest_out = _keys(
        state_max, state_sum, main_out, rest_out, q_main, q_rest, k_ptr, v_ptr, k_stride, v_stride,
        0, whole, tokens, scale, main, rest, key_block, False, bounded,
    )  # fmt: skip
    if whole < tokens:
        state_max, state_sum, main_out, rest_out = _keys(
            state_max, state_sum, main_out, rest_out, q_main, q_rest, k_ptr, v_ptr, k_stride, v_stride,
            whole, tokens, tokens, scale, main, rest, key_block, True, bounded,
        )  # fmt: skip
    inverse = 1.0 / state_sum
    out_ptr += branch * tokens * heads * width + head * width
    out_row = query[:, None] * heads * width
    main_out = (main_out * inverse[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + out_row + column[None, :], main_out, mask=there)
    if rest > 0:
        rest_out = (rest_out * inverse[:, None]).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + out_row + more[None, :], rest_out, mask=there)
