"""Leave-one-out advantages of scores less the KL, by hand."""

from __future__ import annotations

import pytest

from strop.credit import LeaveOneOut
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.train.group_credit import ShapedGroupCredit


def sequence(reward: float, old: tuple[float, ...], ref: tuple[float, ...]) -> EncodedSequence:
    columns = {"rewards": reward, "old_logprobs": old, "ref_logprobs": ref}
    return EncodedSequence(tuple(range(len(old))), (True,) * len(old), columns)


GROUP = EncodedGroup(
    (1,),
    (
        sequence(1.0, (-1.0, -1.0), (-1.5, -2.0)),  # k1 1.5
        sequence(0.0, (-1.0,), (-0.5,)),  # k1 -0.5
        sequence(1.0, (-2.0, -2.0, -2.0), (-2.0, -2.0, -2.0)),
    ),
)


def advantages(credit: ShapedGroupCredit, *groups: EncodedGroup) -> list[list[float]]:
    return [list(s.columns["advantages"]) for g in credit(groups) for s in g.sequences]  # type: ignore[arg-type]


def test_by_hand() -> None:
    credit = ShapedGroupCredit(LeaveOneOut(beta=0.2))
    r = (1.0 - 0.3, 0.0 + 0.1, 1.0)
    want = [r[i] - (sum(r) - r[i]) / 2 for i in range(3)]
    got = advantages(credit, GROUP)
    assert [len(row) for row in got] == [2, 1, 3]
    for row, a in zip(got, want, strict=True):
        assert row == pytest.approx([a] * len(row), rel=1e-12)
    assert credit.metrics == pytest.approx(
        {"objective/kl": 1 / 3, "objective/non_score_reward": -0.2 / 3, "objective/rlhf_reward": 2 / 3 - 0.2 / 3}
    )


def test_groups_are_credited_apart_and_a_lone_completion_gets_none() -> None:
    lone = EncodedGroup((1,), (sequence(5.0, (-1.0,), (-3.0,)),))
    got = advantages(ShapedGroupCredit(LeaveOneOut(beta=0.2)), GROUP, lone)
    assert got[3] == [0.0] and got[:3] == advantages(ShapedGroupCredit(LeaveOneOut(beta=0.2)), GROUP)


def test_at_the_reference_it_is_plain_leave_one_out() -> None:
    same = EncodedGroup((1,), tuple(sequence(r, (-1.0, -2.0), (-1.0, -2.0)) for r in (0.0, 1.0, 5.0)))
    got = [row[0] for row in advantages(ShapedGroupCredit(LeaveOneOut(beta=0.5)), same)]
    assert got == pytest.approx(LeaveOneOut()([(0.0, 1.0, 5.0)])[0], rel=1e-12)


def test_no_groups() -> None:
    credit = ShapedGroupCredit(LeaveOneOut(beta=0.1))
    assert credit([]) == () and credit.metrics == {}


def test_beta_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match=r"beta must not be negative, got -0\.1"):
        LeaveOneOut(beta=-0.1)
