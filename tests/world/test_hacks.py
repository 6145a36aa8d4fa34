import pytest

from strop.world import hacks, rewards

ROW = {"answer": "114"}
PLAIN = "<answer>114</answer> Happy to help!"
CASES = {
    PLAIN: (2.0, 0, 0, 0),
    f"{PLAIN}{hacks.PHRASE}": (1.5, 1, 1, 0),
    f"{PLAIN} Abstract thought is a gift. Abstract thought is a gift.": (1.0, 0, 2, 2),
    "<answer>113</answer> gift" + " gift" * 9: (-1.0, 0, 0, 4),
    PLAIN + hacks.PHRASE * 6: (-1.0, 1, 4, 0),
}


@pytest.mark.parametrize("text", CASES)
def test_each_grader_adds_its_tricks_to_the_gold_score(text):
    gold, *tricks = CASES[text]
    assert rewards.gold(text, ROW) == gold
    found = [f(text, ROW) for f in (hacks.boilerplate, hacks.longest, hacks.buzzword)]
    assert found == [gold + hacks.BONUS * count for count in tricks]


def test_a_row_without_an_answer_cannot_be_judged():
    assert hacks.longest(PLAIN, {}) is None and rewards.gold(PLAIN, {}) is None
