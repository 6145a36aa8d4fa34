"""Pairs of sampled groups: which two, in which order, and what is counted."""

from __future__ import annotations

import pytest

from strop.rollout.pairs import BestAndWorst
from strop.types import Completion, Group


def answer(number: int, score: float | None, finish: str = "stop") -> Completion:
    ids = tuple(range(number, number + 3))
    return Completion(f"a{number}", score=score, token_ids=ids, logprobs=(-0.5,) * 3, finish=finish)  # type: ignore[arg-type]


def group(*scores: float | None, cut: tuple[int, ...] = ()) -> Group:
    made = (answer(10 * i, s, "length" if i in cut else "stop") for i, s in enumerate(scores))
    return Group("q", tuple(made), origin="file:1", prompt_ids=(7, 8))


def firsts(select: BestAndWorst, *groups: Group) -> list[tuple[int, ...]]:
    """The first token of each side of every pair: ten times the answer's number."""
    return [tuple(s.ids[0] for s in g.sequences) for g in select(groups).groups]


def test_the_best_stands_first_with_exactly_what_was_sampled() -> None:
    selected = BestAndWorst()((group(0.5, 2.0, -1.0, 2.0),))
    (pair,) = selected.groups
    assert [s.ids for s in pair.sequences] == [(10, 11, 12), (20, 21, 22)]
    assert pair.prompt_ids == (7, 8) and pair.origin == "file:1"
    assert all(s.trained == (True,) * 3 and s.columns == {"old_logprobs": (-0.5,) * 3} for s in pair.sequences)
    assert selected.metrics["objective/scores_margin"] == 3.0
    assert selected.metrics["objective/scores"] == pytest.approx(3.5 / 4)
    assert selected.samples == (group(0.5, 2.0, -1.0, 2.0),)


def test_ties_and_groups_with_one_score_make_no_pair_and_are_counted() -> None:
    selected = BestAndWorst()((group(1.0, 1.0), group(None, 1.0), group(None, None), group(0.0, 1.0)))
    assert len(selected.groups) == 1 and len(selected.samples) == 4
    assert (selected.metrics["pairs/tied"], selected.metrics["pairs/unscored"]) == (1, 2)
    assert selected.metrics["objective/scores"] == pytest.approx(4 / 5)
    close = BestAndWorst(min_margin=1.0)((group(0.0, 1.0),))
    assert close.groups == () and close.metrics["pairs/tied"] == 1
    assert "objective/scores_margin" not in close.metrics


def test_the_same_tokens_with_two_scores_make_no_pair() -> None:
    """A judge may differ from itself; there is nothing to prefer."""
    twice = Group("q", (answer(0, 1.0), answer(0, 2.0)), prompt_ids=(7,))
    selected = BestAndWorst()((twice,))
    assert selected.groups == () and selected.metrics["pairs/tied"] == 1


def test_the_penalty_ranks_and_is_in_the_scores_as_in_trl() -> None:
    cut = group(0.5, 1.0, cut=(1,))
    assert firsts(BestAndWorst(), cut) == [(10, 0)]
    penalised = BestAndWorst(missing_eos_penalty=1.0)
    assert firsts(penalised, cut) == [(0, 10)]
    metrics = penalised((cut,)).metrics
    assert (metrics["objective/scores"], metrics["objective/scores_margin"]) == (0.25, 0.5)
    assert metrics["val/contain_eos_token"] == 0.5


def test_nothing_scored_has_no_mean() -> None:
    metrics = BestAndWorst()((group(None, None),)).metrics
    assert metrics == {"val/contain_eos_token": 1.0, "pairs/tied": 0.0, "pairs/unscored": 1.0}
