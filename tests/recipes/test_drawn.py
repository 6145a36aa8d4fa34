"""Prompts that a round draws: so many, without repeats, a function of the seed alone."""

from __future__ import annotations

from strop.recipes.inputs import Dropped, Prompts, drawn
from strop.types import Group

ALL = Prompts([Group(f"p{i}") for i in range(20)], [(i,) for i in range(20)], Dropped())


def texts(prompts: Prompts) -> list[object]:
    return [group.prompt for group in prompts.groups]


def test_so_many_different_ones_in_their_order_with_their_tokens() -> None:
    found = drawn(ALL, 5, seed=1)
    places = [int(str(text)[1:]) for text in texts(found)]
    assert len(set(places)) == 5 and places == sorted(places)
    assert found.ids == [(place,) for place in places]


def test_another_seed_draws_others_and_the_same_the_same() -> None:
    rounds = [texts(drawn(ALL, 5, seed)) for seed in range(8)]
    assert texts(drawn(ALL, 5, 3)) == rounds[3]
    assert len({text for found in rounds for text in found}) > 15, "all prompts have their turn"


def test_no_number_or_too_large_a_one_takes_all() -> None:
    assert drawn(ALL, None, 0) is ALL and drawn(ALL, 20, 0) is ALL and drawn(ALL, 99, 0) is ALL
