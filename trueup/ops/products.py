"""Matrix products on a CPU: float32 ones go to oneDNN where the library that PyTorch gives them to is half as fast.

PyTorch sends float32 products to Intel's MKL, which on a processor of AMD leaves half of an AVX-512 unit idle. oneDNN
is in the same build of PyTorch, computes the same sums in float32, and uses all of it: on one core of a Zen 5, 230
GFLOP/s in place of 105 (docs/log.md). On other machines, devices and dtypes everything is as PyTorch has it, and
``TRUEUP_PRODUCTS=torch`` makes it so everywhere.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trueup.errors import UserError

VARIABLE = "TRUEUP_PRODUCTS"
"""Environment variable: ``torch`` or ``onednn``; by default the processor decides."""

SMALL = 1 << 21
"""Multiplications below which a call costs more than it saves."""


@cache
def library() -> str:
    """Who computes large float32 products on this machine's CPU: ``onednn`` or ``torch``."""
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", "torch", "onednn"):
        raise UserError(f"{VARIABLE} is {asked!r}: it takes torch or onednn")
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or asked == "torch":
        return "torch"
    return "onednn" if asked == "onednn" or _is_amd_with_avx512() else "torch"


def _is_amd_with_avx512() -> bool:
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:
        return False


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias`` for ``x`` ``[..., K]`` and ``weight`` ``[N, K]``; differentiable."""
    if not _pays(x, weight):
        return torch.nn.functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return]
    return _onednn(x, weight, bias)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` for ``a`` ``[M, K]``, M of any size, and ``b`` ``[K, N]``, without a gradient."""
    return _onednn(a, b.T) if _pays(a, b.T) else a @ b


def outer(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a.T @ b`` for ``a`` ``[M, N]`` and ``b`` ``[M, K]``, M of any size, without a gradient."""
    if not _pays(a.T, b.T):
        return a.T @ b
    return _call(_padded(a).T, _padded(b).T, None)


def _pays(x: Tensor, weight: Tensor) -> bool:
    """May the product of ``x`` and ``weight.T`` go to oneDNN, and is it large enough to gain by that?"""
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or x.device.type != "cpu":
        return False
    if x.numel() * weight.shape[0] < SMALL or library() != "onednn":
        return False
    # Under autocast the product is asked for in bfloat16; and transforms of functions know PyTorch's own alone.
    return not torch.is_autocast_enabled("cpu") and not torch._C._are_functorch_transforms_active()


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rows = _rows(x)
    out = _call(_padded(rows), weight, bias)
    return out[: len(rows)].view(*x.shape[:-1], -1)


def _call(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _room(rows: int) -> int:
    """The next of eight sizes an octave: oneDNN makes code for every new size, a fifth of a megabyte, and keeps it."""
    step = 1 << max(3, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


def _padded(rows: Tensor) -> Tensor:
    """The rows, and rows of 0 up to the next size."""
    more = _room(len(rows)) - len(rows)
    return torch.nn.functional.pad(rows, (0, 0, 0, more)) if more else rows


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


class _Linear(torch.autograd.Function):
    """The linear map and its two products in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        to_x, to_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """D loss / d x = grad @ weight, d weight = grad.T @ x, d bias = the sum of grad over rows.

        A gradient that is itself to be differentiated is computed by PyTorch.
        """
        x, weight = ctx.saved_tensors
        again = torch.is_grad_enabled()
        grad = grads[0].contiguous()  # the gradient of a sum is one number with strides of 0
        rows = _rows(grad)
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            (rows @ weight if again else product(rows, weight)).view(*grad.shape[:-1], -1) if to_x else None,
            (rows.T @ _rows(x) if again else outer(rows, _rows(x))) if to_weight else None,
            rows.sum(dim=0) if to_bias else None,
        )
