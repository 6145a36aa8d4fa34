"""Inverse-CDF draws: the exact map from a uniform number to a token, its log-prob, and truncation."""

import numpy as np
import pytest
import torch

from strop.rollout.draw import draw, search, truncated, uniforms

LARGEST = float(np.nextafter(1.0, 0.0))


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("size", [3, 5, 16, 100, 257, 1000])
def test_search_finds_the_first_token_whose_cumulative_weight_exceeds_u(size):
    weights = torch.rand(2, size, generator=torch.Generator().manual_seed(size)) + 0.01
    cumulative = weights.double().cumsum(-1) / weights.double().sum(-1, keepdim=True)
    owner = torch.arange(2).repeat_interleave(size)
    middle = (cumulative - weights.double() / weights.double().sum(-1, keepdim=True) / 2).flatten()
    assert search(weights, middle, owner).tolist() == list(range(size)) * 2


def test_a_token_of_probability_zero_is_never_drawn():
    weights = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]])
    u = numbers(0.0, 0.4999999, 0.5, 0.5000001, LARGEST, 1.0)
    assert search(weights, u, torch.zeros(6, dtype=torch.long)).tolist() == [1, 1, 5, 5, 5, 5]


@pytest.mark.parametrize("size", [2, 7, 300, 4099])
def test_the_edges_of_u_stay_inside_the_vocabulary(size):
    weights = torch.rand(64, size, generator=torch.Generator().manual_seed(1))
    weights[:, 0] = weights[:, -1] = 0
    weights[:, size // 2] = 1
    nonzero = weights > 0
    for u in (0.0, LARGEST, 1.0):
        token = search(weights, torch.full((64,), u, dtype=torch.float64), torch.arange(64))
        assert bool(nonzero[torch.arange(64), token].all())
        expected = nonzero.int().argmax(-1) if u == 0 else size - 1 - nonzero.flip(-1).int().argmax(-1)
        assert token.tolist() == expected.tolist()


def test_draws_follow_the_distribution():
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.0, 1.0, -3.0, 0.5]])
    u = torch.from_numpy(uniforms(0, 0, 0, 20_000))
    tokens, _ = draw(logits.clone(), u, temperature=0.7, owner=torch.zeros(20_000, dtype=torch.long))
    expected = (logits[0] / 0.7).softmax(-1).double() * 20_000
    chi_square = ((torch.bincount(tokens, minlength=7) - expected) ** 2 / expected).sum()
    assert chi_square < 22.46  # 0.999 quantile, 6 degrees of freedom


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_logprobs_are_those_of_the_tempered_distribution_before_truncation(temperature):
    logits = 3 * torch.randn(5, 1001, generator=torch.Generator().manual_seed(0))
    u = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for top_k, top_p in ((None, None), (10, None), (None, 0.5), (20, 0.9)):
        tokens, logprobs = draw(logits.clone(), u, temperature=temperature, top_k=top_k, top_p=top_p)
        reference = (logits.double() / temperature).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        assert logprobs.dtype == torch.float32
        torch.testing.assert_close(logprobs.double(), reference, atol=2e-6, rtol=0)


def test_temperature_zero_takes_the_largest_logit_at_temperature_one():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 0.0]])
    tokens, logprobs = draw(logits.clone(), numbers(0.0, 0.0), temperature=0)
    assert tokens.tolist() == [1, 0]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).max(-1).values)


def test_top_k_then_top_p_keep_the_likeliest():
    weights = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    assert (truncated(weights, 2, None) > 0).tolist() == [[False, True, False, True]]
    assert (truncated(weights, None, 0.69) > 0).tolist() == [[False, True, False, True]]
    assert (truncated(weights, None, 0.71) > 0).tolist() == [[False, True, True, True]]
    assert (truncated(weights, 2, 0.5) > 0).tolist() == [[False, True, False, False]]  # 0.4 of 0.7 is above a half
    assert (truncated(weights, None, 1e-9) > 0).tolist() == [[False, True, False, False]]


def test_one_row_of_logits_serves_many_draws():
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    u = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    owner = torch.tensor([0, 1, 1, 0, 1, 0])
    shared = draw(logits.clone(), u, temperature=1.0, owner=owner)
    alone = draw(logits[owner], u, temperature=1.0)
    assert shared[0].tolist() == alone[0].tolist() and shared[1].tolist() == alone[1].tolist()


def test_uniforms_depend_on_seed_step_and_index_only():
    first = uniforms(1, 2, 3, 8)
    assert (uniforms(1, 2, 3, 100)[:8] == first).all()
    others = [uniforms(*key, 8) for key in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (-1, 2, 3))]
    assert all((other != first).all() for other in others)
    assert all(((u >= 0) & (u < 1)).all() for u in others)


def test_logits_that_are_not_finite_are_refused():
    for temperature in (0, 1.0):
        with pytest.raises(ValueError, match="not finite"):
            draw(torch.tensor([[0.0, float("nan")]]), numbers(0.5), temperature=temperature)
