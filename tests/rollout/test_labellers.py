"""Labellers on couples: Bradley-Terry probabilities of scores, a judge in both orders, principles averaged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from strop.judges import Compare, Function
from strop.rollout.couples import Couple
from strop.rollout.labellers import Judge, Scores
from strop.rollout.principles import Principle
from strop.types import Completion, Group, Message

JUDGE = '''
def longest(task, inputs):
    """Prefers more letters; by a principle that says short, fewer; abstains from questions."""
    first, second = map(len, inputs["responses"])
    if "?" in inputs["prompt"]:
        raise RuntimeError("no idea")
    if first == second:
        return "tie"
    return "A" if (first > second) != ("short" in (inputs["principle"] or "")) else "B"

def first(task, inputs):
    return "A"

def reference(task, inputs):
    return "AB"[[inputs["reference"] in r for r in inputs["responses"]].index(True)]
'''


def couple(first: Any, second: Any, prompt: str = "q", principles: tuple[Principle, ...] = (), **row: Any) -> Couple:
    sides = tuple(Completion(c) if isinstance(c, str) else Completion("text", score=c) for c in (first, second))
    return Couple(group=Group(prompt, sides, row=row), first=0, second=1, principles=principles)


def principle(name: str) -> Principle:
    return Principle(id=name, critique="c", revision="r", comparison=f"The better one is {name}.")


@pytest.fixture
def judge(tmp_path: Path) -> Any:
    (tmp_path / "judge.py").write_text(JUDGE)

    def make(name: str, **settings: Any) -> Judge:
        return Judge(compare=Compare(backend=Function(function=f"{tmp_path}/judge.py:{name}")), **settings)

    return make


def test_scores_as_bradley_terry_probabilities() -> None:
    couples = [couple(2.0, 0.5), couple(0.5, 2.0), couple(1.0, 1.0), couple(1e4, -1e4)]
    soft = Scores(temperature=2.0)(couples)
    p = 1 / (1 + math.exp(-0.75))
    assert [t.probability for t in soft] == pytest.approx([p, 1 - p, 0.5, 1.0], rel=1e-14)
    assert [t.margin for t in soft] == [1.5, 1.5, 0.0, 2e4] and [t.tie for t in soft] == [False, False, True, False]
    assert [t.probability for t in Scores()(couples)] == [1.0, 0.0, 0.5, 1.0]
    wide = Scores(min_margin=1.5, temperature=2.0)(couples)
    assert [t.tie for t in wide] == [True, True, True, False] and wide[0].probability == soft[0].probability
    (told,) = Scores()([Couple(group=Group("q", (Completion("a"), Completion("b", score=1.0))), first=0, second=1)])
    assert (told.probability, told.reason) == (None, "abstained: an answer without a score")
    with pytest.raises(ValueError, match="scores.temperature must be more than 0"):
        Scores(temperature=0.0)


def test_a_judge_is_asked_in_both_orders(judge: Any) -> None:
    told = judge("longest")([couple("long text", "short"), couple("a", "b"), couple("x", "yy", prompt="why?")])
    assert [t.probability for t in told] == [1.0, 0.5, None]
    assert told[0].facts == {"forward": 1.0, "backward": 1.0, "flipped": 0.0} and told[0].margin == 1.0
    assert told[1].tie and told[1].margin == 0.0
    assert "no idea" in told[2].reason
    (told,) = judge("first")([couple("x", "yy")])
    assert (told.probability, told.tie, told.facts["flipped"]) == (0.5, True, 1.0), "a judge of places alone"


def test_principles_are_averaged_and_written_down(judge: Any) -> None:
    short, long, wide = map(principle, ("short", "long", "wide"))
    asked = [
        couple("long text", "a", principles=p) for p in ((short,), (long, wide), (short, long, wide), (short, long))
    ]
    told = judge("longest", constitution="world", num_principles=3)(asked)
    assert [t.probability for t in told] == pytest.approx([0.0, 1.0, 2 / 3, 0.5])
    assert [t.margin for t in told] == pytest.approx([1.0, 1.0, 1 / 3, 0.0]) and told[3].tie
    assert told[2].facts["principles"] == ["short", "long", "wide"]
    assert told[2].reason == "the mean of 3 principles"
    with pytest.raises(ValueError, match="judge.num_principles is for a constitution"):
        judge("longest", num_principles=2)


def test_a_known_good_answer_is_shown(judge: Any) -> None:
    (told,) = judge("reference", reference="answer")([couple("it is 12", "it is 13", answer=12)])
    assert told.probability == 1.0


def test_answers_of_several_turns_are_judged_whole(judge: Any) -> None:
    def turns(last: str) -> Completion:
        return Completion((Message("assistant", "Hi"), Message("user", "And?"), Message("assistant", last)))

    group = Group("q", (turns("Bye."), turns("Goodbye, friend.")))
    (told,) = judge("longest")([Couple(group=group, first=0, second=1)])
    assert told.probability == 0.0
