"""Columns of a rollout into advantages: where numbers stand, what is measured, and how the KL steers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from strop import dist
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.token_credit import GAE, ReinforcePP, ReinforcePPBaseline, gae, kl_shaped_rewards, whiten
from strop.train.control import AdaptiveKL, FixedKL, KLControl
from strop.train.crediting import BaselineCredit, PPOCredit, ReinforcePPCredit, Values, trained_numbers

GAP = (True, False, False, True, True)
"""A turn of somebody else's inside a completion."""


def sequence(seed: int, trained: Sequence[bool] = (True,) * 4, *, score: float = 1.0, cut: bool = False):
    random = np.random.default_rng(seed)
    length = len(trained)

    def column() -> tuple[float, ...]:
        return tuple(np.where(trained, random.normal(size=length), np.nan).tolist())

    names = ("old_logprobs", "ref_logprobs", "old_values")
    columns = {"rewards": score, **{name: column() for name in names}}
    return EncodedSequence(tuple(range(length)), tuple(trained), columns, truncated=cut)


@pytest.fixture
def groups() -> list[EncodedGroup]:
    """Two prompts, one with two completions; one completion with a gap, one cut off."""
    first = (sequence(0, score=9.0), sequence(1, GAP, score=-0.5, cut=True))
    return [EncodedGroup((5, 6), first), EncodedGroup((7,), (sequence(2, (True,), score=0.25),))]


def credit(control: KLControl | None = None, **settings) -> PPOCredit:
    known = {"gae": GAE(), "reward_clip": 5.0, "missing_eos_penalty": 1.0, **settings}
    return PPOCredit(control=control or KLControl(FixedKL(coefficient=0.1)), **known)


def at(sequence: EncodedSequence, name: str) -> np.ndarray:
    return np.array(sequence.columns[name])[np.array(sequence.trained)]


def test_advantages_and_returns_by_hand(groups) -> None:
    """Clipped score, penalty for the cut one, KL in the reward, GAE over the gap, whitened over all three."""
    annotated = credit()(groups)
    sequences = [s for g in groups for s in g.sequences]
    terminal = [5.0, -0.5 - 1.0, 0.25]
    rewards = [
        kl_shaped_rewards(at(s, "old_logprobs"), at(s, "ref_logprobs"), r, beta=0.1)
        for s, r in zip(sequences, terminal, strict=True)
    ]
    raw = [gae(r, at(s, "old_values"), gamma=1.0, lam=0.95) for r, s in zip(rewards, sequences, strict=True)]
    results = [s for g in annotated for s in g.sequences]
    for got, want in zip(results, whiten(raw), strict=True):
        np.testing.assert_allclose(at(got, "advantages"), want, rtol=1e-12)
    for got, advantage, s in zip(results, raw, sequences, strict=True):
        np.testing.assert_allclose(at(got, "returns"), advantage + at(s, "old_values"), rtol=1e-12)
        assert [math.isnan(x) for x in got.columns["advantages"]] == [not t for t in s.trained]
        assert got.columns["rewards"] == s.columns["rewards"], "the score itself stays"


def test_what_is_measured(groups) -> None:
    annotate = credit()
    annotate(groups)
    sequences = [s for g in groups for s in g.sequences]
    kl = np.mean([(at(s, "old_logprobs") - at(s, "ref_logprobs")).sum() for s in sequences])
    scores = np.mean([5.0, -1.5, 0.25])
    want = {
        "objective/kl": kl,
        "objective/entropy": -np.mean([at(s, "old_logprobs").sum() for s in sequences]),
        "objective/scores": scores,
        "objective/non_score_reward": -0.1 * kl,
        "objective/rlhf_reward": scores - 0.1 * kl,
        "val/num_eos_tokens": 2.0,
        "kl_coef": 0.1,
    }
    assert {k: v for k, v in annotate.metrics.items() if k != "val/explained_variance"} == pytest.approx(want)
    assert annotate.metrics["val/explained_variance"] <= 1


def test_a_critic_that_knows_the_returns_explains_all_and_leaves_nothing(groups) -> None:
    (group,) = [replace(groups[0], sequences=groups[0].sequences[:1])]
    plain = credit(gae=GAE(lam=1.0, whiten=False))([group])
    known = dict(plain[0].sequences[0].columns)
    known["old_values"] = known["returns"]
    annotate = credit(gae=GAE(lam=0.7, whiten=False))
    (again,) = annotate([replace(group, sequences=(replace(group.sequences[0], columns=known),))])
    np.testing.assert_allclose(at(again.sequences[0], "advantages"), np.zeros(4), atol=1e-12)
    assert annotate.metrics["val/explained_variance"] == pytest.approx(1.0)


def test_the_weight_of_this_rollout_is_the_one_before_its_kl_was_known(groups) -> None:
    control = KLControl(AdaptiveKL(coefficient=0.1, target=1.0, horizon=100))
    annotate = credit(control)
    for ours, fixed in zip(*(trained_numbers(c(groups), "returns") for c in (annotate, credit())), strict=True):
        assert ours.tolist() == fixed.tolist()
    assert annotate.metrics["kl_coef"] == 0.1
    error = min(max(annotate.metrics["objective/kl"] / 1.0 - 1, -0.2), 0.2)
    assert control.coefficient == pytest.approx(0.1 * (1 + error * 3 / 100), rel=1e-12)
    annotate(groups)
    assert annotate.metrics["kl_coef"] == pytest.approx(0.1 * (1 + error * 3 / 100), rel=1e-12)


def test_without_a_kl_no_reference_is_read_and_none_is_logged(groups) -> None:
    bare = [
        replace(g, sequences=tuple(
            replace(s, columns={k: v for k, v in s.columns.items() if k != "ref_logprobs"}) for s in g.sequences
        ))
        for g in groups
    ]  # fmt: skip
    annotate = credit(KLControl(FixedKL(coefficient=0.0)))
    annotate(bare)
    assert "objective/kl" not in annotate.metrics
    assert annotate.metrics["objective/rlhf_reward"] == annotate.metrics["objective/scores"]


def test_a_rank_without_groups_takes_part(groups, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for the same sums, and its weight of the KL moves as the others' does."""
    asked: list[int] = []
    monkeypatch.setattr(dist, "sum_numbers", lambda v: asked.append(len(v)) or list(v))
    credit()(groups)
    with_groups, asked = list(asked), []
    monkeypatch.setattr(dist, "sum_numbers", lambda v: asked.append(len(v)) or list(v))
    assert credit()([]) == ()
    assert asked == with_groups


def test_reinforce_pp(groups) -> None:
    annotated = ReinforcePPCredit(ReinforcePP(beta=0.2))(groups)
    sequences = [s for g in groups for s in g.sequences]
    rewards = [
        kl_shaped_rewards(at(s, "old_logprobs"), at(s, "ref_logprobs"), s.columns["rewards"], beta=0.2)
        for s in sequences
    ]
    want = whiten([r[::-1].cumsum()[::-1] for r in rewards])
    for got, row in zip([s for g in annotated for s in g.sequences], want, strict=True):
        np.testing.assert_allclose(at(got, "advantages"), row, rtol=1e-12)


def test_the_baseline_variant_whitens_what_the_group_gave(groups) -> None:
    given = [
        replace(g, sequences=tuple(
            replace(s, columns={"advantages": (0.5 - i,) * len(s.ids)}) for i, s in enumerate(g.sequences)
        ))
        for g in groups
    ]  # fmt: skip
    annotated = BaselineCredit(ReinforcePPBaseline())(given)
    want = whiten([np.full(4, 0.5), np.full(3, -0.5), np.full(1, 0.5)])
    for ours, row in zip(trained_numbers(annotated, "advantages"), want, strict=True):
        np.testing.assert_allclose(ours, row, rtol=1e-12)


def test_a_first_token_without_a_prompt_has_no_credit() -> None:
    bare = [EncodedGroup((), (sequence(3),))]
    (group,) = credit()(bare)
    assert [math.isnan(x) for x in group.sequences[0].columns["advantages"]] == [True, False, False, False]


def test_values_stand_at_the_tokens_they_were_asked_for(toys) -> None:
    """A critic that says each token's own id: packed, split and written back, every id is where it was."""
    ragged = toys.ragged(0, sizes=(1, 3, 2))
    annotated = Values(lambda batch: batch.target.double(), max_tokens=20, device="cpu")(ragged)
    for group, row in zip(annotated, ragged, strict=True):
        for sequence, given in zip(group.sequences, row.sequences, strict=True):
            predicted = [t and (i > 0 or bool(row.prompt_ids)) for i, t in enumerate(given.trained)]
            want = [float(i) if p else math.nan for i, p in zip(given.ids, predicted, strict=True)]
            np.testing.assert_array_equal(sequence.columns["old_values"], want)
    assert Values(lambda batch: batch.target, max_tokens=20, device="cpu")([]) == ()


def test_reinforce_pp_logs_the_kl_that_it_takes_off_the_reward(groups) -> None:
    annotate = ReinforcePPCredit(ReinforcePP(beta=0.2))
    annotate(groups)
    sequences = [s for g in groups for s in g.sequences]
    kl = np.mean([(at(s, "old_logprobs") - at(s, "ref_logprobs")).sum() for s in sequences])
    score = np.mean([9.0, -0.5, 0.25])
    want = {"objective/kl": kl, "objective/non_score_reward": -0.2 * kl, "objective/rlhf_reward": score - 0.2 * kl}
    assert annotate.metrics == pytest.approx(want)
    plain = ReinforcePPCredit(ReinforcePP(beta=0.0))
    plain(groups)
    assert plain.metrics == {}


def test_the_reward_that_is_logged_has_the_steps_rewards_in_it(groups) -> None:
    dense = [
        replace(g, sequences=tuple(
            replace(s, columns={**s.columns, "step_rewards": (0.5,) * len(s.ids)}) for s in g.sequences
        ))
        for g in groups
    ]  # fmt: skip
    plain, annotate = credit(), credit()
    plain(groups)
    annotate(dense)
    more = 0.5 * (4 + 3 + 1) / 3
    assert annotate.metrics["objective/rlhf_reward"] == pytest.approx(plain.metrics["objective/rlhf_reward"] + more)
    assert annotate.metrics["objective/scores"] == plain.metrics["objective/scores"]
