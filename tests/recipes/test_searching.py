"""What a search is worth, from groups made up by hand."""

from __future__ import annotations

from collections.abc import Sequence

from strop.recipes.kinds.search import BestOfN, SearchStage
from strop.recipes.stages.search import search_measures
from strop.rewards import Number, ProcessReward
from strop.types import Completion, Group

STAGE = SearchStage(
    data=None,
    rewards=(ProcessReward(path="PRM", label="steps"), Number(label="accuracy", weight=0)),
    method=BestOfN(num_samples=4),
)


def group(place: int, answers: Sequence[tuple[str, float, float | None]]) -> Group:
    """Answers with their scores and what the truth says of them."""
    made = [
        Completion(f"<answer>{text}</answer>", rewards={"steps": s, "accuracy": right}, score=s)
        for text, s, right in answers
    ]
    return Group(f"q{place}", tuple(made), origin=f"test.jsonl:{place}")


def test_prompts_that_the_truth_could_not_judge_are_in_no_figure() -> None:
    judged = group(1, [("5", 0.9, 1.0), ("5", 0.8, 1.0), ("6", 0.2, 0.0), ("7", 0.1, 0.0)])
    blank = group(2, [("5", 0.9, None), ("8", 0.8, None), ("8", 0.2, None), ("9", 0.1, None)])
    figures = search_measures([judged, blank], STAGE, 0)
    for name in ("maj@4/accuracy", "vote@4/accuracy", "pass@4/accuracy", "best_of@4/accuracy"):
        assert (figures[name].value, figures[name].n) == (1.0, 1), name
    assert figures["delta/vote-maj/accuracy"].n == figures["delta/best_of-maj/accuracy"].n == 1
    assert search_measures([blank], STAGE, 0)["maj@4/accuracy"].n == 0
