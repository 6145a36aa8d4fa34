"""Rules on two answers: each by itself, their dead zones, and how several make one preference."""

from __future__ import annotations

from typing import Any

import pytest

from strop.rollout.couples import Couple
from strop.rollout.rules import (
    Cites,
    Finished,
    HigherScore,
    LessRepetitive,
    Longer,
    Matches,
    Politer,
    Rules,
    Shorter,
)
from strop.types import Completion, Group


def couple(first: str | Completion, second: str | Completion) -> Couple:
    sides = [c if isinstance(c, Completion) else Completion(c) for c in (first, second)]
    return Couple(group=Group("q", tuple(sides)), first=0, second=1)


@pytest.mark.parametrize(
    ("rule", "better", "worse"),
    [
        (Longer(), "one two three", "one two"),
        (Shorter(), "one two", "one two three"),
        (Shorter(unit="characters"), "a bc d", "internationalisation"),
        (Matches(pattern=r"\bdue\b"), "It is due.", "It is a duel."),
        (Matches(pattern=r"(?i)as an ai", absent=True), "Paris.", "As an AI, I say Paris."),
        (Cites(), "Peas vary (Mendel, 1866).", "Peas vary (in 1866)."),
        (Cites(), "So it is [3].", "So it is [sic]."),
        (Cites(), "See https://example.org/a.", "See the web."),
        (Cites(), "It grows (Smith et al., 2019a).", "It grows (Smith)."),
        (Politer(), "4. Happy to help!", "4."),
        (Politer(), "4.", "4, obviously."),
        (LessRepetitive(), "a b c d e f g h", "a b c d a b c d a b c d"),
        (Finished(), Completion("a", finish="stop"), Completion("b", finish="length")),
        (HigherScore(), Completion("a", score=0.5), Completion("b", score=-1.0)),
        (HigherScore(reward="x"), Completion("a", rewards={"x": 1.0}), Completion("b", score=9.0, rewards={"x": 0.0})),
    ],
)
def test_a_rule_prefers_one_answer_and_the_other_when_they_change_places(rule: Any, better: Any, worse: Any) -> None:
    assert rule(couple(better, worse)) == 1
    assert rule(couple(worse, better)) == -1
    assert rule(couple(better, better)) == 0


def test_dead_zones() -> None:
    ten, eleven, twelve = (" ".join(["w"] * n) for n in (10, 11, 12))
    assert (Longer()(couple(eleven, ten)), Longer()(couple(twelve, ten))) == (0, 1), "a tenth of the longer one"
    assert Longer(share=0.0)(couple(eleven, ten)) == 1 and Longer(share=0.0, margin=2)(couple(twelve, ten)) == 0
    near, far = Completion("a", score=1.0), Completion("b", score=1.3)
    assert HigherScore(margin=0.3)(couple(far, near)) == 0 and HigherScore(margin=0.29)(couple(far, near)) == 1
    assert HigherScore()(couple(near, Completion("c"))) is None


def test_in_order_the_first_rule_that_does_not_tie_decides() -> None:
    rules = Rules(rules=(Cites(), Shorter()), confidence=0.9)
    cited, short, long = "Long but sourced, see here [1].", "Short.", "Long, and without any source."
    (told,) = rules([couple(short, cited)])
    assert (told.probability, told.margin, told.reason, told.tie) == (pytest.approx(0.1), 1.0, "cites", False)
    (told,) = rules([couple(short, long)])
    assert (told.probability, told.reason) == (0.9, "shorter")
    (told,) = rules([couple("One.", "Two.")])
    assert (told.probability, told.margin, told.tie, told.reason) == (0.5, 0.0, True, "all rules tie")


def test_weights_are_weighed_against_each_other() -> None:
    """Cites (2) against shorter (1) and politer (1): 2 - 1 - 0 of 4."""
    rules = Rules(rules=(Cites(weight=2.0), Shorter(), Politer()), combine="weighted")
    cited, short = "Long but sourced, see here [1].", "Short."
    (told,) = rules([couple(cited, short)])
    assert (told.probability, told.margin, told.reason) == (1.0, 0.25, "cites +1, shorter -1")
    (told,) = rules([couple(cited, "Thanks.")])
    assert told.tie and told.probability == 0.5, "2 - 1 - 1"
    wide = Rules(rules=rules.rules, combine="weighted", min_margin=0.25)
    assert wide([couple(cited, short)])[0].tie


def test_what_a_rule_cannot_tell_is_an_abstention_where_it_is_needed() -> None:
    unscored = couple("Short.", "A much longer answer.")
    in_order = Rules(rules=(Shorter(), HigherScore()))
    assert in_order([unscored])[0].probability == 1.0, "the first rule decided"
    (told,) = Rules(rules=(HigherScore(), Shorter()))([unscored])
    assert (told.probability, told.reason) == (None, "abstained: higher_score cannot tell")
    assert Rules(rules=in_order.rules, combine="weighted")([unscored])[0].probability is None


def test_answers_stand_as_high_as_they_win() -> None:
    group = Group("q", tuple(map(Completion, ("a b c", "a", "a b c d e", "a"))))
    assert Rules(rules=(Shorter(),)).values(group) == [-1.0, 2.0, -3.0, 2.0]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rules": ()}, "rules.rules is empty"),
        ({"rules": (Shorter(),), "confidence": 0.5}, "rules.confidence must be more than 0.5"),
        ({"rules": (Shorter(),), "min_margin": 1.0}, "rules.min_margin must be at least 0 and less than 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Rules(**settings)
    with pytest.raises(ValueError, match="shorter.share"):
        Shorter(share=1.0)
    with pytest.raises(ValueError, match="longer.weight must be a positive number"):
        Longer(weight=0.0)
    with pytest.raises(ValueError, match="matches.pattern"):
        Matches(pattern="(")
