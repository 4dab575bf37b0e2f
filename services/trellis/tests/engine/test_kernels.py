"""The GPU kernels, interpreted on the CPU, against the plain forms they stand for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

SCRIPT = """
import torch
from sn17_trellis.engine import fused, triton_kernels as kernels
from sn17_trellis.engine.triton_attention import attention_kernel
from sn17_trellis.engine.triton_cross import cross_attention_kernel

torch.manual_seed(0)

def close(got, expected):
    error = float((got.float() - expected.float()).norm() / expected.float().norm())
    assert error < 2e-3, error

x, y = torch.randn(2, 5, 40).half(), torch.randn(2, 5, 40).half()
gate, weight, bias = torch.randn(40).half(), torch.randn(40), torch.randn(40)
for modulate in (False, True):
    for other, factor in ((None, None), (y, None), (y, gate)):
        for silu in (False, True):
            want = fused.residual_norm(x, other, factor, weight, bias, modulate=modulate, silu=silu)
            total, h = torch.full_like(x, float("nan")), torch.full_like(x, float("nan"))
            kernels.norm_kernel[(10,)](
                x, x if other is None else other, x if factor is None else factor, weight, bias, total, h,
                40, fused.EPS, residual=other is not None, gated=factor is not None,
                mode="modulate" if modulate else "affine", silu=silu, block=64)
            close(h, want[1])
            if other is not None:
                close(total, want[0])

qkv, gamma = torch.randn(2, 7, 9, 20).half(), torch.randn(6, 20)
out = torch.full((2, 7, 6, 20), float("nan")).half()
kernels.head_norm_kernel[(14,)](
    qkv, gamma, out, qkv.stride(1), 20**0.5, vectors=6, width=20, vector_block=8, main=16, rest=16)
close(out, fused.head_norm(qkv[:, :, :6], gamma))

for width, main, rest in ((80, 64, 16), (64, 64, 0)):
    for tokens in (1, 31, 32, 64, 70):
        qkv, gammas = torch.randn(2, tokens, 3 * 3, width).half(), 0.5 + 0.8 * torch.rand(6, width)
        v = qkv[:, :, 6:]
        for given in (gammas, fused.bounded_gammas(gammas)):
            qk = fused.head_norm(qkv[:, :, :6], given)
            q, k = qk[:, :, :3], qk[:, :, 3:]
            out = torch.full((2, tokens, 3 * width), float("nan")).half()
            attention_kernel[(-(-tokens // 32), 6)](
                q, k, v, out, q.stride(1), k.stride(1), v.stride(1), tokens, width**-0.5 * fused.LOG2_E,
                heads=3, main=main, rest=rest, query_block=32, key_block=32, bounded=given is not gammas)
            qk = fused.head_norm(qkv[:, :, :6].float(), gammas)
            close(out, fused.self_attention(qk[:, :, :3], qk[:, :, 3:], v.float()))
    for keys in (1, 77, 128):
        for normed in (False, True):
            for branches in (1, 2):
                q = torch.randn(branches, 50, 3, width).half()
                k, v = (torch.randn(2, keys, 3, width).half() for _ in range(2))
                gamma = torch.rand(3, width)
                out = torch.full((2, 50, 3 * width), float("nan")).half()
                cross_attention_kernel[(2, 6)](
                    q, k, v, gamma, out, 0 if branches == 1 else q.stride(0), 50, keys,
                    width**-0.5 * fused.LOG2_E, heads=3, main=main, rest=rest, query_block=32, key_block=128,
                    normed=normed)
                wide = (each.float() for each in (q, k, v))
                close(out, fused.cross_attention(*wide, gamma if normed else None))

products, bias = torch.randn(2, 11 * 27, 24).half(), torch.randn(24).half()
slots = torch.randint(-1, 11 * 27, (13, 27)).int()
slots[torch.rand(13, 27) < 0.5] = -1
out = torch.full((2, 13, 24), float("nan")).half()
kernels.sum_neighbours_kernel[(2, 2, 2)](
    products, slots, bias, out, 13, 11 * 27, 24, row_block=8, column_block=16)
close(out, fused.sum_neighbours(products, slots, bias))
print("agree")
"""


def test_kernels_agree_with_their_plain_forms() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stdout.strip() == "agree", done.stderr[-2000:]
