"""Muon with equal shapes batched, and AdamW for what is no hidden matrix, in one optimizer.

Muon replaces a matrix's momentum by the nearest semi-orthogonal matrix, U V^T of its singular value
decomposition, so a step moves all directions alike. Newton-Schulz iterations come close to it
(singular values within about 0.7 to 1.2) with matrix products only. A transformer has few distinct
shapes, so all matrices of a shape, and their transposes, go through each product together.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of x <- a x + b x^3 + c x^5: the steepest at zero of those that keep (0, 1] near 1 (Jordan et al.)."""


class BatchedMuon(torch.optim.Optimizer):
    """Groups of kind "muon" step along orthogonalised momentum, groups of kind "adamw" by fused AdamW.

    A muon group has lr, momentum, nesterov, ns_steps, weight_decay; an adamw group lr, betas, eps,
    weight_decay and fused=True. State: "momentum", or "step", "exp_avg" and "exp_avg_sq".
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {})
        kinds = {group["kind"] for group in self.param_groups}
        assert kinds <= {"muon", "adamw"}, kinds
        for group in self.param_groups:
            assert group["kind"] == "adamw" or all(p.ndim == 2 for p in group["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params and group["kind"] == "muon":
                self._muon(group, params)
            elif params:
                self._adamw(group, params)
        return loss

    def _muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        grads = [_grad(p) for p in params]
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in params]
        torch._foreach_lerp_(momenta, grads, 1.0 - group["momentum"])
        updates = torch._foreach_lerp(grads, momenta, group["momentum"]) if group["nesterov"] else momenta
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1.0 - group["lr"] * group["weight_decay"])
        for indices in _by_shape(params):
            batch = torch.stack([_wide(updates[i]) for i in indices])
            for i, direction in zip(indices, newton_schulz(batch, group["ns_steps"]), strict=True):
                p = params[i]
                rows, columns = p.shape
                scale = max(1.0, rows / columns) ** 0.5
                p.add_((direction.mT if rows > columns else direction).to(p.dtype), alpha=-group["lr"] * scale)

    def _adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        beta1, beta2 = group["betas"]
        adamw(
            params,
            [_grad(p) for p in params],
            [self.state[p]["exp_avg"] for p in params],
            [self.state[p]["exp_avg_sq"] for p in params],
            [],
            [self.state[p]["step"] for p in params],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def newton_schulz(matrices: Tensor, num_steps: int) -> Tensor:
    """Each matrix with its singular values brought near 1: about U V^T of its decomposition.

    Args: matrices: [B, m, n] with m <= n.
    Returns: [B, m, n]; bf16 on CUDA, where its rounding is far below the iteration's own error, else
        the given precision (at least fp32). A zero matrix stays zero.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices.to(torch.promote_types(matrices.dtype, torch.float32))
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # the spectral norm is at most the Frobenius norm
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_shape(params: list[Tensor]) -> list[list[int]]:
    """Indices of the parameters that can share a batch: equal up to transposition, on one device."""
    buckets: dict[tuple[Any, ...], list[int]] = {}
    for i, p in enumerate(params):
        buckets.setdefault((min(p.shape), max(p.shape), p.dtype, p.device), []).append(i)
    return list(buckets.values())


def _wide(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
