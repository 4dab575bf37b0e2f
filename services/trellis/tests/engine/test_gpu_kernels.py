"""The kernels as compiled for a GPU, at the widths of the released models."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

from sn17_trellis.engine import fused, hopper  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU (torch sees none)"),
]
GPU = torch.device("cuda")


def relative(got: Any, expected: Any) -> float:
    return float((got.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("width", [64, 80, 96])
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 127, 129, 1000, 4096, 4892])
def test_attention_as_compiled(width: int, tokens: int) -> None:
    torch.manual_seed(tokens)
    qkv = torch.randn(2, tokens, 48, width, device=GPU, dtype=torch.float16)
    qk = fused.head_norm(qkv[:, :, :32], 1 + torch.rand(32, width, device=GPU))
    parts = qk[:, :, :16], qk[:, :, 16:], qkv[:, :, 32:]
    got = fused.self_attention(*parts)
    assert got.shape == (2, tokens, 16 * width)
    assert relative(got, fused.self_attention(*(each.double() for each in parts))) < 2e-3


@pytest.mark.parametrize("width", [64, 80, 96])
@pytest.mark.parametrize("tokens", [1, 63, 65, 129, 1000, 4096, 4892])
@pytest.mark.parametrize("gain", [0.1, 1.0, 1.15])
def test_attention_without_a_maximum_as_compiled(width: int, tokens: int, gain: float) -> None:
    torch.manual_seed(tokens)
    qkv = torch.randn(2, tokens, 48, width, device=GPU, dtype=torch.float16)
    gammas = gain * (1 + 0.1 * torch.rand(32, width, device=GPU))
    bounded = fused.bounded_gammas(gammas)
    assert bounded is not None
    got = fused.head_norm(qkv[:, :, :32], bounded)
    got = fused.bounded_attention(got[:, :, :16], got[:, :, 16:], qkv[:, :, 32:])
    qk = fused.head_norm(qkv[:, :, :32].double(), gammas.double())
    want = fused.self_attention(qk[:, :, :16], qk[:, :, 16:], qkv[:, :, 32:].double())
    assert relative(got, want) < 2e-3


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != hopper.CAPABILITY,
    reason="needs a Hopper GPU",
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 80])
@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("tokens", [1, 64, 128, 129, 256, 257, 384, 640, 2896, 4096, 9999])
def test_the_kernel_for_hopper_serves_any_number_of_tokens(
    tokens: int, branches: int, width: int, dtype: Any
) -> None:
    torch.manual_seed(tokens)
    qkv = torch.randn(branches, tokens, 48, width, device=GPU, dtype=dtype)
    bounded = fused.bounded_gammas(1 + 0.1 * torch.rand(32, width, device=GPU))
    qk = fused.head_norm(qkv[:, :, :32], bounded)
    parts = qk[:, :, :16], qk[:, :, 16:], qkv[:, :, 32:]
    got = hopper.bounded_attention(*parts)
    assert got is not None
    assert relative(got, fused.bounded_attention(*parts, on_hopper=False)) < 1e-2
    want = fused.few_keys_attention(*(each.float() for each in parts), 1 / fused.LOG2_E)
    assert relative(got, want) < (2e-3 if dtype == torch.float16 else 1e-2)


def test_every_logit_far_below_its_bound_is_still_right() -> None:
    """Queries that point away from all keys: the largest weights are small numbers of float16."""
    torch.manual_seed(0)
    way = torch.nn.functional.normalize(torch.randn(80, device=GPU), dim=0)
    qkv = torch.randn(1, 4096, 48, 80, device=GPU, dtype=torch.float16)
    qkv[:, :, :16] -= (6 * way).half()
    qkv[:, :, 16:32] += (6 * way).half()
    gammas = torch.full((32, 80), 1.0, device=GPU)
    bounded = fused.bounded_gammas(gammas)
    got = fused.head_norm(qkv[:, :, :32], bounded)
    got = fused.bounded_attention(got[:, :, :16], got[:, :, 16:], qkv[:, :, 32:])
    qk = fused.head_norm(qkv[:, :, :32].double(), gammas.double())
    want = fused.self_attention(qk[:, :, :16], qk[:, :, 16:], qkv[:, :, 32:].double())
    assert relative(got, want) < 5e-3


def test_gains_that_are_too_large_keep_the_running_maximum() -> None:
    assert fused.bounded_gammas(torch.full((32, 80), 1.3, device=GPU)) is not None
    assert fused.bounded_gammas(torch.full((32, 80), 1.5, device=GPU)) is None


@pytest.mark.parametrize("width", [64, 80, 96])
@pytest.mark.parametrize("keys", [1, 77, 128, 1374])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("branches", [1, 2])
def test_cross_attention_as_compiled(width: int, keys: int, normed: bool, branches: int) -> None:
    torch.manual_seed(keys)
    q = torch.randn(branches, 999, 16, width, device=GPU, dtype=torch.float16)
    k, v = (torch.randn(2, keys, 16, width, device=GPU, dtype=torch.float16) for _ in range(2))
    gamma = 0.5 + torch.rand(16, width, device=GPU) if normed else None
    got = fused.cross_attention(q, k, v, gamma)
    wide = None if gamma is None else gamma.double()
    want = fused.cross_attention(q.double(), k.double(), v.double(), wide)
    assert got.shape == (2, 999, 16 * width)
    assert relative(got, want) < 2e-3


@pytest.mark.parametrize("bounded", [False, True])
def test_attention_does_not_read_past_the_last_token(bounded: bool) -> None:
    """Rows after the last are NaN: as keys or values they would spoil everything."""
    held = torch.full((1, 300, 48, 80), float("nan"), device=GPU, dtype=torch.float16)
    held[:, :200] = torch.randn(1, 200, 48, 80, device=GPU) / 8
    held[:, :200, 16:32] = torch.nn.functional.normalize(held[:, :200, 16:32].float(), dim=-1).half()
    parts = held[:, :200, :16], held[:, :200, 16:32], held[:, :200, 32:]
    attend = fused.bounded_attention if bounded else fused.self_attention
    assert relative(attend(*parts), attend(*(each.double() for each in parts))) < 2e-3


@pytest.mark.parametrize("width", [256, 768, 1280, 2560])
def test_norms_as_compiled(width: int) -> None:
    torch.manual_seed(width)
    x, y = (torch.randn(2, 301, width, device=GPU, dtype=torch.float16) for _ in range(2))
    gate, weight, bias = (torch.randn(width, device=GPU) for _ in range(3))
    for modulate in (False, True):
        for silu in (False, True):
            got = fused.residual_norm(x, y, gate, weight, bias, modulate=modulate, silu=silu)
            want = fused.residual_norm(
                *(each.double() for each in (x, y, gate, weight, bias)), modulate=modulate, silu=silu
            )
            for a, b in zip(got, want, strict=True):
                assert relative(a, b) < 2e-3


def test_windows_as_compiled() -> None:
    torch.manual_seed(0)
    sizes = torch.randint(1, 194, (200,))
    offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).int().to(GPU)
    qkv = torch.randn(int(sizes.sum()), 36, 64, device=GPU, dtype=torch.float16)
    parts = qkv[:, :12], qkv[:, 12:24], qkv[:, 24:]
    got = fused.window_attention(*parts, offsets, int(sizes.max()))
    want = fused.window_attention(*(each.double() for each in parts), offsets, int(sizes.max()))
    assert relative(got, want) < 2e-3
