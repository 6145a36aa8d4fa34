"""Rollouts on hand-made groups: what is dropped, what is credited, what is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from strop.credit import GroupRelative, LeaveOneOut
from strop.data.source import rows
from strop.rollout.rollouts import Rollouts, rollout_metrics
from strop.rollout.sampler import Sampled
from strop.rollout.select import Credited, GroupCredit, encode
from strop.types import Completion, Group

PROMPTS = [Group(f"q{i}", row={"number": i}, origin=f"file:{i}") for i in range(4)]
IDS = [(10 + i, 3) for i in range(4)]


def sampled(*lengths: int, finish: str = "stop") -> list[Sampled]:
    """Completions of these lengths; token t of completion i is 100 i + t, its log-prob -t - i / 10."""
    return [
        Sampled(tuple(100 * i + t for t in range(n)), tuple(-t - i / 10 for t in range(n)), finish)  # type: ignore[arg-type]
        for i, n in enumerate(lengths)
    ]


def source(
    scores: Sequence[Sequence[float | None]],
    completions: list[Sampled] | None = None,
    advantage: GroupCredit = LeaveOneOut(),  # noqa: B008
    **select: bool,
) -> Rollouts:
    """Rollouts of four prompts a step whose completions are scored as told, in the order they are asked for."""

    def score(groups: Sequence[Group]) -> list[Group]:
        return [
            replace(group, completions=tuple(scored(c, s) for c, s in zip(group.completions, given, strict=True)))
            for group, given in zip(groups, scores, strict=True)
        ]

    def scored(completion: Completion, value: float | None) -> Completion:
        return replace(completion, rewards={"r": value}, score=value)

    made = completions or sampled(*range(2, 2 + len(scores[0])))
    return Rollouts(
        prompts=PROMPTS,
        prompt_ids=IDS,
        sample=lambda prompts, step, first_index: [made for _ in prompts],
        decode=lambda ids: " ".join(map(str, ids)),
        score=score,
        select=Credited(advantage, **select),
        batch_size=len(scores),
        num_generations=len(scores[0]),
        seed=0,
    )


def advantages(collected: object) -> list[list[float]]:
    """Of the groups that are not idle."""
    groups = [g for g in collected.groups if not g.idle]  # type: ignore[attr-defined]
    return [[s.columns["advantages"][0] for s in g.sequences] for g in groups]


def test_a_step_samples_its_rows_and_hands_over_exactly_what_was_sampled() -> None:
    collected = source([[0.0, 1.0, 2.0], [5.0, 5.0, 8.0]])(3)
    taken = rows(3, num_rows=4, batch_size=2, seed=0)
    assert [g.prompt_ids for g in collected.groups] == [IDS[i] for i in taken]
    assert [g.origin for g in collected.groups] == [f"file:{i}" for i in taken]
    first = collected.groups[0].sequences
    assert [s.ids for s in first] == [s.ids for s in sampled(2, 3, 4)]
    assert [s.columns["old_logprobs"] for s in first] == [s.logprobs for s in sampled(2, 3, 4)]
    assert all(all(s.trained) and len(s.columns["advantages"]) == len(s.ids) for s in first)  # type: ignore[arg-type]
    assert advantages(collected) == [[-1.5, 0.0, 1.5], [-1.5, -1.5, 3.0]]
    assert [c.text for c in collected.samples[0].completions] == ["0 1", "100 101 102", "200 201 202 203"]
    assert set(collected.seconds) == {"sampling", "scoring"}


def test_groups_with_equal_rewards_are_idle_and_counted() -> None:
    collected = source([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])(0)
    assert advantages(collected) == [[-1.0, 1.0]]
    assert [g.idle for g in collected.groups] == [True, False, True]
    assert collected.metrics["frac_reward_zero_std"] == pytest.approx(2 / 3)
    assert collected.metrics["groups/kept"] == 1 and len(collected.samples) == 3


def test_groups_with_equal_rewards_are_kept_for_the_kl_term() -> None:
    collected = source([[1.0, 1.0], [0.0, 1.0]], keep_equal=True)(0)
    assert advantages(collected) == [[0.0, 0.0], [-1.0, 1.0]]
    assert collected.metrics["frac_reward_zero_std"] == 0.5 and collected.metrics["groups/kept"] == 2


def test_unscorable_completions_take_no_part() -> None:
    collected = source([[0.0, None, 4.0], [None, None, None], [None, None, 1.0]])(0)
    group, alone = collected.groups  # a group in which nothing could be scored is gone
    assert alone.idle and len(alone.sequences) == 1
    assert [s.ids[0] for s in group.sequences] == [0, 200]
    assert advantages(collected) == [[-4.0, 4.0]]  # each against the other one alone
    assert collected.metrics["rewards/unscorable"] == 6
    assert collected.metrics["reward"] == pytest.approx(5 / 3)
    kept = source([[0.0, None, 4.0], [None, None, None], [None, None, 1.0]], keep_equal=True)(0)
    assert advantages(kept) == [[-4.0, 4.0], [0.0]]


def test_truncated_completions_are_masked_where_asked() -> None:
    made = [*sampled(2, 2), replace(sampled(2, 2, 2)[2], finish="length")]
    scores = [[0.0, 1.0, 5.0]]
    assert advantages(source(scores, made, advantage=GroupRelative(scale="none"))(0)) == [[-2.0, -1.0, 3.0]]
    masked = source(scores, made, advantage=GroupRelative(scale="none"), mask_truncated=True)(0)
    assert advantages(masked) == [[-0.5, 0.5]]
    assert masked.metrics["completions/clipped_ratio"] == pytest.approx(1 / 3)
    assert masked.metrics["reward"] == 2.0  # the mean over all: masking is for training
    equal = source([[1.0, 1.0, 5.0]], made, mask_truncated=True)(0)
    assert [g.idle for g in equal.groups] == [True]  # what is left does not differ


def test_a_batch_scale_is_taken_over_all_groups() -> None:
    collected = source([[0.0, 2.0], [1.0, 1.0]], advantage=GroupRelative(scale="batch", eps=1e-9))(0)
    deviation = math.sqrt(2 / 3)  # of 0, 2, 1, 1, ddof 1
    assert advantages(collected)[0] == pytest.approx([-1 / deviation, 1 / deviation])


def test_every_group_idle_gives_a_step_with_metrics() -> None:
    collected = source([[1.0, 1.0], [0.0, 0.0]])(0)
    assert [g.idle for g in collected.groups] == [True, True] and collected.metrics["groups/kept"] == 0
    assert collected.metrics["frac_reward_zero_std"] == 1 and collected.metrics["reward"] == 0.5


def test_metrics_have_trls_names_and_the_hand_computed_values() -> None:
    def completion(length: int, finish: str, score: float | None, **rewards: float | None) -> Completion:
        return Completion("x", token_ids=(1,) * length, finish=finish, score=score, rewards=rewards)  # type: ignore[arg-type]

    groups = [
        Group(
            "a", (completion(2, "stop", 1.0, exact=1.0, style=0.5), completion(4, "length", 0.0, exact=0.0, style=1.5))
        ),
        Group(
            "b", (completion(6, "stop", None, exact=None, style=1.0), completion(8, "stop", 3.0, exact=1.0, style=1.0))
        ),
    ]
    assert rollout_metrics(groups, 1) == pytest.approx(
        {
            "frac_reward_zero_std": 0.5,  # the second group has one score
            "groups/kept": 1.0,
            "rewards/unscorable": 1.0,
            "completions/mean_length": 5.0,
            "completions/min_length": 2.0,
            "completions/max_length": 8.0,
            "completions/clipped_ratio": 0.25,
            "completions/mean_terminated_length": 16 / 3,
            "reward": 4 / 3,
            "reward_std": math.sqrt(7 / 3),  # of 1, 0 and 3, over the groups, as TRL 1.16 has it
            "rewards/exact/mean": 2 / 3,
            "rewards/exact/std": math.sqrt(1 / 3),
            "rewards/style/mean": 1.0,
            "rewards/style/std": math.sqrt(0.5 / 3),
        }
    )


def test_encode_refuses_groups_that_were_not_sampled() -> None:
    with pytest.raises(AssertionError):
        encode(Group("q", (Completion("x", advantage=1.0),)))


def test_a_rank_without_groups_has_no_figures() -> None:
    """Its share of a small step, or of a refill, may be empty; no mean is taken of nothing."""
    assert rollout_metrics([], 0) == {"groups/kept": 0.0, "rewards/unscorable": 0.0}
