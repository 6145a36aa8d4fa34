"""Dynamic sampling: what is kept, what is drawn instead, when it gives up, and the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from strop import dist
from strop.rollout.dynamic import Drawn, DynamicSampling
from strop.rollout.select import creditable, scores_of
from strop.types import Completion, Group

ROWS = 20


def group(row: int, *rewards: float | None, shape: float = 0.0) -> Group:
    """A group of this row whose reward "right" is as told, and "shape" always differs."""
    made = [Completion("", score=r, rewards={"right": r, "shape": shape * i}) for i, r in enumerate(rewards)]
    return Group(str(row), tuple(made))


class World:
    """Draws groups that differ where `good` says so; remembers what was asked."""

    def __init__(self, good: Callable[[int, int], bool]) -> None:
        self.good = good
        self.asked: list[list[int]] = []

    def __call__(self, taken: Sequence[int], attempt: int) -> Sequence[Group]:
        self.asked.append(list(taken))
        return [group(i, 1.0, float(not self.good(i, attempt)), shape=1.0) for i in dist.share(taken)]


def run(
    world: World,
    first: Sequence[int],
    seed: int = 0,
    step: int = 0,
    counted: Callable[[Group], Sequence[float | None]] = scores_of,
    **settings: object,
) -> Drawn:
    dynamic = DynamicSampling(**settings)  # type: ignore[arg-type]
    return dynamic(world, first, num_rows=ROWS, seed=seed, step=step, counted=counted)


def names(groups: Sequence[Group]) -> list[int]:
    return [int(g.prompt_text) for g in groups]


def test_a_step_that_is_full_asks_once() -> None:
    world = World(lambda row, attempt: True)
    drawn = run(world, [4, 2, 9])
    assert names(drawn.kept) == names(drawn.everything) == [4, 2, 9]
    assert world.asked == [[4, 2, 9]]
    assert drawn.metrics == {"groups/accept_rate": 1.0, "groups/attempts": 1.0}


def test_a_masked_answer_does_not_make_a_group_differ() -> None:
    """Two right answers and a cut wrong one: without the cut one there is no signal, and credit drops it."""

    def draw(taken: Sequence[int], attempt: int) -> Sequence[Group]:
        made = [group(i, 1.0, 1.0, 0.0) for i in taken]
        return [replace(g, completions=(*g.completions[:2], replace(g.completions[2], finish="length"))) for g in made]

    def masked(one: Group) -> Sequence[float | None]:
        return creditable(one, mask_truncated=True, missing_eos_penalty=0.0)

    for reward in (None, "right"):
        dynamic = DynamicSampling(reward=reward, attempts=2)
        assert len(dynamic(draw, [1], num_rows=ROWS, seed=0, step=0, counted=scores_of).kept) == 1
        assert dynamic(draw, [1], num_rows=ROWS, seed=0, step=0, counted=masked).kept == ()


def test_groups_that_do_not_differ_are_replaced_by_rows_not_tried_yet() -> None:
    world = World(lambda row, attempt: row % 2 == 0)
    drawn = run(world, [0, 1, 2, 3])
    kept = names(drawn.kept)
    assert kept[:2] == [0, 2] and len(kept) == len(set(kept)) == 4 and all(row % 2 == 0 for row in kept)
    assert not set(world.asked[0]) & set(world.asked[1])
    assert len(world.asked[1]) == 4  # two are missing, and half were accepted so far
    assert names(drawn.everything) == [row for asked in world.asked for row in asked]
    assert drawn.metrics["groups/attempts"] == len(world.asked)
    assert drawn.metrics["groups/accept_rate"] == pytest.approx(4 / sum(map(len, world.asked)))


def test_a_step_never_has_more_groups_than_it_asked_for() -> None:
    world = World(lambda row, attempt: attempt > 0)
    assert len(run(world, [0, 1, 2]).kept) == 3
    assert [len(asked) for asked in world.asked] == [3, 3]  # three of them, whatever the rate


def test_it_gives_up_after_so_many_attempts() -> None:
    world = World(lambda row, attempt: row == 5)
    drawn = run(world, [5, 6], attempts=3)
    assert names(drawn.kept) == [5] and len(world.asked) == 3
    assert drawn.metrics["groups/attempts"] == 3
    nothing = run(World(lambda row, attempt: False), [5, 6], attempts=2)
    assert nothing.kept == () and nothing.metrics["groups/accept_rate"] == 0.0


def test_when_all_rows_were_tried_the_refused_get_another_chance_and_the_accepted_none() -> None:
    world = World(lambda row, attempt: row < 10 or attempt == 2)
    drawn = run(world, list(range(ROWS)))
    assert sorted(names(drawn.kept)) == list(range(ROWS))
    assert all(row >= 10 for asked in world.asked[1:] for row in asked)


def test_it_ends_where_no_row_is_left() -> None:
    world = World(lambda row, attempt: True)
    drawn = DynamicSampling()(world, [0, 1, 0, 1], num_rows=2, seed=0, step=0, counted=scores_of)
    assert len(drawn.kept) == 4 and len(world.asked) == 1
    refused = World(lambda row, attempt: len(refused.asked) > 1 or row == 0)
    drawn = DynamicSampling()(refused, [0, 0, 1], num_rows=2, seed=0, step=0, counted=scores_of)
    assert names(drawn.kept) == [0, 0, 1]


def test_rewards_are_judged_by_name_and_unscorable_ones_are_no_difference() -> None:
    world = World(lambda row, attempt: False)
    assert run(world, [1], attempts=1).kept == ()
    assert names(run(world, [1], attempts=1, reward="shape").kept) == [1]
    draw = lambda taken, attempt: [group(i, 1.0, None) for i in taken]  # noqa: E731
    assert DynamicSampling(attempts=1)(draw, [1], num_rows=ROWS, seed=0, step=0, counted=scores_of).kept == ()


def test_the_rows_are_a_function_of_seed_and_step() -> None:
    def asked(seed: int, step: int) -> list[list[int]]:
        world = World(lambda row, attempt: row % 3 == 0)
        run(world, [1, 2, 4, 5], seed=seed, step=step)
        return world.asked

    assert asked(1, 2) == asked(1, 2)
    assert asked(1, 2)[1] != asked(1, 3)[1] and asked(1, 2)[1] != asked(2, 2)[1]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_keep_the_same_groups_between_them(num_ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank in turn, with the others' flags as a single process would have found them."""
    good = lambda row, attempt: row % 3 == 0  # noqa: E731
    whole = World(good)
    want = names(run(whole, [0, 1, 2, 3, 4]).kept)
    found: list[int] = []
    for rank in range(num_ranks):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(dist, "world_size", lambda: num_ranks)
        world = World(good)
        monkeypatch.setattr(
            dist, "sum_numbers", lambda values, w=world: [float(good(i, len(w.asked) - 1)) for i in w.asked[-1]]
        )
        found += names(run(world, [0, 1, 2, 3, 4]).kept)
        assert world.asked == whole.asked
    assert sorted(found) == sorted(want)


def test_attempts_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="attempts must be at least 1, got 0"):
        DynamicSampling(attempts=0)


def test_a_reward_that_is_not_for_a_row_lets_its_score_decide() -> None:
    def made(taken: Sequence[int], attempt: int) -> Sequence[Group]:
        scores = {1: (0.2, 0.7), 2: (0.5, 0.5)}
        return [Group(str(i), tuple(Completion("", score=s, rewards={"other": s}) for s in scores[i])) for i in taken]

    dynamic = DynamicSampling(reward="right", attempts=1)
    drawn = dynamic(made, [1, 2], num_rows=ROWS, seed=0, step=0, counted=scores_of)
    assert names(drawn.kept) == [1]
