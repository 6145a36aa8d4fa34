"""RMS normalisation as one differentiable operation on CPU.

transformers writes it as seven tensor operations, whose backward is a dozen more; together they
are a tenth of a small model's training step. One function with a written-out backward does it in
half the passes and keeps one number a row rather than three rows. A layer is replaced only where
it computes the same on random input; everything else stays as it is.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn


def fuse_norms(module: nn.Module) -> int:
    """Replace the forward of every RMS norm that computes x / rms(x) * weight; how many there were.

    Only fp32 modules on CPU: GPUs have a fused kernel, and lower precisions their own rounding.
    """
    count = 0
    for part in module.modules():
        if type(part).__name__.endswith("RMSNorm") and _is_plain(part):
            part.forward = types.MethodType(_forward, part)
            count += 1
    return count


def _forward(norm: Any, hidden: Tensor) -> Tensor:
    if hidden.dtype != torch.float32 or norm.weight.dtype != torch.float32:
        unfused: Tensor = type(norm).forward(norm, hidden)
        return unfused
    out: Tensor = _RMSNorm.apply(hidden, norm.weight, _eps(norm))
    return out


def _is_plain(norm: nn.Module) -> bool:
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 1 or weight.dtype != torch.float32 or weight.is_cuda:
        return False
    probe = torch.linspace(-3.0, 2.0, 2 * len(weight)).view(2, -1).sin()
    with torch.no_grad():
        expected = type(norm).forward(norm, probe)
        return torch.allclose(_RMSNorm.apply(probe, weight, _eps(norm)), expected, rtol=1e-6, atol=1e-6)


def _eps(norm: Any) -> float:
    """What the layer calls its epsilon; a wrong guess shows in the comparison."""
    return float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 1e-6)))


class _RMSNorm(torch.autograd.Function):
    """y = x r w with r = (mean(x^2) + eps)^(-1/2), over the last dimension.

    With g = grad * w and u = x r, the gradient is r (g - u mean(g u)). Layer norm's is
    r (g - mean(g) - u mean(g u)) where its mean is 0, and torch has that as one pass over the
    rows; r mean(g) is put back. This took half the time of the formula written out.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        r = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        out: Tensor = (x * r).mul_(weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, r = ctx.saved_tensors
        width = x.shape[-1]
        wanted = [True, ctx.needs_input_grad[1], False]
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, [width], torch.zeros_like(r), r, weight, None, wanted
        )
        mean = torch.mv(grad.reshape(-1, width), weight).div_(width).view_as(r)
        return grad_x.add_(mean.mul_(r)), grad_weight, None
