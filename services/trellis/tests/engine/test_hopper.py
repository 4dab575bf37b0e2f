"""The attention kernel for Hopper: it compiles without a GPU, and is used only where it agrees."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")
triton = pytest.importorskip("triton", reason="the kernels need Triton")

from sn17_trellis.engine import fused, hopper  # noqa: E402

CPU = torch.device("cpu")
COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource
from triton.experimental.gluon.language._layouts import NVMMASharedLayout
from sn17_trellis.engine import hopper
from sn17_trellis.engine.hopper_attention import ROWS, hopper_attention_kernel as kernel

rest, dtype = int(sys.argv[1]), sys.argv[2]

def described(rows, columns):
    layout = NVMMASharedLayout(swizzle_byte_width=2 * columns, element_bitwidth=16, rank=2)
    return f"tensordesc<{dtype}[{rows}, {columns}],{layout!r}>"

types = {
    f"{name}_{part}": described(rows, columns)
    for name, rows in (("q", ROWS.value), ("k", hopper.KEY_ROWS), ("v", hopper.KEY_ROWS))
    for part, columns in (("main", hopper.MAIN), ("rest", rest or hopper.MAIN))
}
types |= {"out_ptr": f"*{dtype}", "tokens": "i32", "tiles": "i32", "query_blocks": "i32"}
types |= {"heads": "constexpr", "rest": "constexpr"}
constants = {(kernel.arg_names.index(name),): value for name, value in (("heads", 16), ("rest", rest))}
compiled = triton.compile(
    GluonASTSource(kernel, types, constants), target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
print(compiled.metadata.shared, compiled.asm["ptx"].count("wgmma.mma_async"))
"""


def plain(q: Any, k: Any, v: Any) -> Any:
    return fused.few_keys_attention(q.float(), k.float(), v.float(), 1 / fused.LOG2_E)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("rest", [0, 16])
def test_it_compiles_for_hopper_with_the_installed_triton(rest: int, dtype: str) -> None:
    # In a process of its own: Triton's compiler complains at the end of the one it ran in.
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(rest), dtype], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shared, products = map(int, done.stdout.split())
    assert products > 0
    # What a program of an H100 may have.
    assert shared <= 227 * 1024


def test_a_kernel_that_computes_attention_is_used() -> None:
    assert hopper.compared(lambda: plain, CPU, 80, torch.float16) is plain


def _broken() -> Any:
    raise AttributeError("module 'tma' has no attribute 'async_load'")


def _without_last_key(q: Any, k: Any, v: Any) -> Any:
    return plain(q, k[:, :-1], v[:, :-1])


def _not_a_number(q: Any, k: Any, v: Any) -> Any:
    return plain(q, k, v) * float("nan")


def _keys_past_the_last(q: Any, k: Any, v: Any) -> Any:
    more = torch.zeros_like(k[:, :84])
    return plain(q, torch.cat([k, more], 1), torch.cat([v, more], 1))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (_broken, "AttributeError: module 'tma' has no attribute"),
        (lambda: _without_last_key, "relative error is"),
        (lambda: _keys_past_the_last, "relative error is"),
        (lambda: _not_a_number, "relative error is nan"),
    ],
)
@pytest.mark.parametrize("width", [64, 80])
def test_one_that_fails_or_errs_is_not_used_and_a_warning_says_why(
    start: Any, said: str, width: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "sn17.trellis.engine"):
        assert hopper.compared(start, CPU, width, torch.float16) is None
    (record,) = caplog.records
    assert "not used" in record.getMessage()
    assert said in record.getMessage()


def test_no_memory_for_the_comparison_is_not_a_verdict() -> None:
    def full() -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        hopper.compared(full, CPU, 80, torch.float16)


def test_other_devices_attend_otherwise() -> None:
    parts = [torch.randn(1, 8, 2, 80).half() for _ in range(3)]
    assert hopper.bounded_attention(*parts) is None
