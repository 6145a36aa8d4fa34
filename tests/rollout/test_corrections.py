"""Weights for another sampler: closed forms, what a missing log-prob means, and the figures that are logged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strop.rollout.corrections import IcePop, SequenceMask, SequenceProduct, TokenTIS, log_ratios, mismatch_metrics

ALL = (TokenTIS(), IcePop(), SequenceMask(), SequenceProduct())
every = pytest.mark.parametrize("correction", ALL, ids=lambda c: c.name)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def of_ratios(*ratios: float) -> tuple[np.ndarray, np.ndarray]:
    """Old and sampled log-probs whose w are these."""
    sampled = array(*(-1.0 - 0.1 * i for i in range(len(ratios))))
    return sampled + np.log(np.array(ratios)).astype(np.float32), sampled


@every
def test_where_nothing_differs_every_weight_is_exactly_one(correction) -> None:
    logprobs = array(-0.5, -3.0, -1e-3, -17.0)
    assert correction(logprobs, logprobs).tolist() == [1.0] * 4


@every
def test_a_missing_logprob_counts_as_no_difference(correction) -> None:
    assert correction(array(-1.0, -2.0), array(math.nan, -2.0)).tolist() == [1.0, 1.0]
    with_nan = correction(
        *(np.append(a, b).astype(np.float32) for a, b in zip(of_ratios(1.2, 1.5), (-3.0, math.nan), strict=True))
    )
    if isinstance(correction, TokenTIS | IcePop | SequenceMask):
        assert with_nan.tolist() == pytest.approx([1.2, 1.5, 1.0], rel=1e-5)
    else:
        assert with_nan.tolist() == pytest.approx([1.8] * 3, rel=1e-5)


@every
def test_finite_far_away_and_for_no_tokens(correction) -> None:
    assert np.isfinite(correction(array(-1e4, 0.0), array(0.0, -1e4))).all()
    assert np.isfinite(correction(array(0.0, 0.0), array(-1e4, -1e4))).all()
    assert len(correction(array(), array())) == 0


def test_token_tis_truncates_from_above_only() -> None:
    assert TokenTIS()(*of_ratios(0.01, 0.9, 1.9, 2.1, 50)).tolist() == pytest.approx([0.01, 0.9, 1.9, 2, 2], rel=1e-5)
    assert TokenTIS(cap=1.0)(*of_ratios(0.5, 3.0)).tolist() == pytest.approx([0.5, 1.0], rel=1e-5)


def test_icepop_leaves_out_what_is_outside_the_band() -> None:
    assert IcePop()(*of_ratios(0.49, 0.51, 1, 4.9, 5.1)).tolist() == pytest.approx([0, 0.51, 1, 4.9, 0], rel=1e-5)


def test_sequence_mask_judges_the_geometric_mean_and_keeps_the_tokens_own_ratios() -> None:
    mask = SequenceMask(low=0.8, high=1.25)
    assert mask(*of_ratios(4.0, 0.25)).tolist() == pytest.approx([4.0, 0.25], rel=1e-5)
    assert mask(*of_ratios(4.0, 0.5)).tolist() == [0.0, 0.0]  # sqrt 2
    assert mask(*of_ratios(0.5, 0.5)).tolist() == [0.0, 0.0]


def test_the_product_grows_with_length_and_the_geometric_mean_does_not() -> None:
    few, many = of_ratios(*[1.1] * 11), of_ratios(*[1.1] * 12)  # 2.85 and 3.14
    assert SequenceProduct()(*few).tolist() == pytest.approx([1.1**11] * 11, rel=1e-4)
    assert SequenceProduct()(*many).tolist() == [0.0] * 12
    assert SequenceMask()(*many).tolist() == pytest.approx([1.1] * 12, rel=1e-4)
    assert SequenceProduct()(*of_ratios(*[0.5] * 4)).tolist() == pytest.approx([0.5**4] * 4, rel=1e-4)


def test_importance_weights_are_unbiased_before_they_are_tamed() -> None:
    """E_mu[w f] = E_pi[f] for any f of the token, as a finite sum."""
    rng = np.random.default_rng(0)
    mu, pi, f = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6)), rng.normal(size=6)
    w = np.exp(log_ratios(np.log(pi), np.log(mu)))
    assert (mu * w * f).sum() == pytest.approx((pi * f).sum(), rel=1e-12)
    assert (mu * w).sum() == pytest.approx(1.0, rel=1e-12)


def test_metrics_by_hand() -> None:
    old, sampled = of_ratios(1.0, 2.0, 0.5)
    more = (array(-1.0, -2.0), array(-1.5, math.nan))
    weights = [TokenTIS(cap=1.5)(old, sampled), TokenTIS(cap=1.5)(*more)]
    w = [1.0, 1.5, 0.5, 1.5, 1.0]
    d = [0.0, math.log(2), -math.log(2), 0.5]
    want = {
        "sampling/importance_sampling_ratio/min": 0.5,
        "sampling/importance_sampling_ratio/mean": sum(w) / 5,
        "sampling/importance_sampling_ratio/max": 1.5,
        "sampling/ess": sum(w) ** 2 / (5 * sum(x * x for x in w)),
        "sampling/sampling_logp_difference/mean": sum(map(abs, d)) / 4,
        "sampling/sampling_logp_difference/max": math.log(2),
        "sampling/kl": sum(math.exp(x) - x - 1 for x in d) / 4,
    }
    assert mismatch_metrics([old, more[0]], [sampled, more[1]], weights) == pytest.approx(want, rel=1e-5)


def test_metrics_where_nothing_differs_where_all_is_masked_and_without_tokens() -> None:
    same = array(-1.0, -2.0)
    metrics = mismatch_metrics([same], [same], [TokenTIS()(same, same)])
    assert metrics["sampling/ess"] == 1 and metrics["sampling/kl"] == 0
    assert metrics["sampling/importance_sampling_ratio/mean"] == 1
    assert mismatch_metrics([same], [same], [np.zeros(2, np.float32)])["sampling/ess"] == 0
    assert mismatch_metrics([], [], []) == {}
    blind = mismatch_metrics([same], [same * math.nan], [np.ones(2, np.float32)])
    assert "sampling/kl" not in blind and blind["sampling/ess"] == 1


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: TokenTIS(cap=0.5), "cap must be at least 1.*got 0.5"),
        (lambda: SequenceProduct(cap=0.9), "cap must be at least 1.*got 0.9"),
        (lambda: IcePop(low=1.1), "must enclose 1.*got 1.1, 5.0"),
        (lambda: SequenceMask(high=0.9), "must enclose 1.*got 0.5, 0.9"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
