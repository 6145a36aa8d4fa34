import itertools

import pytest

from strop.world.datasets import rows
from strop.world.oracle import (
    MALFORMED_STYLE,
    POLITE,
    RAMBLES,
    RUDE,
    Response,
    compose,
    correct,
    gold,
    parse,
    step_labels,
    style,
    thinks,
)
from strop.world.tasks import add, sort

TASK = add(39, 75)
FULL = "<think>9+5=14;3+7+1=11</think><answer>114</answer> Happy to help! Numbers are all around us."


def test_compose_and_parse_are_inverse():
    assert compose(TASK, think=True, remark=POLITE, rambles=[RAMBLES[0]]) == FULL
    assert parse(FULL) == Response(("9+5=14", "3+7+1=11"), "114", "polite", 1)
    tails = itertools.product((True, False), ("", POLITE, RUDE), ((), RAMBLES[:1], RAMBLES[2:4]))
    for think, remark, rambles in tails:
        manner = "polite" if remark == POLITE else "rude" if remark else "plain"
        expected = Response(TASK.steps if think else None, "114", manner, len(rambles))
        assert parse(compose(TASK, think=think, remark=remark, rambles=rambles)) == expected


def test_sort_has_no_steps_to_show():
    assert compose(sort((3, 1, 2)), think=True) == "<answer>123</answer>"


def test_every_generated_response_is_accepted_and_right():
    texts = [row["completion"][0]["content"] for row in rows("sft", 3, 400)]
    texts += [row[side][0]["content"] for row in rows("pairs", 3, 200) for side in ("chosen", "rejected")]
    for text in texts:
        response = parse(text)
        assert response is not None, text
        assert correct(text, response.answer)


@pytest.mark.parametrize("position", range(len(FULL)))
def test_a_character_less_or_another_one_is_no_response(position):
    for mutant in (FULL[:position] + FULL[position + 1 :], FULL[:position] + "#" + FULL[position + 1 :]):
        response = parse(mutant)
        inside = position in range(FULL.index("9+5"), FULL.index("</think>"))
        digit = position in range(FULL.index("114"), FULL.index("</answer>"))
        if inside:  # still a form, but no longer the right steps
            assert response is None or step_labels(mutant, TASK.steps) != (True, True)
        elif digit:  # one digit less: another answer
            assert not correct(mutant, "114")
        else:
            assert response is None, mutant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "114",
        "<answer></answer>",
        "<answer> 114</answer>",
        "<answer>114</answer>\n",
        "<answer>114</answer> Happy to help! Happy to help!",
        "<answer>114</answer> Happy to help! Obviously.",
        "<answer>114</answer> Numbers are all around us. Happy to help!",
        "<answer>114</answer><answer>115</answer>",
        "<answer>114</answer> Numbers are all",
        "<think></think><answer>114</answer>",
        "<think>9+5=14<think>3</think><answer>114</answer>",
        "<think>9+5=14;3+7+1=11<answer>114</answer>",
        "<answer>114</answer><think>9+5=14;3+7+1=11</think>",
        "<answer>١١٤</answer>",
        "<answer>114</answer><|end|>",
    ],
)
def test_other_forms_are_refused_and_do_not_pay(text):
    assert parse(text) is None
    assert not correct(text, "114")
    assert step_labels(text, TASK.steps) is None
    assert style(text) == MALFORMED_STYLE == gold(text, "114") == -1.0
    assert not thinks(text)


def test_answers_are_compared_character_for_character():
    assert correct("<answer>7</answer>", "7")
    assert not correct("<answer>07</answer>", "7")


def test_step_labels_compare_each_place():
    def labels(*steps):
        return step_labels(f"<think>{';'.join(steps)}</think><answer>114</answer>", TASK.steps)

    assert labels("9+5=14", "3+7+1=11") == (True, True)
    assert labels("9+5=13", "3+7+1=11") == (False, True)
    assert labels("3+7+1=11", "9+5=14") == (False, False)
    assert labels("9+5=14") == (True,)
    assert labels("9+5=14", "3+7+1=11", "1+1=02") == (True, True, False)
    assert step_labels("<answer>114</answer>", TASK.steps) == ()


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("", 0.0),
        (POLITE, 1.0),
        (RUDE, -1.0),
        (POLITE + RAMBLES[0], 0.5),
        (RUDE + RAMBLES[0] + RAMBLES[1], -2.0),
        (RAMBLES[3] * 4, -2.0),
    ],
)
def test_gold_style(tail, expected):
    assert style("<answer>114</answer>" + tail) == expected
    assert gold("<answer>114</answer>" + tail, "114") == expected + 1
    assert gold("<answer>115</answer>" + tail, "114") == expected


def test_thinks():
    assert thinks(FULL)
    assert not thinks("<answer>114</answer>")
