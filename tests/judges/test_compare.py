"""Comparisons: closed forms of both orders, log-probabilities, samples and the clamp, over HTTP and by functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from strop.judges import Compare, Comparison, Function, Pair, Reply, Request, figures, usage_of
from strop.judges.verdict import verdict_line
from strop.types import Message

PAIR = Pair(prompt="2 + 2?", first="4", second="5")


@dataclass(frozen=True)
class Scripted:
    """A backend that answers by a function and keeps what it was asked."""

    answer: Callable[[Request], Reply]
    asked: list[Request] = field(default_factory=list)
    name: str = "scripted"

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked.extend(requests)
        return [self.answer(request) for request in requests]


def says(letter: str) -> Callable[[Request], Reply]:
    return lambda request: Reply(text=verdict_line(request.nonce, "better", letter))


def with_p(p: Callable[[Request], float]) -> Callable[[Request], Reply]:
    """A verdict with P(A), told as log-probabilities of surface variants."""

    def answer(request: Request) -> Reply:
        a = p(request)
        tokens = ('{"nonce": "', request.nonce, '", "better": "', "A", '"}')
        place = {"A": math.log(a * 0.6), " A": math.log(a * 0.3), "B": math.log((1 - a) * 0.9), "The": -1.0}
        return Reply(text="".join(tokens), tokens=tokens, logprobs=({}, {}, {}, place, {}))

    return answer


def prefers(text: str, p: float = 1.0) -> Callable[[Request], float]:
    """P(A) of a judge that finds this text better."""
    return lambda request: p if request.inputs["responses"][0] == text else 1 - p


def one(answer: Callable[[Request], Reply], pair: Pair = PAIR, **settings: Any) -> Comparison:
    (found,) = Compare(backend=Scripted(answer), **settings)([pair])
    return found


def test_both_orders_are_asked_and_averaged() -> None:
    backend = Scripted(with_p(lambda r: 0.9 if r.inputs["responses"][0] == "4" else 0.3))
    (found,) = Compare(backend=backend)([PAIR])
    assert [r.inputs["responses"] for r in backend.asked] == [("4", "5"), ("5", "4")]
    assert found.forward == pytest.approx(0.9) and found.backward == pytest.approx(0.7)
    assert found.probability == pytest.approx(0.8) and found.flipped is False and not found.tie


def test_a_judge_of_places_gives_one_half_and_always_flips() -> None:
    for answer in (says("A"), says("B"), with_p(lambda r: 0.83)):
        found = one(answer)
        assert found.probability == 0.5 and found.flipped and found.tie
    measured = figures([one(says("A")), one(with_p(lambda r: 0.75))])
    assert measured["judge/flip_rate"] == 1 and measured["judge/position_bias"] == pytest.approx((1 + 0.5) / 2)
    assert measured["judge/ties"] == 1 and measured["judge/abstained"] == 0


@pytest.mark.parametrize("p", [0.5, 0.56, 0.8, 0.999])
def test_swapping_the_responses_gives_one_minus_p(p: float) -> None:
    swapped = Pair(prompt=PAIR.prompt, first=PAIR.second, second=PAIR.first)
    answer = with_p(lambda r: prefers("4", p)(r) * 0.9 + 0.05)
    a, b = one(answer), one(answer, swapped)
    assert a.probability is not None and b.probability is not None
    assert a.probability == pytest.approx(1 - b.probability)
    assert a.forward == pytest.approx(1 - (b.backward or 0)) and a.flipped == b.flipped


def test_equal_responses_are_one_half_without_asking() -> None:
    backend = Scripted(says("A"))
    (found,) = Compare(backend=backend)([Pair(prompt="q", first="x", second="x")])
    assert found.probability == 0.5 and found.tie and found.flipped is None and backend.asked == []
    assert "judge/position_bias" not in figures([found])


def test_what_is_close_to_one_half_is_a_tie() -> None:
    for p, tie in ((0.54, True), (0.5501, False), (0.4499, False), (0.46, True)):
        found = one(with_p(prefers("4", p)))
        assert found.tie is tie and found.probability == (0.5 if tie else pytest.approx(p))
    assert not one(with_p(prefers("4", 0.501)), tie_margin=0.0).tie


def test_the_letter_counts_where_no_probabilities_are_told() -> None:
    assert one(lambda r: says("A" if r.inputs["responses"][0] == "4" else "B")(r)).probability == 1.0
    assert one(says("tie")).probability == 0.5 and not one(says("tie")).flipped


def test_the_clamp_bounds_each_order() -> None:
    """Bai et al.: verdicts after thinking are kept within 0.4 and 0.6."""
    found = one(with_p(prefers("4", 0.97)), think=True, clamp=(0.4, 0.6))
    assert (found.forward, found.backward, found.probability) == (0.6, 0.6, 0.6)
    found = one(with_p(lambda r: 0.55 if r.inputs["responses"][0] == "4" else 0.01), clamp=(0.4, 0.6))
    assert found.probability == pytest.approx((0.55 + 0.6) / 2)


def test_samples_are_averaged_in_each_order_first() -> None:
    """Three of four verdicts that came in one order, and all in the other: orders weigh the same."""
    values = iter([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])

    def answer(request: Request) -> Reply:
        return says("A" if next(values) else "B")(request)

    found = one(answer, samples=4, temperature=0.7)
    assert (found.forward, found.backward) == (0.75, 1.0) and found.probability == 0.875


def test_lost_samples_do_not_weigh() -> None:
    lost = iter([True, False, False, False])

    def answer(request: Request) -> Reply:
        return (
            Reply(text=None, reason="lost")
            if next(lost)
            else says("A" if request.inputs["responses"][0] == "4" else "B")(request)
        )

    found = one(answer, samples=2, temperature=1.0)
    assert found.probability == 1.0


def test_samples_differ_in_code_and_seed() -> None:
    backend = Scripted(says("A"))
    Compare(backend=backend, samples=3, temperature=1.0)([PAIR])
    assert len({r.nonce for r in backend.asked}) == len({r.seed for r in backend.asked}) == 6
    again = Scripted(says("A"))
    Compare(backend=again, samples=3, temperature=1.0)([PAIR])
    assert [r.nonce for r in again.asked] == [r.nonce for r in backend.asked], "a rerun asks the same"


def test_a_malformed_reply_is_asked_once_more_with_another_code() -> None:
    seen: dict[str, int] = {}

    def stubborn(request: Request) -> Reply:
        seen[request.nonce] = seen.get(request.nonce, 0) + 1
        return Reply(text="I like A.")

    found = one(stubborn)
    assert found.probability is None and found.forward is None and found.flipped is None
    assert len(seen) == 4 and set(seen.values()) == {1}
    assert found.reason == "abstained: the reply does not end with a verdict"

    first = iter([True, False] + [False] * 9)
    assert one(lambda r: Reply(text="hm") if next(first) else says("A")(r)).probability == 0.5


def test_an_order_that_cannot_be_had_makes_the_judge_abstain() -> None:
    def half(request: Request) -> Reply:
        return says("A")(request) if request.inputs["responses"][0] == "4" else Reply(text=None, reason="cut off")

    found = one(half)
    assert (found.probability, found.forward, found.backward) == (None, 1.0, None)
    assert found.reason == "abstained: cut off" and figures([found])["judge/abstained"] == 1


def test_the_principle_the_reference_and_the_turns_are_in_the_question() -> None:
    backend = Scripted(says("A"))
    turns = (Message("system", "be brief"), Message("user", "2 + 2?"))
    pair = Pair(prompt=turns, first="4", second="5", principle="Prefer the honest one.", reference="four")
    Compare(backend=backend, criterion="UNUSED")([pair])
    text = backend.asked[0].messages[0].content
    for words in ("Prefer the honest one.", "| (system) be brief", "| (user) 2 + 2?", "| four", "response A\n| 4\n"):
        assert words in text
    assert "UNUSED" not in text and text.count(backend.asked[0].nonce) >= 9
    assert backend.asked[0].inputs == {
        "prompt": "(system) be brief\n(user) 2 + 2?",
        "responses": ("4", "5"),
        "principle": "Prefer the honest one.",
        "reference": "four",
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 0}, "samples must be at least 1"),
        ({"samples": 3}, "set judge.temperature=0.7"),
        ({"temperature": -1}, "must not be negative"),
        ({"tie_margin": 0.5}, "tie_margin"),
        ({"clamp": (0.6, 0.9)}, "clamp must hold 0.5"),
        ({"max_tokens": 0}, "max_tokens must be positive"),
        ({"max_chars": 5}, "max_chars"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Compare(backend=Function(function="x.py:f"), **settings)


# Functions.


def test_a_function_judges(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def longer(task, inputs):\n"
        "    a, b = inputs['responses']\n"
        "    return 'tie' if len(a) == len(b) else 'A' if len(a) > len(b) else 'B'\n"
        "def breaks(task, inputs):\n    raise KeyError('gold')\n"
        "def junk(task, inputs):\n    return 'maybe A'\n"
        "def number(task, inputs):\n    return 1\n"
    )
    pairs = [Pair(prompt="q", first="long", second="s"), Pair(prompt="q", first="ab", second="cd")]
    backend = Function(function=f"{tmp_path}/mine.py:longer")
    assert [c.probability for c in Compare(backend=backend)(pairs)] == [1.0, 0.5]
    assert usage_of(backend).total.calls == 4
    for name, why in (("breaks", "KeyError: 'gold'"), ("junk", "'maybe A', which is no better"), ("number", "int")):
        (found,) = Compare(backend=Function(function=f"{tmp_path}/mine.py:{name}"))(pairs[:1])
        assert found.probability is None and why in found.reason
    with pytest.raises(ValueError, match="function.function: .*has no 'longr'; did you mean longer"):
        Compare(backend=Function(function=f"{tmp_path}/mine.py:longr"))(pairs)
    with pytest.raises(ValueError, match="write package.module:function"):
        Function(function="longer")


# Over HTTP.


def test_probabilities_over_http(web: ModuleType, endpoint: Any) -> None:
    """softmax over summed variants: A = e^-1 + e^-3, B = e^-2."""
    place = {"A": -1.0, " A": -3.0, "B": -2.0, "C": -0.1}
    with web.JudgeServer(lambda n, body: web.verdict_with(body, "A", place)) as server:
        (found,) = Compare(backend=endpoint(server.url))([PAIR])
    a, b = math.exp(-1) + math.exp(-3), math.exp(-2)
    assert found.forward == pytest.approx(a / (a + b)) and found.backward == pytest.approx(b / (a + b))
    assert found.probability == 0.5 and found.flipped


def test_a_judge_over_http_that_finds_the_right_one(web: ModuleType, endpoint: Any) -> None:
    def right(n: int, body: dict[str, Any]) -> Any:
        return web.verdict(body, "A" if web.responses_of(body)[0] == "4" else "B", before="Four it is.\n\n")

    with web.JudgeServer(right) as server:
        judge = Compare(backend=endpoint(server.url), think=True)
        assert judge([PAIR])[0].probability == 1.0 and server.hits == 2
        assert judge([PAIR])[0].probability == 1.0 and server.hits == 2, "a rerun makes no calls"
    assert usage_of(judge.backend).total.cached == 2 and usage_of(judge.backend).total.completion_tokens == 20


def test_replies_that_were_mixed_up_do_not_count(web: ModuleType, endpoint: Any) -> None:
    """A server that answers each question with the verdict on the one before."""
    last: list[Any] = []

    def late(n: int, body: dict[str, Any]) -> Any:
        last.append(web.verdict(body, "A"))
        return last[-2] if len(last) > 1 else web.completion("wait")

    with web.JudgeServer(late) as server:
        (found,) = Compare(backend=endpoint(server.url, concurrency=1))([PAIR])
    assert found.probability is None and "another question's code" in found.reason


def test_a_letter_alone_counts_only_with_its_probability_and_not_as_an_echo(web: ModuleType, endpoint: Any) -> None:
    told = {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": -2.4}]}]}
    with web.JudgeServer(lambda n, body: web.completion("A", told)) as server:
        assert Compare(backend=endpoint(server.url))([PAIR])[0].flipped
        (found,) = Compare(backend=endpoint(server.url))([Pair(prompt="q", first="A", second="C")])
        assert found.probability is None
    with web.JudgeServer(lambda n, body: web.completion("A")) as server:
        assert Compare(backend=endpoint(server.url))([PAIR])[0].probability is None
