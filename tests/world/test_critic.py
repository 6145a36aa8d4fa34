"""The rule-based critic: it mends style and nothing else, and judges by the principle it is shown."""

from __future__ import annotations

import pytest

from strop.judges import Compare, Function, Pair
from strop.recipes.constitution import load_constitution
from strop.world.critic import NOTHING_TO_MEND, reply
from strop.world.datasets import rows
from strop.world.oracle import POLITE, RAMBLES, RUDE, parse, style

RIGHT = "<think>1+2=3</think><answer>3</answer>"
POLITELY, BRIEFLY = load_constitution("world").principles


def asked(task: str, *responses: str, **more: str | None) -> str:
    return reply(task, {"prompt": "q", "responses": responses, **more})


def test_criticism_and_revision_by_each_principle() -> None:
    text = f"{RIGHT}{RUDE}{RAMBLES[0]}{RAMBLES[3]}"
    critique = asked("critique", text, principle=POLITELY.critique)
    assert critique == "It is rude: it says Obviously."
    assert (
        asked("revise", text, principle=POLITELY.revision, critique=critique)
        == f"{RIGHT}{POLITE}{RAMBLES[0]}{RAMBLES[3]}"
    )
    critique = asked("critique", text, principle=BRIEFLY.critique)
    assert critique == "It rambles: 2 of its sentences have nothing to do with the question."
    assert asked("revise", text, principle=BRIEFLY.revision, critique=critique) == f"{RIGHT}{RUDE}"
    assert asked("revise", text) == f"{RIGHT}{POLITE}", "without a principle all of it"


def test_what_is_good_is_left_alone() -> None:
    assert asked("critique", f"{RIGHT}{POLITE}", principle=POLITELY.critique) == NOTHING_TO_MEND
    assert asked("revise", f"{RIGHT}{POLITE}", critique=NOTHING_TO_MEND) == f"{RIGHT}{POLITE}"
    assert asked("critique", "no form") == NOTHING_TO_MEND and asked("revise", "no form") == "no form"


def test_a_revision_keeps_steps_and_answer_and_never_lowers_the_style() -> None:
    for row in rows("sft", 0, 400):
        text = row["completion"][0]["content"]
        for principle in (POLITELY, BRIEFLY):
            critique = asked("critique", text, principle=principle.critique)
            revised = asked("revise", text, principle=principle.revision, critique=critique)
            before, after = parse(text), parse(revised)
            assert before is not None and after is not None
            assert (before.steps, before.answer) == (after.steps, after.answer)
            assert style(revised) > style(text) if revised != text else critique == NOTHING_TO_MEND


def test_comparisons_by_principle_in_both_orders() -> None:
    polite, brief = f"{RIGHT}{POLITE}{RAMBLES[0]}", RIGHT
    judge = Compare(backend=Function(function="strop.world.critic:reply"))
    pairs = [
        Pair(prompt="q", first=polite, second=brief, principle=POLITELY.comparison),
        Pair(prompt="q", first=polite, second=brief, principle=BRIEFLY.comparison),
        Pair(prompt="q", first=polite, second=brief),
        Pair(prompt="q", first=polite, second=polite + RAMBLES[1], principle=POLITELY.comparison),
    ]
    assert [c.probability for c in judge(pairs)] == [1.0, 0.0, 1.0, 0.5]


def test_ratings_span_the_scale() -> None:
    texts = (f"{RIGHT}{POLITE}", RIGHT, f"{RIGHT}{RUDE}", f"{RIGHT}{RUDE}{RAMBLES[0]}{RAMBLES[1]}")
    assert [asked("rate", text) for text in texts] == ["10", "7", "4", "1"]


def test_an_unknown_task() -> None:
    with pytest.raises(ValueError, match="cannot rank; it can compare, rate, critique, revise"):
        asked("rank", "a", "b")
