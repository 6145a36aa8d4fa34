"""The fused norm is the written-out one, in value and both gradients, and takes nobody else's place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from strop.model.norms import _RMSNorm, fuse_norms

EPS = 1e-5


def plain(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(*shape, generator=generator, dtype=dtype) + 1  # a mean, which layer norm would take away
    return x.requires_grad_(), torch.randn(shape[-1], generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 3, 4), (1, 6, 2, 8)])
def test_value_and_gradients(shape: tuple[int, ...]) -> None:
    x, weight = inputs(*shape)
    got, want = _RMSNorm.apply(x, weight, EPS), plain(x, weight)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    slope = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((slope * y).sum(), (x, weight)) for y in (got, want))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    assert torch.autograd.gradcheck(lambda a, b: _RMSNorm.apply(a, b, EPS), (x, weight))


def test_heads_whose_gradient_comes_transposed() -> None:
    """As query norms stand in attention: [1, P, H, D], of which heads go before tokens."""
    x, weight = inputs(1, 6, 2, 8)
    ours, theirs = (
        torch.autograd.grad((y.transpose(1, 2).contiguous() ** 2).sum(), (x, weight))
        for y in (_RMSNorm.apply(x, weight, EPS), plain(x, weight))
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_a_row_of_zeros() -> None:
    x, weight = torch.zeros(2, 4, requires_grad=True), torch.ones(4)
    out = _RMSNorm.apply(x, weight, EPS)
    out.sum().backward()
    assert torch.equal(out, torch.zeros(2, 4))
    torch.testing.assert_close(x.grad, torch.full((2, 4), EPS**-0.5))


def test_a_frozen_weight_gets_no_gradient() -> None:
    x, weight = inputs(5, 7)
    (ours,) = torch.autograd.grad(_RMSNorm.apply(x, weight.detach(), EPS).square().sum(), x)
    (theirs,) = torch.autograd.grad(plain(x, weight).square().sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def test_fp32_is_as_near_as_the_formula_written_out() -> None:
    x, weight = inputs(400, 96)
    exact = torch.autograd.grad(plain(x, weight).sin().sum(), (x, weight))
    small = [t.detach().float().requires_grad_() for t in (x, weight)]
    for function, limit in ((lambda a, b: _RMSNorm.apply(a, b, EPS), 3e-6), (plain, 3e-6)):
        found = torch.autograd.grad(function(*small).sin().sum(), small)
        for a, b in zip(found, exact, strict=True):
            assert float((a.double() - b).norm() / b.norm()) < limit


def test_only_the_norms_it_computes_are_replaced() -> None:
    modules = nn.ModuleList([Qwen3RMSNorm(8), GemmaRMSNorm(8), nn.LayerNorm(8), Qwen3RMSNorm(8).bfloat16()])
    with torch.no_grad():
        modules[1].weight.fill_(0.5)  # Gemma's scale is 1 + weight
    assert fuse_norms(modules) == 1
    assert ["forward" in vars(m) for m in modules] == [True, False, False, False]
    x = torch.randn(3, 8)
    torch.testing.assert_close(modules[0](x), Qwen3RMSNorm(8)(x))
    low = x.bfloat16()
    assert torch.equal(modules[0](low), Qwen3RMSNorm(8)(low)), "lower precisions keep the layer's own rounding"
