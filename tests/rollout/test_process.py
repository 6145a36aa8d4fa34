"""Credit where steps end: token by token, and the outcome's credit where there is one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from strop.credit import GroupRelative, ProcessRelative, group_relative
from strop.rollout.process import StepCredited, StepRewards, StepScored, step_metrics
from strop.rollout.select import Credited
from strop.types import Completion, Group


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(i) for i in ids if i)


def sampled(
    steps: Sequence[str], scores: Sequence[float | None], score: float | None = 0.0, cut: bool = False
) -> Completion:
    """A completion whose characters are its tokens, with an end token behind them."""
    ids = (*map(ord, "".join(steps)), *(() if cut else (0,)))
    finish = "length" if cut else "stop"
    return Completion(
        "".join(steps), token_ids=ids, logprobs=(-0.5,) * len(ids), finish=finish,
        steps=tuple(steps), step_scores=tuple(scores), score=score,
    )  # fmt: skip


def group(*completions: Completion) -> Group:
    return Group("q", completions, prompt_ids=(1, 2))


def columns(selected) -> list[tuple[float, ...]]:
    return [s.columns["advantages"] for g in selected.groups for s in g.sequences]


def test_tokens_get_the_credit_of_the_steps_still_to_end() -> None:
    select = StepCredited(ProcessRelative(), decode)
    selected = select([group(sampled(("a;", "bc;", "d"), (1.0, 0.0, 0.5)), sampled(("xy",), (0.25,)))])
    a, b, c, d = group_relative((1.0, 0.0, 0.5, 0.25))
    first, second = columns(selected)
    assert first == pytest.approx(
        [a + b + c] * 2 + [b + c] * 3 + [c] * 2, rel=1e-12
    )  # the end token is the last step's
    assert second == pytest.approx([d] * 3, rel=1e-12)
    (encoded,) = selected.groups
    assert encoded.prompt_ids == (1, 2) and encoded.sequences[0].ids == (*map(ord, "a;bc;d"), 0)
    assert encoded.sequences[0].columns["old_logprobs"] == (-0.5,) * 7 and all(encoded.sequences[0].trained)
    assert selected.samples[0].completions[0].advantage == pytest.approx(sum(first) / 7)


def test_one_step_is_outcome_credit() -> None:
    scores = (1.0, 0.0, 0.5, 0.5)
    whole = [group(*(sampled((f"t{i}",), (s,), score=s) for i, s in enumerate(scores)))]
    by_steps = StepCredited(ProcessRelative(), decode)(whole)
    by_outcome = Credited(GroupRelative())(whole)
    assert columns(by_steps) == [pytest.approx(row, rel=1e-12) for row in columns(by_outcome)]
    assert by_steps.groups[0].prompt_ids == by_outcome.groups[0].prompt_ids


def test_completions_that_cannot_be_credited_are_left_out() -> None:
    known = sampled(("a;", "b"), (1.0, 0.0)), sampled(("c",), (0.5,))
    unscored, empty = sampled(("d;", "e"), (0.7, None)), replace(sampled(("f",), ()), steps=())
    selected = StepCredited(ProcessRelative(), decode)([group(known[0], unscored, empty, known[1])])
    alone = StepCredited(ProcessRelative(), decode)([group(*known)])
    assert columns(selected) == columns(alone)
    assert [c.advantage is None for c in selected.samples[0].completions] == [False, True, True, False]
    assert selected.metrics == {"steps/number": 5 / 4, "steps/unscorable": 2.0, "steps/score": pytest.approx(2.2 / 4)}


def test_a_truncated_one_is_left_out_where_asked() -> None:
    whole = group(sampled(("a;", "b"), (1.0, 0.0)), sampled(("c;", "d"), (0.9, 0.9), cut=True))
    assert len(columns(StepCredited(ProcessRelative(), decode)([whole]))) == 2
    masked = StepCredited(ProcessRelative(), decode, mask_truncated=True)([whole])
    assert columns(masked) == columns(StepCredited(ProcessRelative(), decode)([group(whole.completions[0])]))


def test_the_outcome_counts_as_much_as_it_is_told_to() -> None:
    whole = [group(sampled(("a;", "b"), (1.0, 0.0), score=1.0), sampled(("c",), (0.5,), score=0.0, cut=True))]
    none, half = (columns(StepCredited(ProcessRelative(outcome=w), decode)(whole)) for w in (0.0, 0.5))
    win, lose = group_relative((1.0, 0.0))
    assert half[0] == pytest.approx([x + 0.5 * win for x in none[0]])
    assert half[1] == pytest.approx([x + 0.5 * lose for x in none[1]])
    fined = columns(StepCredited(ProcessRelative(outcome=0.5), decode, missing_eos_penalty=3.0)(whole))
    harder, softer = group_relative((1.0, -3.0))
    assert fined[0] == pytest.approx([x + 0.5 * harder for x in none[0]])
    assert fined[1] == pytest.approx([x + 0.5 * softer for x in none[1]])


def test_a_group_without_any_credit_is_idle_unless_it_is_kept() -> None:
    equal = group(sampled(("a;", "b"), (0.5, 0.5)), sampled(("c",), (0.5,)))
    (idle,) = StepCredited(ProcessRelative(), decode)([equal]).groups
    assert idle.idle and [s.num_trained for s in idle.sequences] == [4, 2]
    (kept,) = StepCredited(ProcessRelative(), decode, keep_equal=True)([equal]).groups
    assert not kept.idle
    assert [s.columns["advantages"] for s in kept.sequences] == [(0.0,) * 4, (0.0,) * 2]


def test_metrics_of_nothing() -> None:
    assert step_metrics([group(replace(sampled(("a",), ()), steps=()))]) == {
        "steps/number": 0.0,
        "steps/unscorable": 1.0,
    }


# Rewards a token, for methods with a critic.


def test_differences_sum_to_the_last_steps_score_however_many_steps_there_are() -> None:
    dense = StepRewards()((0.5, 0.25, 0.75), (1, 2, 5), 6)
    assert dense == (0.0, 0.5, -0.25, 0.0, 0.0, 0.5) and sum(dense) == 0.75
    padded = StepRewards()((0.5, 0.5, 0.5, 0.5), (0, 1, 2, 3), 4)
    assert sum(padded) == 0.5  # trivial steps add nothing
    assert StepRewards(weight=2.0, of="score")((0.5, -0.25), (0, 2), 3) == (1.0, 0.0, -0.5)
    assert StepRewards(of="score")((0.5, 0.25), (1, 1), 2) == (0.0, 0.75)  # one token ends both
    with pytest.raises(ValueError, match="step_rewards.weight must be positive, got 0"):
        StepRewards(weight=0)


def test_scored_completions_carry_their_steps_rewards() -> None:
    known = sampled(("a;", "b"), (0.5, 0.75), score=0.25)
    selected = StepScored(StepRewards(), decode)(
        [group(known, sampled(("c",), (None,)), sampled(("d",), (0.5,), score=None)), group(sampled(("e",), ()))]
    )
    (encoded,) = selected.groups
    (sequence,) = encoded.sequences
    assert sequence.columns["rewards"] == 0.25 and sequence.columns["step_rewards"] == (0.0, 0.5, 0.0, 0.25)
    assert len(selected.samples) == 2


def test_ppo_adds_them_to_each_tokens_reward() -> None:
    """Without a KL and with a critic of zeros, lambda and gamma 1, an advantage is the sum of the rewards to come."""
    from strop.token_credit import GAE
    from strop.train.control import FixedKL, KLControl
    from strop.train.crediting import PPOCredit

    known = sampled(("a;", "b"), (0.5, 0.75), score=2.0)
    (encoded,) = StepScored(StepRewards(), decode)([group(known)]).groups
    (sequence,) = encoded.sequences
    sequence = replace(sequence, columns={**sequence.columns, "old_values": (0.0,) * 4})
    credit = PPOCredit(GAE(lam=1.0, whiten=False), KLControl(FixedKL(coefficient=0.0)), None, 0.0)
    (done,) = credit([replace(encoded, sequences=(sequence,))])
    assert done.sequences[0].columns["advantages"] == pytest.approx((2.75, 2.75, 2.25, 2.25))
