"""Self-attention for Hopper GPUs (compute capability 9.0), where products and softmax overlap.

The form is FlashAttention-3's (Shah et al. 2024): one warp loads tiles ahead through the tensor memory
accelerator; two warpgroups take 64 queries each. A warpgroup starts the products of the next keys and of the
last values, and computes the softmax between them while they run; the two take turns at starting products, so
that one always computes while the other multiplies. Programs stay and take one tile after another.

Keys have length 1 and queries hold the whole scale, so that no logit is larger than its query is long
(Cauchy-Schwarz): this bound stands for the running maximum, as in `triton_attention`. A width of 80 is taken
as 64 + 16. 4,096 tokens of width 80: 21 % faster than `triton_attention` on an H200.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, import-untyped"

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

load_tile = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
"""By the name that this version of Triton has for it."""
TOP = gl.constexpr(14)
"""Weights reach up to 2^14, a quarter of what float16 holds, and are exact down to 2^-14."""
ROWS = gl.constexpr(64)
"""Queries of one warpgroup."""
GROUPS = gl.constexpr(2)
"""Warpgroups that compute."""
STAGES = gl.constexpr(3)
"""Pairs of one block's keys and the values of the block before it that shared memory holds."""
SLOTS = gl.constexpr(2)
"""Tiles whose queries and first keys it holds."""


@gluon.jit
def _copy(tiles_of, row, column, ready, main_to, rest_to, rest: gl.constexpr):
    """Start to load rows from `row` on, columns from `column` on."""
    main_of, rest_of = tiles_of
    load_tile(main_of, [row, column], ready, main_to)
    if rest > 0:
        load_tile(rest_of, [row, column + main_to.shape[1]], ready, rest_to)


@gluon.jit
def _load(sources, shared, bars, work, out_ptr, group: gl.constexpr, heads: gl.constexpr, rest: gl.constexpr):
    """The loading warp: all tiles of this program, each with its queries, keys and values."""
    queries, keys, values = sources
    q_main, q_rest, first_main, first_rest, k_main, k_rest, v_main, v_rest = shared
    tile_ready, tile_free, ready, free, _ = bars
    tokens, blocks, tiles, query_blocks = work
    width: gl.constexpr = k_main.shape[2] + rest
    key_block: gl.constexpr = k_main.shape[1]
    block_bytes: gl.constexpr = 2 * key_block * width
    tile_bytes: gl.constexpr = 2 * GROUPS * ROWS * width + block_bytes
    step = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        pair = tile // query_blocks
        row = (pair // heads) * tokens
        column = (pair % heads) * width
        query = row + (tile % query_blocks) * (GROUPS * ROWS)
        turn = tile // gl.num_programs(0)
        slot = turn % SLOTS
        bar = tile_ready.index(slot)
        mbarrier.wait(tile_free.index(slot), ((turn // SLOTS) & 1) ^ 1)
        mbarrier.expect(bar, tile_bytes)
        for each in gl.static_range(GROUPS):
            at = slot * GROUPS + each
            _copy(queries, query + ROWS * each, column, bar, q_main.index(at), q_rest.index(at), rest)
        _copy(keys, row, column, bar, first_main.index(slot), first_rest.index(slot), rest)
        for block in range(blocks):
            at = step % STAGES
            bar = ready.index(at)
            first = row + block * key_block
            mbarrier.wait(free.index(at), ((step // STAGES) & 1) ^ 1)
            if block < blocks - 1:
                mbarrier.expect(bar, 2 * block_bytes)
                _copy(keys, first + key_block, column, bar, k_main.index(at), k_rest.index(at), rest)
            else:
                mbarrier.expect(bar, block_bytes)
            _copy(values, first, column, bar, v_main.index(at), v_rest.index(at), rest)
            step += 1


@gluon.jit
def _start_logits(q_main, q_rest, k_main, k_rest, rest: gl.constexpr, layout: gl.constexpr):
    """Start the product of queries and keys."""
    key_block: gl.constexpr = k_main.shape[0]
    none = gl.zeros([ROWS, key_block], gl.float32, layout)
    logits = warpgroup_mma(q_main, k_main.permute((1, 0)), none, use_acc=False, is_async=True)
    if rest > 0:
        logits = warpgroup_mma(q_rest, k_rest.permute((1, 0)), logits, is_async=True)
    return logits


@gluon.jit
def _weigh(logits, bound, total, first_key, tokens, dtype: gl.constexpr, masked: gl.constexpr):
    """Weights of the keys from `first_key` on, and their sums, eight a query: no threads share one."""
    key_block: gl.constexpr = logits.shape[1]
    if masked:
        key = first_key + gl.arange(0, key_block, gl.SliceLayout(0, logits.type.layout))
        logits = gl.where((key < tokens)[None, :], logits, -float("inf"))
    weights = gl.exp2(logits - bound)
    total += gl.sum(gl.reshape(weights, [ROWS, key_block // 8, 8]), 1)
    return weights.to(dtype), total


@gluon.jit
def _start_output(weights, v_main, v_rest, out_main, out_rest, rest: gl.constexpr):
    """Start the product of weights and values; the weights must stay until it is done, hence returned."""
    main_layout: gl.constexpr = out_main.type.layout
    of_main = gl.convert_layout(weights, gl.DotOperandLayout(0, main_layout, 2))
    out_main = warpgroup_mma(of_main, v_main, out_main, is_async=True)
    of_rest = of_main
    if rest > 0:
        of_rest = gl.convert_layout(weights, gl.DotOperandLayout(0, out_rest.type.layout, 2))
        out_rest = warpgroup_mma(of_rest, v_rest, out_rest, is_async=True)
    return of_main, of_rest, out_main, out_rest


@gluon.jit
def _finish_output(of_main, of_rest, out_main, out_rest, rest: gl.constexpr):
    """Wait for everything that this warpgroup started."""
    if rest > 0:
        out_main, out_rest, of_main, of_rest = warpgroup_mma_wait(
            0, deps=[out_main, out_rest, of_main, of_rest]
        )
    else:
        out_main, of_main = warpgroup_mma_wait(0, deps=[out_main, of_main])
    return out_main, out_rest


@gluon.jit
def _await_turn(turns, step, group: gl.constexpr):
    """Until the other warpgroup has started its products of the step before; the first begins."""
    mbarrier.wait(turns.index(group), (step & 1) ^ (1 - group))


@gluon.jit
def _step(
    state, step, block, bound, q_main, q_rest, shared, bars, tokens,
    group: gl.constexpr, rest: gl.constexpr, layout: gl.constexpr, masked: gl.constexpr,
):  # fmt: skip
    """Weigh the keys of a block, and sum up the values of the block before it meanwhile."""
    weights, total, out_main, out_rest = state
    _, _, _, _, k_main, k_rest, v_main, v_rest = shared
    _, _, ready, free, turns = bars
    key_block: gl.constexpr = k_main.shape[1]
    at = step % STAGES
    mbarrier.wait(ready.index(at), (step // STAGES) & 1)
    _await_turn(turns, step, group)
    logits = _start_logits(q_main, q_rest, k_main.index(at), k_rest.index(at), rest, layout)
    of_main, of_rest, out_main, out_rest = _start_output(
        weights, v_main.index(at), v_rest.index(at), out_main, out_rest, rest
    )
    mbarrier.arrive(turns.index(1 - group), count=1)
    # The products of the output, which started after the logits', run on.
    logits = warpgroup_mma_wait(2 if rest > 0 else 1, deps=[logits])
    weights, total = _weigh(logits, bound, total, block * key_block, tokens, v_main.dtype, masked)
    out_main, out_rest = _finish_output(of_main, of_rest, out_main, out_rest, rest)
    mbarrier.arrive(free.index(at), count=1)
    return weights, total, out_main, out_rest


@gluon.jit
def _store(out_ptr, out, inverse, query, tokens, stride: gl.constexpr):
    """Rows of one part of the output, each divided by its sum of weights."""
    layout: gl.constexpr = out.type.layout
    row = query + gl.arange(0, ROWS, gl.SliceLayout(1, layout))
    column = gl.arange(0, out.shape[1], gl.SliceLayout(0, layout))
    out = out * gl.expand_dims(gl.convert_layout(inverse, gl.SliceLayout(1, layout)), 1)
    out = out.to(out_ptr.dtype.element_ty)
    gl.store(out_ptr + row[:, None] * stride + column[None, :], out, mask=(row < tokens)[:, None])


@gluon.jit
def _bound(q_main, q_rest, rest: gl.constexpr, main_layout: gl.constexpr, rest_layout: gl.constexpr,
           layout: gl.constexpr):  # fmt: skip
    """The length of each query, less `TOP`."""
    part = q_main.load(main_layout).to(gl.float32)
    square = gl.convert_layout(gl.sum(part * part, 1), layout)
    if rest > 0:
        part = q_rest.load(rest_layout).to(gl.float32)
        square += gl.convert_layout(gl.sum(part * part, 1), layout)
    return gl.expand_dims(gl.sqrt(square) - TOP, 1)


@gluon.jit
def _compute(
    sources, shared, bars, work, out_ptr, group: gl.constexpr, heads: gl.constexpr, rest: gl.constexpr
):
    """One warpgroup: its 64 queries of each tile of this program."""
    q_mains, q_rests, first_main, first_rest, k_main, _, v_main, v_rest = shared
    tile_ready, tile_free, ready, free, turns = bars
    tokens, blocks, tiles, query_blocks = work
    key_block: gl.constexpr = k_main.shape[1]
    main: gl.constexpr = k_main.shape[2]
    stride: gl.constexpr = heads * (main + rest)
    columns: gl.constexpr = rest if rest > 0 else 16
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, key_block, 16])
    main_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, main, 16])
    rest_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, columns, 16])
    step = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        pair = tile // query_blocks
        turn = tile // gl.num_programs(0)
        slot = turn % SLOTS
        q_main = q_mains.index(slot * GROUPS + group)
        q_rest = q_rests.index(slot * GROUPS + group)
        mbarrier.wait(tile_ready.index(slot), (turn // SLOTS) & 1)
        logits = _start_logits(q_main, q_rest, first_main.index(slot), first_rest.index(slot), rest, layout)
        bound = _bound(q_main, q_rest, rest, main_layout, rest_layout, gl.SliceLayout(1, layout))
        none = gl.zeros([ROWS, key_block], gl.float32, layout)
        total = gl.sum(gl.reshape(none, [ROWS, key_block // 8, 8]), 1)
        logits = warpgroup_mma_wait(0, deps=[logits])
        weights, total = _weigh(logits, bound, total, 0, tokens, v_main.dtype, True)
        out_main = gl.zeros([ROWS, main], gl.float32, main_layout)
        out_rest = gl.zeros([ROWS, columns], gl.float32, rest_layout)
        for block in range(1, blocks - 1):
            weights, total, out_main, out_rest = _step(
                (weights, total, out_main, out_rest), step, block, bound, q_main, q_rest, shared, bars,
                tokens, group, rest, layout, False,
            )  # fmt: skip
            step += 1
        if blocks > 1:
            weights, total, out_main, out_rest = _step(
                (weights, total, out_main, out_rest), step, blocks - 1, bound, q_main, q_rest, shared, bars,
                tokens, group, rest, layout, True,
            )  # fmt: skip
            step += 1
        mbarrier.arrive(tile_free.index(slot), count=1)
        at = step % STAGES
        mbarrier.wait(ready.index(at), (step // STAGES) & 1)
        _await_turn(turns, step, group)
        of_main, of_rest, out_main, out_rest = _start_output(
            weights, v_main.index(at), v_rest.index(at), out_main, out_rest, rest
        )
        mbarrier.arrive(turns.index(1 - group), count=1)
        out_main, out_rest = _finish_output(of_main, of_rest, out_main, out_rest, rest)
        mbarrier.arrive(free.index(at), count=1)
        step += 1
        inverse = 1.0 / gl.sum(total, 1)
        query = (tile % query_blocks) * (GROUPS * ROWS) + group * ROWS
        branch = ((pair // heads) * tokens).to(gl.int64) * stride
        to = out_ptr + branch + (pair % heads) * (main + rest)
        _store(to, out_main, inverse, query, tokens, stride)
        if rest > 0:
            _store(to + main, out_rest, inverse, query, tokens, stride)


@gluon.jit
def _tiles(count: gl.constexpr, source):
    """Shared memory for so many tiles of a source."""
    return gl.allocate_shared_memory(
        source.dtype, [count, source.block_type.shape[0], source.block_type.shape[1]], source.layout
    )


@gluon.jit
def _barriers(count: gl.constexpr, arrivals: gl.constexpr):
    bars = gl.allocate_shared_memory(gl.int64, [count, 1], mbarrier.MBarrierLayout())
    for at in gl.static_range(count):
        mbarrier.init(bars.index(at), count=arrivals)
    return bars


@gluon.jit(do_not_specialize=["tokens", "tiles", "query_blocks"])
def hopper_attention_kernel(
    q_main, q_rest, k_main, k_rest, v_main, v_rest, out_ptr, tokens, tiles, query_blocks,
    heads: gl.constexpr, rest: gl.constexpr,
):  # fmt: skip
    """Tensor descriptors of q, k, v [B * tokens, heads * width], in blocks of 64 columns and of the rest.

    Blocks of q have 64 rows, those of k and v `key_block`. out [B, tokens, heads * width] is dense. A tile is
    `query_blocks`-th part of one head of one branch. Keys have length 1, queries hold the scale in base 2.
    """
    q_tiles: gl.constexpr = SLOTS * GROUPS
    q_of_main = _tiles(q_tiles, q_main)
    first_main = _tiles(SLOTS, k_main)
    k_of_main = _tiles(STAGES, k_main)
    v_of_main = _tiles(STAGES, v_main)
    if rest > 0:
        shared = (
            q_of_main, _tiles(q_tiles, q_rest), first_main, _tiles(SLOTS, k_rest),
            k_of_main, _tiles(STAGES, k_rest), v_of_main, _tiles(STAGES, v_rest),
        )  # fmt: skip
    else:
        shared = (
            q_of_main, q_of_main, first_main, first_main, k_of_main, k_of_main, v_of_main, v_of_main,
        )  # fmt: skip
    bars = (
        _barriers(SLOTS, 1), _barriers(SLOTS, GROUPS), _barriers(STAGES, 1), _barriers(STAGES, GROUPS),
        _barriers(GROUPS, 1),
    )  # fmt: skip
    sources = ((q_main, q_rest), (k_main, k_rest), (v_main, v_rest))
    work = (tokens, gl.cdiv(tokens, k_main.block_type.shape[0]), tiles, query_blocks)
    zero: gl.constexpr = 0
    one: gl.constexpr = 1
    gl.warp_specialize(
        [
            (_compute, (sources, shared, bars, work, out_ptr, zero, heads, rest)),
            (_compute, (sources, shared, bars, work, out_ptr, one, heads, rest)),
            (_load, (sources, shared, bars, work, out_ptr, zero, heads, rest)),
        ],
        [4, 1],
        [240, 24],
    )
