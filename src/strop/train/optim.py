"""Optimizers and learning-rate schedules, as settings whose `__call__` makes or computes them.

An optimizer is built for a module; a schedule is a pure function of (step, number of steps) that
gives the factor `set_lr` multiplies every group's own learning rate by.

Parameters fall in two kinds (`split_parameters`): hidden matrices, which Muon orthogonalises and
weight decay shrinks; and the rest (embeddings, output heads, norms, biases), which AdamW trains
without decay.

Left out: 8-bit states, fp32 master copies of bf16 weights (keep the weights fp32 and autocast),
and Muon for stacked expert tensors [E, a, b], which count as the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn import Parameter
else:
    torch = lazy_module("torch")
    nn = lazy_module("torch.nn")


def _check(good: bool, text: str) -> None:  # stands here because a default below is built at import
    if not good:
        raise ValueError(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay: p <- p (1 - lr decay) - lr m / (sqrt(v) + eps), bias-corrected.

    Attributes:
        lr: the learning rate that the schedule's factor multiplies.
        betas: decay of the running mean and of the running mean square of gradients.
        weight_decay: shrinks hidden matrices only: not embeddings, heads, norms and biases.

    Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2; decay is multiplied by lr, as in PyTorch.
    """

    name: Literal["adamw"] = "adamw"
    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lr > 0, f"lr is {self.lr}; it must be positive")
        _check(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), f"betas is {self.betas}; give two in [0, 1)"
        )
        _check(self.eps > 0, f"eps is {self.eps}; it must be positive")
        _check(self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; it must not be negative")

    def __call__(self, module: nn.Module) -> torch.optim.Optimizer:
        """A fused torch AdamW over the module's trainable parameters.

        Raises: ValueError if nothing in the module is trainable.
        """
        matrices, others = split_parameters(module)
        groups = [self.group(matrices, self.weight_decay), self.group(others, 0.0)]
        return torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=self.lr, betas=self.betas, eps=self.eps, fused=True
        )

    def group(self, params: list[Parameter], weight_decay: float) -> dict[str, Any]:
        """One of an optimizer's parameter groups with these settings; `initial_lr` is what `set_lr` scales."""
        return {
            "params": params,
            "lr": self.lr,
            "initial_lr": self.lr,
            "betas": self.betas,
            "eps": self.eps,
            "weight_decay": weight_decay,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Muon:
    """Momentum orthogonalised by Newton-Schulz on hidden matrices, AdamW on the rest (`muon.BatchedMuon`).

    Attributes:
        lr: of the matrices; a step moves every direction of a matrix by about lr sqrt(max(1, rows / columns)).
        nesterov: step along the gradient mixed with its momentum rather than along the momentum.
        ns_steps: Newton-Schulz iterations.
        weight_decay: decoupled, times lr, on the matrices.
        adamw: for the rest; its own weight decay is not used, since the rest never decays.

    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """

    name: Literal["muon"] = "muon"
    lr: float = 0.015
    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    weight_decay: float = 0.0
    adamw: AdamW = AdamW(lr=2e-3)

    def __post_init__(self) -> None:
        _check(self.lr > 0, f"lr is {self.lr}; it must be positive")
        _check(0 <= self.momentum < 1, f"momentum is {self.momentum}; it must be in [0, 1)")
        _check(self.ns_steps >= 1, f"ns_steps is {self.ns_steps}; it must be at least 1 (5 is usual)")
        _check(self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; it must not be negative")
        _check(self.adamw.weight_decay == 0, "adamw.weight_decay has no effect under muon; set muon's weight_decay")

    def __call__(self, module: nn.Module) -> torch.optim.Optimizer:
        """One optimizer over the module's trainable parameters.

        Raises: ValueError if nothing in the module is trainable.
        """
        from strop.train.muon import BatchedMuon  # a subclass of a torch class cannot be defined lazily

        matrices, others = split_parameters(module)
        muon = {
            "params": matrices,
            "kind": "muon",
            "lr": self.lr,
            "initial_lr": self.lr,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "ns_steps": self.ns_steps,
            "weight_decay": self.weight_decay,
        }
        adamw = {**self.adamw.group(others, 0.0), "kind": "adamw", "fused": True}
        return BatchedMuon([g for g in (muon, adamw) if g["params"]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """1 after the warm-up."""

    name: Literal["constant"] = "constant"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        _check(self.warmup >= 0, f"warmup is {self.warmup}; it must not be negative")

    def __call__(self, step: int, num_steps: int) -> float:
        return _warm(step, _count(self.warmup, num_steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Warm-up, then 1, then a straight line to `final`, which the step after the last would reach.

    Attributes:
        warmup: share of the steps if below 1, else a number of steps. The first step has factor 1 / warmup steps.
        hold: the decay begins after this share (or number) of the steps, warm-up included.
        final: the factor at the end.
    """

    name: Literal["linear"] = "linear"
    warmup: float = 0.0
    hold: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check(self.warmup >= 0, f"warmup is {self.warmup}; it must not be negative")
        _check(self.hold >= 0, f"hold is {self.hold}; it must not be negative")
        _check(0 <= self.final <= 1, f"final is {self.final}; it must be in [0, 1]")

    def __call__(self, step: int, num_steps: int) -> float:
        warmup = _count(self.warmup, num_steps)
        gone = _progress(step, max(warmup, _count(self.hold, num_steps)), num_steps)
        return _warm(step, warmup) * (1.0 - (1.0 - self.final) * gone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """Warm-up, then half a cosine from 1 to `final`, which the step after the last would reach."""

    name: Literal["cosine"] = "cosine"
    warmup: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check(self.warmup >= 0, f"warmup is {self.warmup}; it must not be negative")
        _check(0 <= self.final <= 1, f"final is {self.final}; it must be in [0, 1]")

    def __call__(self, step: int, num_steps: int) -> float:
        warmup = _count(self.warmup, num_steps)
        gone = _progress(step, warmup, num_steps)
        return _warm(step, warmup) * (self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * gone)))


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its initial one times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def split_parameters(module: nn.Module) -> tuple[list[Parameter], list[Parameter]]:
    """The module's trainable parameters as (hidden matrices, the rest), each in module order, tied ones once.

    The rest are embeddings, output heads (of the first embedding's shape, tied or not), single rows or
    columns (scalar heads), and whatever is not two-dimensional.

    Raises: ValueError if nothing is trainable.
    """
    embeddings = [m.weight for m in module.modules() if isinstance(m, torch.nn.Embedding)]
    ids = {id(weight) for weight in embeddings}
    head = embeddings[0].shape if embeddings else None
    matrices: list[Parameter] = []
    others: list[Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and min(parameter.shape) > 1 and parameter.shape != head
            (matrices if hidden and id(parameter) not in ids else others).append(parameter)
    _check(bool(matrices or others), "no parameter of the model is trainable; unfreeze some or add an adapter")
    return matrices, others


def _count(amount: float, num_steps: int) -> int:
    """Steps that a share (below 1) or a number of steps stands for; a share never rounds down to none."""
    return math.ceil(amount * num_steps - 1e-9) if amount < 1 else round(amount)


def _warm(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0


def _progress(step: int, start: int, num_steps: int) -> float:
    """How much of the steps from `start` to the end is behind, in [0, 1]."""
    return min(1.0, max(0, step - start) / max(1, num_steps - start))
