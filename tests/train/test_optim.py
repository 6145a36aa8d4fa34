"""Optimizers and schedules: closed forms, torch's own steps, and state that survives a round trip."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from strop.train.muon import newton_schulz
from strop.train.optim import AdamW, Constant, Cosine, Linear, Muon, set_lr, split_parameters


class Tiny(nn.Module):
    """Embedding, two equal matrices and one transposed, a norm, and a head of the embedding's shape."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.q, self.k = nn.Linear(4, 6), nn.Linear(4, 6, bias=False)
        self.up = nn.Linear(6, 4, bias=False)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 11, bias=False)
        self.score = nn.Linear(4, 1)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.up(torch.tanh(self.q(self.embed(ids)) * self.k(self.embed(ids)))))
        return self.head(hidden).logsumexp(-1).sum() + self.score(hidden).sum()


def steps(optimizer: torch.optim.Optimizer, module: nn.Module, num: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num):
        optimizer.zero_grad()
        module(torch.randint(0, 11, (5,), generator=generator)).backward()
        optimizer.step()


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_split_into_hidden_matrices_and_the_rest(tied: bool) -> None:
    module = Tiny(tied)
    module.k.weight.requires_grad_(False)
    matrices, others = split_parameters(module)
    names = {id(p): name for name, p in module.named_parameters()}
    assert [names[id(p)] for p in matrices] == ["q.weight", "up.weight"]
    rest = ["embed.weight", "q.bias", "norm.weight", "norm.bias"] + ([] if tied else ["head.weight"])
    assert [names[id(p)] for p in others] == [*rest, "score.weight", "score.bias"]


def test_nothing_trainable_is_an_error() -> None:
    module = nn.Linear(2, 2).requires_grad_(False)
    for settings in (AdamW(), Muon()):
        with pytest.raises(ValueError, match="no parameter of the model is trainable"):
            settings(module)


def test_adamw_is_torchs_and_decays_hidden_matrices_only() -> None:
    torch.manual_seed(0)
    ours = Tiny()
    theirs = Tiny()
    theirs.load_state_dict(ours.state_dict())
    decayed = [theirs.q.weight, theirs.k.weight, theirs.up.weight]
    rest = [p for p in theirs.parameters() if not any(p is d for d in decayed)]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.8, 0.9),
        eps=1e-6,
        foreach=False,
    )
    steps(AdamW(lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1)(ours), ours, 5)
    steps(reference, theirs, 5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_first_adamw_step_moves_by_lr_along_the_gradients_sign() -> None:
    p = nn.Linear(3, 1, bias=False)
    before = p.weight.detach().clone()
    optimizer = AdamW(lr=0.25)(p)
    p.weight.grad = torch.tensor([[2.0, -0.5, 7.0]])
    optimizer.step()
    torch.testing.assert_close(p.weight.detach() - before, torch.tensor([[-0.25, 0.25, -0.25]]), rtol=0, atol=1e-6)


def test_muon_without_matrices_is_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.LayerNorm(8), nn.LayerNorm(8)
    a, b = Muon(adamw=AdamW(lr=0.01))(ours), AdamW(lr=0.01)(theirs)
    for _ in range(3):
        x = torch.randn(4, 8)
        for module, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            module(x).pow(3).sum().backward()
            optimizer.step()
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def test_newton_schulz_brings_singular_values_near_one_and_keeps_singular_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 16, 32, generator=generator)
    matrices[1] *= 1e4
    out = newton_schulz(matrices, 5)
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.65 and values.max() < 1.25
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ out @ vt.mT
    off = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < 1e-4
    assert torch.equal(newton_schulz(torch.zeros(1, 2, 3), 5), torch.zeros(1, 2, 3))


def test_a_muon_step_is_lr_times_an_orthogonal_matrix_whatever_the_gradients_scale() -> None:
    for shape, scale in (((8, 8), 1.0), ((24, 6), 2.0), ((6, 24), 1.0)):
        module = nn.Linear(shape[1], shape[0], bias=False)
        before = module.weight.detach().clone()
        optimizer = Muon(lr=0.5)(module)
        module.weight.grad = 1e-3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
        optimizer.step()
        values = torch.linalg.svdvals(module.weight.detach() - before) / 0.5 / scale
        assert values.min() > 0.65 and values.max() < 1.25


def test_muon_is_torchs_to_its_bf16_rounding_and_batching_changes_nothing() -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(
        *[nn.Linear(12, 20, bias=False) if i % 2 == 0 else nn.Linear(20, 12, bias=False) for i in range(4)]
    )
    theirs = nn.Sequential(*[nn.Linear(m.in_features, m.out_features, bias=False) for m in ours])
    theirs.load_state_dict(ours.state_dict())
    a = Muon(lr=0.02, weight_decay=0.1)(ours)
    b = torch.optim.Muon(theirs.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="original")
    start = [p.detach().clone() for p in ours.parameters()]
    for step in range(3):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q, s in zip(ours.parameters(), theirs.parameters(), start, strict=True):
        assert (p - q).norm() < 0.02 * (q - s).norm()


def test_muon_learns_a_matrix_and_its_parameters_without_gradient_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(10, 6, generator=generator)
    module = nn.ModuleDict({"map": nn.Linear(6, 10), "unused": nn.Linear(6, 10)})
    unused = module["unused"].weight.detach().clone()
    optimizer = Muon(lr=0.1)(module)
    losses = []
    for step in range(200):
        set_lr(optimizer, Linear()(step, 200))
        x = torch.randn(32, 6, generator=generator)
        optimizer.zero_grad()
        loss = (module["map"](x) - x @ target.T).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
    assert torch.equal(module["unused"].weight, unused)


@pytest.mark.parametrize("settings", [AdamW(lr=1e-2, weight_decay=0.1), Muon(lr=1e-2, weight_decay=0.1)])
def test_resumed_state_continues_bitwise(settings: AdamW | Muon) -> None:
    torch.manual_seed(0)
    module = Tiny(tied=True)
    optimizer = settings(module)
    steps(optimizer, module, 3)
    saved = {name: value.clone() for name, value in module.state_dict().items()}
    state = copy.deepcopy(optimizer.state_dict())
    other = Tiny(tied=True)
    other.load_state_dict(saved)
    resumed = settings(other)
    resumed.load_state_dict(state)
    steps(optimizer, module, 3, seed=1)
    steps(resumed, other, 3, seed=1)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: AdamW(lr=0.0), "lr is 0.0"),
        (lambda: AdamW(betas=(0.9, 1.0)), "betas"),
        (lambda: Muon(momentum=1.0), "momentum"),
        (lambda: Muon(adamw=AdamW(weight_decay=0.1)), "adamw.weight_decay has no effect"),
        (lambda: Linear(final=2.0), "final is 2.0"),
        (lambda: Cosine(warmup=-1), "warmup is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()  # type: ignore[operator]


def test_schedules_closed_forms() -> None:
    assert [Constant(warmup=4)(t, 10) for t in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [Linear()(t, 4) for t in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [Linear(final=0.5)(t, 4) for t in range(5)] == [1.0, 0.875, 0.75, 0.625, 0.5]
    assert [Linear(hold=0.5, warmup=2)(t, 8) for t in range(9)] == [0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.0]
    assert Cosine()(50, 100) == pytest.approx(0.5)
    assert Cosine(final=0.1)(100, 100) == pytest.approx(0.1)
    assert Cosine(final=0.1)(25, 100) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_a_warmup_share_is_rounded_up_and_a_number_is_taken_as_steps() -> None:
    assert Constant(warmup=0.1)(0, 30) == pytest.approx(1 / 3)
    assert Constant(warmup=0.01)(0, 30) == 1.0
    assert Constant(warmup=0.05)(0, 30) == 0.5
    assert Linear(warmup=20)(9, 1200) == 0.5


@pytest.mark.parametrize("schedule", [Constant(warmup=0.1), Linear(warmup=3, hold=0.4, final=0.1), Cosine(warmup=0.2)])
def test_factors_stay_in_the_unit_interval_rise_then_fall_and_never_stop_learning(schedule: Constant) -> None:
    for num_steps in (1, 2, 7, 100):
        factors = [schedule(t, num_steps) for t in range(num_steps)]
        assert all(0 < f <= 1 for f in factors)
        top = factors.index(max(factors))
        assert factors[:top] == sorted(factors[:top])
        assert factors[top:] == sorted(factors[top:], reverse=True)


def test_set_lr_scales_each_groups_own_rate() -> None:
    optimizer = Muon(lr=0.02, adamw=AdamW(lr=0.004))(Tiny())
    set_lr(optimizer, 0.5)
    set_lr(optimizer, 0.25)
    assert [g["lr"] for g in optimizer.param_groups] == [0.005, 0.001]


def test_settings_import_no_torch() -> None:
    code = "import sys, strop.train.optim as o; o.Muon(); o.Linear()(1, 2); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
