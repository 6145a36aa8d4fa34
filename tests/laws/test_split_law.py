"""The law: any micro-batching, any packing, any order, any number of ranks -- the same gradient.

Every name in `strop.objectives.__all__` takes part; settings beyond the defaults stand in VARIANTS.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import strop.objectives
from strop import dist
from strop.batch import Outputs, step_totals, weighted_loss
from strop.data import pack as packing
from strop.data.pack import pack
from strop.model.forward import forward
from strop.model.load import prepare
from strop.train.metrics import MetricSums

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "DPO": [
        {},
        {"beta": 0.5, "label_smoothing": 0.2},
        {"nll_weight": 0.3},
        {"nll_weight": 0.2, "mask_formatting": True},
        {"soft_labels": True, "margin": True, "label_smoothing": 0.1},
    ],
    "DPOP": [{"penalty": 2.0}, {"nll_weight": 0.3}],
    "CPO": [{}, {"nll_weight": 0.0}],
    "KTO": [{}, {"desirable_weight": 1.5, "undesirable_weight": 0.7}],
    "Hinge": [{"beta": 0.3}, {"nll_weight": 0.3}],
    "IPO": [{}, {"nll_weight": 0.3}],
    "IPOSum": [{}, {"nll_weight": 0.3}],
    "SFT": [{}, {"average": "sequence"}],
    "PPO": [{}, {"dual_clip": 3.0}, {"entropy_bonus": 0.1}],
    "ClippedValue": [{}, {"clip": None}],
    "ProcessLoss": [{}, {"right_weight": 0.5, "wrong_weight": 3.0}],
    "ImplicitPRM": [{"beta": 0.3}],
    "BradleyTerry": [
        {},
        {"label_smoothing": 0.0, "center_rewards_coefficient": 0.0},
        {"margin": True, "soft_labels": True, "scale_penalty": 0.1, "confidence_penalty": 0.1},
    ],
    "GRPO": [
        {},
        {"aggregate": "sequence"},
        {"aggregate": "constant", "constant_length": 7.0},
        *({"beta": 0.1, "kl": kind, "aggregate": "sequence"} for kind in ("k1", "k2", "k3", "ratio_k1", "ratio_k3")),
        {"delta": 1.5, "weighted": True, "beta": 0.1},
        {"off_policy_delta": 0.5},
        {"off_policy_delta": 1.0, "weighted": True, "clip_low": 0.9, "clip_high": 9.0},
    ],
    # Random old log-probs lie far away: the papers' narrow clips would leave hardly any gradient.
    "GSPO": [{"clip_low": 0.9, "clip_high": 9.0}, {"clip_high": 9.0, "beta": 0.1, "weighted": True}],
    "GSPOToken": [{"clip_low": 0.9, "clip_high": 9.0}, {"clip_high": 9.0, "beta": 0.1, "weighted": True}],
    "RLOO": [{"clip_low": 0.9, "clip_high": 99.0}, {"clip_low": 0.9, "clip_high": 99.0, "weighted": True}],
    "CISPO": [{}, {"cap": 1.5, "beta": 0.1, "weighted": True, "off_policy_delta": 0.5}],
    "DPPO": [{}, {"tau": 0.1, "weighted": True}],
}

CLASSES = [name for name in strop.objectives.__all__ if dataclasses.is_dataclass(getattr(strop.objectives, name))]
OBJECTIVES = [getattr(strop.objectives, name)(**settings) for name in CLASSES for settings in VARIANTS.get(name, [{}])]


def label(objective: Any) -> str:
    """The class and what differs from its defaults."""
    differs = [
        f"{f.name}={getattr(objective, f.name)}"
        for f in dataclasses.fields(objective)
        if getattr(objective, f.name) != f.default
    ]
    return "-".join([type(objective).__name__, *differs])


every_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=label)


def splittable(objective: Any) -> bool:
    return all(reduction.unit != "group" for reduction in objective.reductions)


def assert_same(got: tuple[float, list[torch.Tensor]], want: tuple[float, list[torch.Tensor]]) -> None:
    assert got[0] == pytest.approx(want[0], rel=1e-12, abs=1e-12)
    for ours, theirs in zip(got[1], want[1], strict=True):
        assert float(theirs.abs().max()) > 1e-3, "the whole step has no gradient: nothing is compared"
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12 * float(theirs.abs().max()))


def test_every_objective_takes_part() -> None:
    """An objective that is defined but not listed would escape the law."""
    defined = set()
    for file in pkgutil.iter_modules(strop.objectives.__path__, "strop.objectives."):
        module = importlib.import_module(file.name)
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == file.name and hasattr(value, "reductions"):
                defined.add(name)
    assert defined == set(CLASSES), "every objective stands in strop.objectives.__all__"
    assert set(VARIANTS) <= set(CLASSES), "VARIANTS names what is gone"


@every_objective
@pytest.mark.parametrize("max_tokens", [1, 25, 60])
def test_micro_batches(objective: Any, max_tokens: int, toys) -> None:
    groups, model = toys.step_of(objective), toys.toy_model()
    whole = pack(groups, max_tokens=1 << 30).batches
    split = pack(groups, max_tokens=max_tokens).batches
    assert len(whole) == 1 and len(split) > 1
    assert_same(toys.gradients(model, objective, split), toys.gradients(model, objective, whole))


@every_objective
def test_order_of_groups(objective: Any, toys) -> None:
    groups, model = toys.step_of(objective, seed=3), toys.toy_model()
    want = toys.gradients(model, objective, pack(groups, max_tokens=1 << 30).batches)
    for seed in range(3):
        shuffled = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
        assert_same(toys.gradients(model, objective, pack(shuffled, max_tokens=40).batches), want)


@every_objective
def test_micro_batches_in_any_order(objective: Any, toys) -> None:
    groups, model = toys.step_of(objective, seed=4), toys.toy_model()
    batches = pack(groups, max_tokens=25).batches
    assert_same(toys.gradients(model, objective, batches[::-1]), toys.gradients(model, objective, batches))


@every_objective
def test_sharing_of_prefixes(objective: Any, toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions that go on sharing tokens, as one segment or each on its own."""
    groups, model = toys.step_of(objective, seed=5), toys.toy_model()
    apart = toys.one_batch(groups)
    monkeypatch.setattr(packing, "MIN_SHARED", 2)
    shared = toys.one_batch(groups)
    assert shared.input_ids.shape < apart.input_ids.shape
    assert_same(toys.gradients(model, objective, [shared]), toys.gradients(model, objective, [apart]))


@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if splittable(o)], ids=label)
@pytest.mark.parametrize("max_tokens", [1, 12])
def test_groups_split_over_micro_batches(objective: Any, max_tokens: int, toys) -> None:
    groups, model = toys.step_of(objective, seed=6), toys.toy_model()
    split = pack(groups, max_tokens=max_tokens, splittable=True).batches
    assert sum(batch.num_groups for batch in split) > len(groups)
    assert_same(toys.gradients(model, objective, split), toys.gradients(model, objective, [toys.one_batch(groups)]))


@every_objective
@pytest.mark.parametrize("num_ranks", [2, 4, 7])
def test_ranks(objective: Any, num_ranks: int, toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are summed over ranks; the totals are, too. Seven ranks leave two of them with nothing."""
    groups, model = toys.step_of(objective, seed=7), toys.toy_model()
    want = toys.gradients(model, objective, [toys.one_batch(groups)])
    shares = [pack(part, max_tokens=30).batches if (part := groups[r::num_ranks]) else () for r in range(num_ranks)]
    local: list[Sequence[float]] = []
    monkeypatch.setattr(dist, "sum_numbers", lambda values: local.append(list(values)) or list(values))
    for share in shares:
        step_totals(objective.reductions, share)
    monkeypatch.setattr(dist, "sum_numbers", lambda values: [sum(column) for column in zip(*local, strict=True)])
    totals = step_totals(objective.reductions, shares[0])
    parts = [toys.gradients(model, objective, share, totals) for share in shares]
    summed = (sum(loss for loss, _ in parts), [sum(g) for g in zip(*(grads for _, grads in parts), strict=True)])
    assert_same(summed, want)


@every_objective
def test_metrics_are_the_same_means(objective: Any, toys) -> None:
    """As (sum, count) over micro-batches, never as a mean of means."""
    groups, model = toys.step_of(objective, seed=8), toys.toy_model()
    results = []
    for max_tokens in (1 << 30, 25):
        sums = MetricSums()
        for batch in pack(groups, max_tokens=max_tokens).batches:
            for name, values in objective(model(batch), batch).metrics.items():
                sums.add(name, values)
        results.append(sums.result())
    assert results[0].keys() == results[1].keys() and len(results[0]) >= 2
    assert results[0] == pytest.approx(results[1], rel=1e-12)


@every_objective
def test_untrained_tokens_change_nothing(objective: Any, toys) -> None:
    """A last token that is not trained is neither an input nor a target: any token there gives the same gradient."""
    random = np.random.default_rng(9)
    groups, model = toys.step_of(objective, seed=9), toys.toy_model()

    def tail(sequence: Any) -> Any:
        columns = {n: (*c, 123.0) if isinstance(c, tuple) else c for n, c in sequence.columns.items()}
        return dataclasses.replace(
            sequence, ids=(*sequence.ids, int(random.integers(toys.VOCAB))), trained=(*sequence.trained, False),
            columns=columns,
        )  # fmt: skip

    longer = [dataclasses.replace(g, sequences=tuple(tail(s) for s in g.sequences)) for g in groups]
    want = toys.gradients(model, objective, [toys.one_batch(groups)])
    assert_same(toys.gradients(model, objective, [toys.one_batch(longer)]), want)


@every_objective
def test_only_trained_tokens_logits_get_a_gradient(objective: Any, toys) -> None:
    """Per-position logits as parameters: the loss reaches exactly the predictors of trained tokens."""
    groups = toys.step_of(objective, seed=10)
    batch = toys.one_batch(groups)
    logits = torch.randn(
        batch.input_ids.shape[0], toys.VOCAB, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()
    at_target = logits.log_softmax(-1)[batch.predictor].gather(-1, batch.target[:, None])[:, 0]
    ends = batch.predictor[torch.bincount(batch.seq).cumsum(0) - 1]
    outputs = Outputs(at_target, values=logits[batch.predictor, 0], scores=logits[ends, 0])
    losses = objective(outputs, batch).losses
    (gradient,) = torch.autograd.grad(sum(loss.sum() for loss in losses), logits)
    touched = set(gradient.abs().sum(-1).nonzero()[:, 0].tolist())
    trained = sum(sum(s.trained) - (not g.prompt_ids and s.trained[0]) for g in groups for s in g.sequences)
    assert batch.num_tokens == trained
    may = set((ends if "scores" in objective.wants else batch.predictor).tolist())
    assert touched <= may and len(touched) >= 0.5 * len(may)
    assert touched < set(range(len(gradient)))


REAL = [o for o in OBJECTIVES if label(o) in ("SFT", "DPO-nll_weight=0.3", "GRPO-aggregate=sequence", "IPO")]


@pytest.mark.parametrize("objective", REAL, ids=label)
def test_the_real_forward(objective: Any, toys) -> None:
    """A tiny Qwen3 in fp32, packed: one micro-batch, several, and split groups, to 1e-5 of the largest entry."""
    model = prepare(toys.stock("Qwen3"), say=pytest.fail)
    groups = toys.step_of(objective, seed=11)

    def gradient(batches: Sequence[Any]) -> list[torch.Tensor]:
        totals = step_totals(objective.reductions, batches)
        for batch in batches:
            terms = objective(forward(model, batch, wants=objective.wants), batch)
            weighted_loss(terms, batch, objective.reductions, totals).backward()
        grads = [p.grad for p in model.module.parameters()]
        model.module.zero_grad(set_to_none=True)
        return grads

    want = gradient([toys.one_batch(groups)])
    for settings in ({"max_tokens": 1}, {"max_tokens": 30}, {"max_tokens": 12, "splittable": splittable(objective)}):
        for ours, theirs in zip(gradient(pack(groups, **settings).batches), want, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
