"""Small fused kernels for half-precision tokens on a GPU; `fused.py` decides when they are used.

All but attention are bound by memory: each reads its inputs once and writes its outputs once. torch.compile's
versions of the same functions ran at 1.0 (per-head norms) and 1.7 TB/s (sum and norm) of 3.0 on an H100. The
kernels whose sizes change with every object are compiled once for all of them.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def norm_kernel(
    x_ptr,
    y_ptr,
    gate_ptr,
    weight_ptr,
    bias_ptr,
    x_out_ptr,
    h_out_ptr,
    width,
    eps,
    residual: tl.constexpr,
    gated: tl.constexpr,
    mode: tl.constexpr,
    silu: tl.constexpr,
    block: tl.constexpr,
):
    """One row: x + gate * y (where `residual`), its norm, the norm's gain and offset, SiLU.

    `mode` "affine": norm * weight + bias; "modulate": norm * (1 + weight) + bias.
    """
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, block)
    mask = column < width
    x = tl.load(x_ptr + row + column, mask=mask, other=0.0).to(tl.float32)
    if residual:
        y = tl.load(y_ptr + row + column, mask=mask, other=0.0).to(tl.float32)
        if gated:
            y *= tl.load(gate_ptr + column, mask=mask, other=0.0).to(tl.float32)
        x += y
        tl.store(x_out_ptr + row + column, x.to(x_out_ptr.dtype.element_ty), mask=mask)
    mean = tl.sum(x, 0) / width
    centred = tl.where(mask, x - mean, 0.0)
    h = centred * tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    weight = tl.load(weight_ptr + column, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=mask, other=0.0).to(tl.float32)
    if mode == "modulate":
        weight += 1.0
    h = h * weight + bias
    if silu:
        h = h * tl.sigmoid(h)
    tl.store(h_out_ptr + row + column, h.to(h_out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def head_norm_kernel(
    x_ptr,
    gamma_ptr,
    out_ptr,
    row_stride,
    vectors,
    width,
    scale,
    vector_block: tl.constexpr,
    width_block: tl.constexpr,
):
    """All vectors of one token: L2 norm times gamma and scale. x rows may lie apart, out rows do not."""
    token = tl.program_id(0).to(tl.int64)
    vector = tl.arange(0, vector_block)[:, None]
    column = tl.arange(0, width_block)[None, :]
    mask = (vector < vectors) & (column < width)
    place = vector * width + column
    x = tl.load(x_ptr + token * row_stride + place, mask=mask, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + place, mask=mask, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(x * x, 1))
    x = x / tl.maximum(length, 1e-12)[:, None] * gamma * scale
    tl.store(out_ptr + token * vectors * width + place, x.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "slots_per_branch"])
def sum_neighbours_kernel(
    products_ptr,
    slots_ptr,
    bias_ptr,
    out_ptr,
    rows,
    slots_per_branch,
    width,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
):
    """out[b, n] = bias + sum over 27 taps of products[b, slots[n, tap]], where that is not -1."""
    row = tl.program_id(0) * row_block + tl.arange(0, row_block)
    column = tl.program_id(1) * column_block + tl.arange(0, column_block)
    branch = tl.program_id(2).to(tl.int64)
    in_rows, in_columns = row < rows, column < width
    total = tl.zeros([row_block, column_block], tl.float32)
    total += tl.load(bias_ptr + column, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    base = products_ptr + branch * slots_per_branch * width
    for tap in range(27):
        slot = tl.load(slots_ptr + row * 27 + tap, mask=in_rows, other=-1).to(tl.int64)
        mask = (slot >= 0)[:, None] & in_columns[None, :]
        total += tl.load(base + slot[:, None] * width + column[None, :], mask=mask, other=0.0).to(tl.float32)
    place = (branch * rows + row[:, None]) * width + column[None, :]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=in_rows[:, None] & in_columns[None, :])


@triton.jit(do_not_specialize=["queries", "keys"])
def attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    q_batch,
    q_row,
    q_head,
    k_batch,
    k_row,
    k_head,
    v_batch,
    v_row,
    v_head,
    heads,
    queries,
    keys,
    scale_log2,
    width: tl.constexpr,
    first: tl.constexpr,
    second: tl.constexpr,
    query_block: tl.constexpr,
    key_block: tl.constexpr,
):
    """Softmax attention at a head width of one or two powers of two (64, or 80 = 64 + 16).

    Padding 80 to 128, as general kernels do, spends 60 % more on both products.
    """
    branch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    row = tl.program_id(0) * query_block + tl.arange(0, query_block)
    column0 = tl.arange(0, first)
    in_rows = row[:, None] < queries
    q_base = q_ptr + branch.to(tl.int64) * q_batch + head * q_head + row[:, None] * q_row
    q0 = tl.load(q_base + column0[None, :], mask=in_rows, other=0.0)
    if second:
        column1 = first + tl.arange(0, second)
        q1 = tl.load(q_base + column1[None, :], mask=in_rows, other=0.0)
        acc1 = tl.zeros([query_block, second], tl.float32)
    key = tl.arange(0, key_block)
    k_base = k_ptr + branch.to(tl.int64) * k_batch + head * k_head + key[None, :] * k_row
    v_base = v_ptr + branch.to(tl.int64) * v_batch + head * v_head + key[:, None] * v_row
    best = tl.full([query_block], float("-inf"), tl.float32)
    total = tl.zeros([query_block], tl.float32)
    acc0 = tl.zeros([query_block, first], tl.float32)
    whole = keys // key_block * key_block
    for start in range(0, whole, key_block):
        s = tl.dot(q0, tl.load(k_base + start * k_row + column0[:, None]))
        if second:
            s = tl.dot(q1, tl.load(k_base + start * k_row + column1[:, None]), s)
        now = tl.maximum(best, tl.max(s, 1) * scale_log2)
        p = tl.exp2(s * scale_log2 - now[:, None])
        shrink = tl.exp2(best - now)
        total = total * shrink + tl.sum(p, 1)
        best = now
        v0 = tl.load(v_base + start * v_row + column0[None, :])
        half = p.to(v0.dtype)
        acc0 = tl.dot(half, v0, acc0 * shrink[:, None])
        if second:
            v1 = tl.load(v_base + start * v_row + column1[None, :])
            acc1 = tl.dot(half, v1, acc1 * shrink[:, None])
    if whole < keys:
        left = keys - whole
        s = tl.dot(
            q0, tl.load(k_base + whole * k_row + column0[:, None], mask=key[None, :] < left, other=0.0)
        )
        if second:
            k1 = tl.load(k_base + whole * k_row + column1[:, None], mask=key[None, :] < left, other=0.0)
            s = tl.dot(q1, k1, s)
        s = tl.where(key[None, :] < left, s, float("-inf"))
        now = tl.maximum(best, tl.max(s, 1) * scale_log2)
        p = tl.exp2(s * scale_log2 - now[:, None])
        shrink = tl.exp2(best - now)
        total = total * shrink + tl.sum(p, 1)
        v0 = tl.load(v_base + whole * v_row + column0[None, :], mask=key[:, None] < left, other=0.0)
        half = p.to(v0.dtype)
        acc0 = tl.dot(half, v0, acc0 * shrink[:, None])
        if second:
            v1 = tl.load(v_base + whole * v_row + column1[None, :], mask=key[:, None] < left, other=0.0)
            acc1 = tl.dot(half, v1, acc1 * shrink[:, None])
    share = (1.0 / total)[:, None]
    place = out_ptr + ((branch.to(tl.int64) * queries + row[:, None]) * heads + head) * width
    tl.store(place + column0[None, :], (acc0 * share).to(out_ptr.dtype.element_ty), mask=in_rows)
    if second:
        tl.store(place + column1[None, :], (acc1 * share).to(out_ptr.dtype.element_ty), mask=in_rows)
