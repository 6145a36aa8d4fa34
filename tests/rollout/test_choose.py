"""Choices among scored answers: the best, pairs and each, with ties, unscorable answers and counts."""

from __future__ import annotations

import pytest

from strop.evaluate.best_of import best_of_k
from strop.rollout.choose import Best, Each, Label, Pair, best_and_worst, best_of, kept
from strop.rollout.filters import Correct, Finished, Threshold
from strop.types import Completion, Group


def group(*scores: float | None, prompt: str = "q", cut: tuple[int, ...] = ()) -> Group:
    """A prompt with answers a0, a1, ... of these scores; those in `cut` reached the length limit."""
    made = [
        Completion(f"a{i}", score=s, rewards={"r": s}, finish="length" if i in cut else "stop")
        for i, s in enumerate(scores)
    ]
    return Group(prompt, tuple(made), {"answer": "4"}, "file:1")


def texts(groups: list[Group]) -> list[list[str]]:
    return [[c.text for c in g.completions] for g in groups]


def test_the_best_is_the_first_of_the_highest() -> None:
    assert best_of([0.0, 2.0, 1.0, 2.0]) == 1
    assert best_of([None, -1.0, -1.0]) == 1
    assert best_of([None, None]) is None and best_of([]) is None


def test_best_and_worst_are_the_first_of_their_equals_and_ties_give_none() -> None:
    assert best_and_worst([1.0, 0.0, 1.0, 0.0]) == (0, 1)
    assert best_and_worst([None, -3.0, 5.0, None]) == (2, 1)
    assert best_and_worst([0.1 + 0.2, 0.3]) is None  # a difference that is rounding
    assert best_and_worst([1e9 + 1, 1e9]) is None and best_and_worst([1e-9, 0.0]) is None
    assert best_and_worst([1.0, None]) is None and best_and_worst([]) is None
    assert best_and_worst([1.0, 0.5], min_margin=0.5) is None and best_and_worst([1.0, 0.4], min_margin=0.5) == (0, 1)


def test_best_of_n_keeps_one_answer_a_prompt_with_its_row_and_score() -> None:
    rows, counts = Best()([group(0.0, 1.0, 1.0), group(None, None, prompt="p")])
    assert texts(rows) == [["a1"]] and rows[0].completions[0].score == 1.0
    assert rows[0].row == {"answer": "4"} and rows[0].origin == "file:1"
    assert counts == {"prompts without a scored answer": 1}


def test_the_best_two_are_rows_of_their_own() -> None:
    rows, _ = Best(num=2)([group(0.0, 1.0, None, 1.0, 0.5)])
    assert texts(rows) == [["a1"], ["a3"]]
    assert texts(Best(num=9)([group(0.0, 1.0)])[0]) == [["a1"], ["a0"]]


def test_one_sample_and_no_filter_keeps_every_sample() -> None:
    groups = [group(float(i % 2), prompt=f"q{i}") for i in range(4)]
    assert Best()(groups) == (groups, {}) == Each()(groups)


def test_best_of_n_reaches_what_the_estimator_says() -> None:
    groups = [group(0.3, 0.1, 0.9, 0.9), group(0.2, 0.0, -1.0, 0.1)]
    rows, _ = Best()(groups)
    chosen = [c.score for g in rows for c in g.completions]
    assert chosen == [best_of_k([c.score for c in g.completions], 4) for g in groups]


def test_a_named_reward_can_choose_in_place_of_the_score() -> None:
    one = Completion("x", score=1.0, rewards={"right": 0.0, "polite": 1.0})
    two = Completion("y", score=0.5, rewards={"right": 1.0, "polite": 0.0})
    groups = [Group("q", (one, two))]
    assert texts(Best()(groups)[0]) == [["x"]] and texts(Best(reward="right")(groups)[0]) == [["y"]]
    assert texts(Pair(reward="right")(groups)[0]) == [["y", "x"]]
    with pytest.raises(ValueError, match="best.reward: no answer has a reward 'wrong'; there are: right, polite"):
        Best(reward="wrong")(groups)


def test_each_gives_rows_of_one_answer_in_their_order() -> None:
    assert texts(Each()([group(0.0, None), group(1.0)])[0]) == [["a0"], ["a1"], ["a0"]]
    rows, counts = Each(most=2)([group(0.0, None, 1.0), group(1.0)])
    assert texts(rows) == [["a0"], ["a1"], ["a0"]] and not counts


def test_pairs_are_best_first_and_ties_are_counted() -> None:
    groups = [group(0.0, 2.0, 1.0, 2.0), group(1.0, 1.0), group(1.0, None), group(None)]
    rows, counts = Pair()(groups)
    assert texts(rows) == [["a1", "a0"]]
    assert counts == {
        "prompts whose answers' scores are all the same": 1,
        "prompts with fewer than two scored answers": 2,
    }
    close = Pair(min_margin=2.0)([group(0.0, 2.0)])
    assert close == ([], {"prompts whose answers' scores differ by no more than 2": 1})


def test_a_missing_end_is_penalised_before_the_answers_are_ranked() -> None:
    cut_best = [group(0.5, 1.0, cut=(1,))]
    assert texts(Pair()(cut_best)[0]) == [["a1", "a0"]]
    assert texts(Pair(missing_eos_penalty=1.0)(cut_best)[0]) == [["a0", "a1"]]
    assert Pair(missing_eos_penalty=0.5)(cut_best)[1] == {"prompts whose answers' scores are all the same": 1}
    equal = [group(1.0, 1.0, cut=(0,))]
    assert texts(Pair(missing_eos_penalty=1.0)(equal)[0]) == [["a1", "a0"]]  # the penalty alone makes the pair
    (row,), _ = Pair(missing_eos_penalty=1.0)(equal)
    assert [c.score for c in row.completions] == [1.0, 1.0]  # it ranks, and leaves the score as it is


def test_choices_are_applied_in_order_and_their_counts_added() -> None:
    groups = [group(1.0, 0.0, 1.0, cut=(0,)), group(0.0, 0.0, prompt="p"), group(1.0, prompt="r", cut=(0,))]
    rows, counts = kept(groups, (Finished(), Correct(), Each()))
    assert texts(rows) == [["a2"]]
    assert counts == {
        "answers cut by the length limit": 2,
        "answers that are wrong": 3,
        "prompts with no answer left": 2,
    }
    assert kept(groups, ())[0] == groups
    assert texts(kept(groups, (Best(), Threshold(above=0.5)))[0]) == [["a0"], ["a0"]]


def test_data_that_nobody_scored_is_refused() -> None:
    bare = [Group("q", (Completion("x"), Completion("y")))]
    for choice in (Best(), Pair(), Threshold(above=0.0), Correct()):
        with pytest.raises(ValueError, match=f"{choice.name}: no answer has a score; let a stage of kind score"):
            choice(bare)
    unscorable = [Group("q", (Completion("x", rewards={"r": None}),))]
    assert Best()(unscorable) == ([], {"prompts without a scored answer": 1})
    assert Best()([]) == ([], {})


def test_settings_say_what_they_cannot_be() -> None:
    with pytest.raises(ValueError, match="best.num must be at least 1, got 0"):
        Best(num=0)
    with pytest.raises(ValueError, match="each.most must be at least 1, got 0"):
        Each(most=0)
    with pytest.raises(ValueError, match="pair.missing_eos_penalty must not be negative, got -1"):
        Pair(missing_eos_penalty=-1)


def test_labels_say_which_answers_score_more() -> None:
    rows, counts = Label(above=0.25)([group(0.0, 1.0, None, 0.25), group(None)])
    assert [[(c.text, c.label) for c in row.completions] for row in rows] == [
        [("a0", False), ("a1", True), ("a3", False)]
    ]
    assert counts == {"unscorable answers": 2}
    assert Label(reward="r")([group(0.0, 1.0)])[0] == Label()([group(0.0, 1.0)])[0]
