"""What becomes of scored groups: credit, penalties, and scores kept for later."""

from __future__ import annotations

import pytest

from strop.credit import GroupRelative, LeaveOneOut
from strop.rollout.select import Credited, Scored, creditable, sampled_sequence
from strop.token_credit import ReinforcePPBaseline
from strop.types import Completion, Finish, Group


def completion(number: int, score: float | None, finish: Finish = "stop") -> Completion:
    """Two tokens, 10 number and the next, log-probs -1 and -2."""
    return Completion("x", token_ids=(10 * number, 10 * number + 1), logprobs=(-1.0, -2.0), finish=finish, score=score)


def group(*scores: float | None, cut: tuple[int, ...] = ()) -> Group:
    made = tuple(completion(i, s, "length" if i in cut else "stop") for i, s in enumerate(scores))
    return Group("q", made, origin="file:1", prompt_ids=(7, 8))


def test_truncated_answers_are_penalised_or_masked_and_unscorable_stay_so() -> None:
    both = group(1.0, 2.0, None, cut=(1, 2))
    assert creditable(both, False, 0.0) == [1.0, 2.0, None]
    assert creditable(both, False, 0.75) == [1.0, 1.25, None]
    assert creditable(both, True, 0.0) == [1.0, None, None]


def test_the_penalty_moves_the_baseline_and_makes_equal_groups_differ() -> None:
    selected = Credited(LeaveOneOut(), missing_eos_penalty=1.0)([group(1.0, 1.0, cut=(1,)), group(1.0, 1.0)])
    only, equal = selected.groups
    assert equal.idle and not only.idle
    assert [s.columns["advantages"] for s in only.sequences] == [(1.0, 1.0), (-1.0, -1.0)]
    assert [c.score for c in selected.samples[0].completions] == [1.0, 1.0]  # what was scored is told as it was


def test_scores_are_kept_for_later_and_the_unscorable_left_out() -> None:
    selected = Scored(missing_eos_penalty=0.5)([group(1.0, None, 3.0, cut=(2,)), group(None, None)])
    (only,) = selected.groups
    assert only.prompt_ids == (7, 8) and only.origin == "file:1"
    assert [s.columns["rewards"] for s in only.sequences] == [1.0, 2.5]
    assert [s.ids for s in only.sequences] == [(0, 1), (20, 21)]
    assert [s.truncated for s in only.sequences] == [False, True]
    assert len(selected.samples) == 2
    masked = Scored(mask_truncated=True)([group(1.0, None, 3.0, cut=(2,))])
    assert [s.columns["rewards"] for s in masked.groups[0].sequences] == [1.0]


def test_equal_groups_are_kept_for_later_credit() -> None:
    """A KL in the reward, or a baseline of the whole step, makes them differ."""
    assert len(Scored()([group(1.0, 1.0)]).groups) == 1
    assert Credited(GroupRelative())([group(1.0, 1.0)]).groups[0].idle
    (kept,) = Credited(ReinforcePPBaseline(), keep_equal=True)([group(1.0, 1.0)]).groups
    assert [s.columns["advantages"] for s in kept.sequences] == [(0.0, 0.0)] * 2 and not kept.idle


def test_no_groups_select_to_none() -> None:
    for select in (Scored(), Credited(GroupRelative(scale="batch"))):
        assert select([]).groups == () and select([]).samples == ()


def test_a_sequence_is_exactly_what_was_sampled() -> None:
    sequence = sampled_sequence(completion(3, 1.0, "length"), rewards=0.5)
    assert sequence.ids == (30, 31) and sequence.trained == (True, True) and sequence.truncated
    assert sequence.columns == {"old_logprobs": (-1.0, -2.0), "rewards": 0.5}
    with pytest.raises(AssertionError):
        sampled_sequence(Completion("given, not sampled"))
