import pytest

from strop.world import rewards

ROW = {"answer": "114"}
CASES = {
    "<think>9+5=14;3+7+1=11</think><answer>114</answer> Happy to help!": (1, 1.0, 1, 0, 0, 1),
    "<answer>113</answer> Obviously. Numbers are all around us.": (0, -1.5, 0, 1, 1, 0),
    "<answer>114</answer>": (1, 0.0, 0, 0, 0, 0),
    "<answer>114": (0, -1.0, 0, 0, None, 0),
}
NAMES = ("accuracy", "style", "polite", "rude", "rambles", "thinks")


@pytest.mark.parametrize("text", CASES)
def test_every_reward_of_every_case(text):
    assert tuple(getattr(rewards, name)(text, ROW) for name in NAMES) == CASES[text]


def test_a_number_as_answer_is_the_same_as_its_text():
    assert rewards.accuracy("<answer>114</answer>", {"answer": 114}) == 1.0


def test_a_row_without_an_answer_cannot_be_judged():
    assert rewards.accuracy("<answer>114</answer>", {}) is None
