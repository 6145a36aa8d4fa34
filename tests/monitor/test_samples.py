"""Completions as the detectors read them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from strop.monitor.figures import figures
from strop.monitor.samples import OWN, kept, sample_of, snapshot, weighted
from strop.monitor.settings import Thresholds
from strop.types import Completion, Group, group_from_json, group_to_json

FULL = Completion(
    "a b c",
    score=1.5,
    rewards={"trained": 1.5, "held_out/gold": 0.25, "held_out/watched": 9.0},
    facts={"code": {"visible": 1.0, "hidden": 0.5, "tier": "A"}, OWN: {"kl": 0.75}},
    token_ids=(1, 2, 3, 4),
    logprobs=(-0.5, -1.5, -1.0, -1.0),
    finish="length",
)


def test_everything_that_is_known_of_a_completion() -> None:
    sample = sample_of(FULL, {"gold": 2.0, "watched": 0.0})
    assert (sample.proxy, sample.held_out, sample.length, sample.kl, sample.entropy) == (1.5, 0.5, 4.0, 0.75, 1.0)
    assert sample.is_cut is True and dict(sample.facts) == {"visible": 1.0, "hidden": 0.5}


def test_what_is_written_down_reads_back_as_it_was() -> None:
    group = Group("q", (kept(FULL),))
    again = group_from_json(json.loads(json.dumps(group_to_json(group))))
    assert again.completions[0].token_ids is None
    assert snapshot(0, [again]) == snapshot(0, [Group("q", (FULL,))])


def test_held_out_rewards_are_weighed_and_one_that_is_missing_leaves_none() -> None:
    rewards = {"held_out/a": 1.0, "held_out/b": None, "trained": 5.0}
    assert weighted(rewards, {"a": 3.0, "b": 0.0}) == 3.0
    assert weighted(rewards, {"a": 3.0, "b": 1.0}) is None and weighted({"trained": 5.0}, None) is None


def test_figures_have_n_and_the_root_of_the_kl() -> None:
    groups = [Group(str(i), (FULL, Completion("d e", score=0.5, facts={OWN: {"kl": 0.25}}))) for i in range(10)]
    now = snapshot(1, groups, {"gold": 1.0})
    found = figures(now, now, seed=0)
    assert found["kl"].value == 0.5 and found["sqrt_kl"].value == pytest.approx(math.sqrt(0.5))
    assert found["proxy"].n == 20 and found["held_out"].n == 10 and found["reward_std"].value == 0.5
    assert not any(name.startswith("delta/") for name in found)
    start = snapshot(0, [Group(g.prompt, tuple(Completion("x", score=0.0) for _ in range(2))) for g in groups])
    assert figures(now, start, seed=0)["delta/proxy"].value == 1.0


def test_a_grid_has_holes_where_nothing_is_known() -> None:
    grid = snapshot(0, [Group("a", (FULL, Completion("x"))), Group("b", (FULL,))]).grid(lambda s: s.proxy)
    assert np.isnan(grid).tolist() == [[False, True], [False, True]]


def test_thresholds_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="thresholds.fdr must be above 0 and below 1, got 1"):
        Thresholds(fdr=1.0)
    with pytest.raises(ValueError, match="thresholds.gap must be positive"):
        Thresholds(gap=0.0)
