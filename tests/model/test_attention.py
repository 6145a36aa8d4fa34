"""The three realisations of one rule: who sees whom, and that cascade and mask give the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from strop.batch import Batch
from strop.model import attention
from strop.model.attention import Plan, attend, plan, reading
from strop.model.forward import forward
from strop.model.load import prepare


def by_hand(batch: Batch, window: int | None) -> Tensor:
    """[P, P] True where a token sees another: earlier in its own segment, or anywhere in an ancestor."""
    layout = batch.layout
    owner = [i for i, length in enumerate(layout.length) for _ in range(length)]
    paths = [set(layout.path(i)) for i in range(len(layout.start))]
    at = batch.position_ids.tolist()

    def sees(row: int, column: int) -> bool:
        if window is not None and at[row] - at[column] >= window:
            return False
        return column <= row if owner[row] == owner[column] else owner[column] in paths[owner[row]]

    return torch.tensor([[sees(row, column) for column in range(len(at))] for row in range(len(at))])


@pytest.fixture
def planned(batch: Batch) -> Plan:
    return plan(batch.layout, batch.position_ids)


@pytest.mark.parametrize("window", [None, 8, 60])
def test_the_tree_masks_are_the_rule(window: int | None, batch: Batch, planned: Plan) -> None:
    mask = torch.zeros(len(planned.seen_until), len(planned.seen_until), dtype=torch.bool)
    for start, end in planned.trees:
        mask[start:end, start:end] = attention._tree_mask(planned, start, end, window)
    assert torch.equal(mask, by_hand(batch, window))


@pytest.mark.parametrize("window", [None, 8, 60])
def test_the_block_mask_is_the_rule(window: int | None, batch: Batch, planned: Plan) -> None:
    blocks = attention.block_mask(planned, window)
    size = len(planned.seen_until)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    nothing = torch.zeros_like(row)
    want = by_hand(batch, window)
    assert torch.equal(blocks.mask_mod(nothing, nothing, row, column), want)
    # A block is skipped only where no token in it is seen.
    visited = blocks.to_dense()[0, 0].bool()
    edge = blocks.BLOCK_SIZE[0]
    for i in range(visited.shape[0]):
        for j in range(visited.shape[1]):
            here = want[i * edge : (i + 1) * edge, j * edge : (j + 1) * edge]
            assert bool(visited[i, j]) == bool(here.any())


def test_the_pieces_of_the_cascade_cover_the_rule_once(batch: Batch, planned: Plan) -> None:
    seen = torch.zeros(len(planned.seen_until), len(planned.seen_until), dtype=torch.int)
    for piece in planned.own:
        assert piece.causal
        size = piece.q1 - piece.q0
        seen[piece.q0 : piece.q1, piece.k0 : piece.k1] += torch.ones(size, size, dtype=torch.int).tril()
    for piece in planned.over:
        assert not piece.causal and piece.q1 > piece.q0
        seen[piece.q0 : piece.q1, piece.k0 : piece.k1] += 1
    assert torch.equal(seen, by_hand(batch, None).int())


READ = {
    "the last of each leaf": lambda batch: batch.last.unique().tolist(),
    "the predictors": lambda batch: batch.predictor.unique().tolist(),
    "one": lambda batch: [60],
    "all": lambda batch: list(range(batch.input_ids.shape[0])),
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("block", [192, 20])
def test_the_pieces_of_some_rows_cover_the_rule_once(
    name: str, block: int, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BLOCK", block)
    rows = READ[name](batch)
    planned = plan(batch.layout, batch.position_ids)
    seen = torch.zeros(len(planned.seen_until), len(planned.seen_until), dtype=torch.int)
    merged = torch.zeros(len(seen), dtype=torch.bool)
    for piece in reading(planned, rows):
        size = torch.ones(piece.q1 - piece.q0, piece.k1 - piece.k0, dtype=torch.int)
        seen[piece.q0 : piece.q1, piece.k0 : piece.k1] += size.tril() if piece.causal else size
        assert not (piece.causal and merged[piece.q0 : piece.q1].any()), "a causal piece overwrites, so it comes first"
        merged[piece.q0 : piece.q1] = True
    assert torch.equal(seen[rows], by_hand(batch, None).int()[rows])


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
def test_attention_of_some_rows_is_the_formula(
    name: str, heads: int, kv_heads: int, batch: Batch, planned: Plan
) -> None:
    rows = READ[name](batch)
    tensors = inputs(batch.input_ids.shape[0], heads, kv_heads)
    module = torch.nn.Identity()
    module.strop_rows = torch.tensor(rows)
    got = attend(module, *tensors, strop_plan=planned)[0][:, rows]
    want = dense(*tensors, by_hand(batch, None), 0.25)[:, rows]
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-6)
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad((got.double() * weights).sum(), tensors)
    theirs = torch.autograd.grad((want * weights).sum(), tensors)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


def test_plan_knows_its_longest_path(batch: Batch, planned: Plan) -> None:
    longest = max(
        sum(batch.layout.length[i] for i in batch.layout.path(leaf)) for leaf in range(len(batch.layout.start))
    )
    assert planned.longest == longest
    assert [start for start, _ in planned.trees] == [
        start for start, parent in zip(batch.layout.start, batch.layout.parent, strict=True) if parent < 0
    ]
    ends = [end for _, end in planned.trees]
    assert [0, *ends[:-1]] == [start for start, _ in planned.trees] and ends[-1] == batch.input_ids.shape[0]


def inputs(size: int, heads: int, kv_heads: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, h, size, 16, generator=generator).to(dtype).requires_grad_() for h in (heads, kv_heads, kv_heads)
    ]


def dense(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention as the formula has it, every score written out, float64."""
    repeat = query.shape[1] // key.shape[1]
    key, value = (x.double().repeat_interleave(repeat, 1) for x in (key, value))
    scores = (query.double() @ key.transpose(-1, -2)) * scale
    return (scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("scale", [None, 0.4])
def test_attention_is_the_formula(
    heads: int, kv_heads: int, window: int | None, scale: float | None, batch: Batch, planned: Plan
) -> None:
    tensors = inputs(batch.input_ids.shape[0], heads, kv_heads)
    got, _ = attend(torch.nn.Identity(), *tensors, strop_plan=planned, scaling=scale, sliding_window=window)
    want = dense(*tensors, by_hand(batch, window), 0.25 if scale is None else scale)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-6)
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad((got.double() * weights).sum(), tensors)
    theirs = torch.autograd.grad((want * weights).sum(), tensors)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


def test_scores_far_apart_merge_without_overflow(batch: Batch, planned: Plan) -> None:
    """Scores of hundreds: exp overflows fp32 at 88, a log-sum-exp does not."""
    tensors = [x.detach() * 30 for x in inputs(batch.input_ids.shape[0], 4, 2)]
    got, _ = attend(torch.nn.Identity(), *tensors, strop_plan=planned)
    want = dense(*tensors, by_hand(batch, None), 0.25)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-2)


def test_bf16_attention_is_near(batch: Batch, planned: Plan) -> None:
    tensors = inputs(batch.input_ids.shape[0], 4, 2, torch.bfloat16)
    got, _ = attend(torch.nn.Identity(), *tensors, strop_plan=planned)
    want = dense(*tensors, by_hand(batch, None), 0.25)
    assert got.dtype == torch.bfloat16 and float((got.double() - want).detach().abs().max()) < 0.05


@pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
def test_without_the_private_kernel_the_numbers_are_the_same(
    kind: str, batch: Batch, toys, gradients_of, agree, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attention.cascade_works(), "this torch has the CPU kernel; the fallback is not what is measured here"
    model = prepare(toys.stock(kind), say=pytest.fail)
    fast = forward(model, batch).logprobs
    want = gradients_of(model.module, fast)
    masked = []
    original = attention._masked
    monkeypatch.setattr(attention, "cascade_works", lambda: False)
    monkeypatch.setattr(attention, "_masked", lambda *a: masked.append(1) or original(*a))
    slow = forward(model, batch).logprobs
    assert len(masked) == 2
    torch.testing.assert_close(slow, fast, rtol=0, atol=1e-5)
    agree(gradients_of(model.module, slow), want, 1e-4)


def test_a_missing_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is gone, and one that gives other numbers."""

    def gone(*_: object, **__: object) -> None:
        raise AttributeError("no such operator")

    def wrong(query: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(query), torch.zeros(query.shape[:-1])

    for kernel in (gone, wrong):
        monkeypatch.setattr(attention, "_flash", kernel)
        attention.cascade_works.cache_clear()
        assert not attention.cascade_works()
    monkeypatch.undo()
    attention.cascade_works.cache_clear()
    assert attention.cascade_works()


@pytest.mark.parametrize(
    "asked", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}, {"dropout": 0.1}, {"strop_plan": None}], ids=str
)
def test_what_it_cannot_do_is_refused(asked: dict[str, object], batch: Batch, planned: Plan) -> None:
    tensors = inputs(batch.input_ids.shape[0], 4, 2)
    with pytest.raises(NotImplementedError, match="no soft-capping, sinks or dropout"):
        attend(torch.nn.Identity(), *tensors, **{"strop_plan": planned, **asked})


def test_a_window_longer_than_every_path_costs_no_mask(batch: Batch, planned: Plan) -> None:
    tensors = inputs(batch.input_ids.shape[0], 4, 2)
    attend(torch.nn.Identity(), *tensors, strop_plan=planned, sliding_window=planned.longest)
    assert planned.masks == {}
    attend(torch.nn.Identity(), *tensors, strop_plan=planned, sliding_window=planned.longest - 1)
    assert set(planned.masks) == {planned.longest - 1}
