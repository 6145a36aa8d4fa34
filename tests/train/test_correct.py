"""Another sampler's tokens: the policy's own log-probs, the sampler's kept, and weights of the two."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from strop.data.encoded import EncodedGroup
from strop.model.forward import LanguageModel
from strop.model.load import prepare
from strop.rollout.corrections import TokenTIS
from strop.train.annotate import sequence_logprobs
from strop.train.correct import Corrected
from strop.train.crediting import trained_numbers, with_numbers


@pytest.fixture(scope="module")
def model(toys) -> LanguageModel:
    return prepare(toys.stock("Llama"), say=pytest.fail)


def corrected(model: LanguageModel, cap: float = 2.0) -> Corrected:
    return Corrected(model, TokenTIS(cap=cap), temperature=0.7, max_tokens=40, device="cpu")


def rows(model: LanguageModel, groups: list[EncodedGroup]) -> list[np.ndarray]:
    found = sequence_logprobs(model, groups, temperature=0.7, max_tokens=1000, device="cpu")
    return [row for group in found for row in group]


def sampled_by(groups: list[EncodedGroup], logprobs: list[np.ndarray]) -> list[EncodedGroup]:
    return list(with_numbers(groups, "old_logprobs", [row.astype(np.float64) for row in logprobs]))


def test_the_same_policy_gives_weights_of_one(model: LanguageModel, toys) -> None:
    groups = toys.ragged(0, vocab=80, sizes=(2, 3))
    own = rows(model, groups)
    annotation = corrected(model)
    out = annotation(sampled_by(groups, own))
    for name in ("old_logprobs", "sampler_logprobs"):
        for got, want in zip(trained_numbers(out, name), own, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    for weights in trained_numbers(out, "policy_weight"):
        np.testing.assert_allclose(weights, 1.0, atol=1e-5)
    assert annotation.metrics["sampling/ess"] == pytest.approx(1.0, abs=1e-6)
    assert annotation.metrics["sampling/kl"] == pytest.approx(0.0, abs=1e-9)


def test_a_sampler_that_differs_is_weighed_and_its_numbers_are_kept(model: LanguageModel, toys) -> None:
    groups = toys.ragged(1, vocab=80, sizes=(2, 3))
    own = rows(model, groups)
    random = np.random.default_rng(0)
    theirs = [(row + random.normal(0, 1, len(row))).astype(np.float32) for row in own]
    theirs[0][0] = math.nan
    annotation = corrected(model, cap=1.5)
    out = annotation(sampled_by(groups, theirs))
    for got, want in zip(trained_numbers(out, "sampler_logprobs"), theirs, strict=True):
        np.testing.assert_array_equal(got.astype(np.float32), want)
    for weights, mine, other in zip(trained_numbers(out, "policy_weight"), own, theirs, strict=True):
        want = np.where(np.isnan(other), 1.0, np.minimum(np.exp(mine - other), 1.5))
        np.testing.assert_allclose(weights, want, rtol=1e-4)
    assert annotation.metrics["sampling/importance_sampling_ratio/max"] == 1.5
    assert 0.5 < annotation.metrics["sampling/ess"] < 1.0
    assert annotation.metrics["sampling/sampling_logp_difference/mean"] == pytest.approx(0.8, abs=0.2)


def test_old_logprobs_do_not_depend_on_what_the_sampler_said(model: LanguageModel, toys) -> None:
    groups = toys.ragged(2, vocab=80)
    own = rows(model, groups)
    first = corrected(model)(sampled_by(groups, own))
    second = corrected(model)(sampled_by(groups, [row - 1 for row in own]))
    for a, b in zip(trained_numbers(first, "old_logprobs"), trained_numbers(second, "old_logprobs"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not any(p.grad is not None for p in model.module.parameters())
    assert torch.is_grad_enabled()


def test_no_groups_and_untrained_tokens(model: LanguageModel, toys) -> None:
    annotation = corrected(model)
    assert annotation([]) == () and annotation.metrics == {}
    (group,) = toys.ragged(3, vocab=80, num_groups=1)
    group = replace(
        group, sequences=(replace(group.sequences[0], trained=(False,) * (len(group.sequences[0].ids) - 1) + (True,)),)
    )
    (out,) = annotation(sampled_by([group], rows(model, [group])))
    weights = out.sequences[0].columns["policy_weight"]
    assert isinstance(weights, tuple) and all(map(math.isnan, weights[:-1])) and weights[-1] == pytest.approx(1.0)
