"""Which answers are compared: what each pairing gives, and that draws are functions of their key."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from strop.rollout.couples import Adjacent, All, BestWorst, Random, couples_of
from strop.rollout.principles import Principle
from strop.types import Completion, Group


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def group(num: int) -> Group:
    return Group("q", tuple(Completion(f"answer {i}") for i in range(num)))


def principle(name: str) -> Principle:
    return Principle(id=name, critique="c", revision="r", comparison=f"The better one is {name}.")


def test_each_pairing() -> None:
    values = [0.2, 0.9, None, -1.0]
    assert All()(values, generator()) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert BestWorst()(values, generator()) == [(1, 3)] and BestWorst()([1.0, 1.0], generator()) == []
    assert Adjacent()(values, generator()) == [(1, 0), (0, 3)]
    assert Adjacent()([None] * 3, generator()) == [(0, 1), (1, 2)], "as listed where nothing is known"
    assert len(Random(num=4)(values, generator())) == 4
    assert sorted(Random(num=9)(values, generator())) == All()(values, generator())
    with pytest.raises(ValueError, match="random.num must be at least 1"):
        Random(num=0)


def test_every_pair_is_drawn_as_often() -> None:
    found = Counter(places for seed in range(3000) for places in Random()([None] * 4, np.random.default_rng(seed)))
    assert len(found) == 6 and min(found.values()) > 430 and max(found.values()) < 570


def test_draws_are_functions_of_the_key_alone() -> None:
    constitution = tuple(map(principle, "abcd"))
    one, again = (couples_of(group(5), [None] * 5, Random(num=3), constitution, 2, (7, 3)) for _ in range(2))
    assert one == again and len(one) == 3
    assert all(len(c.principles) == 2 and c.principles[0] != c.principles[1] for c in one)
    others = [couples_of(group(5), [None] * 5, Random(num=3), constitution, 2, (7, place)) for place in range(20)]
    assert len({tuple((c.first, c.second) for c in row) for row in others}) > 10


def test_the_first_of_a_couple_is_drawn_evenly() -> None:
    first = [couples_of(group(2), [None] * 2, All(), (), 0, (0, place))[0].first for place in range(2000)]
    assert 900 < sum(first) < 1100
    assert couples_of(group(2), [None] * 2, All(), (), 0, (0, 0))[0].principles == ()
