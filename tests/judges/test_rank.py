"""Rankings: mean ranks over orders and their reverses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.judges import Listed, Rank, Reply
from strop.judges.rank import kendall
from strop.judges.verdict import verdict_line


class Ranker:
    """Orders by a key of (place, text); `lost` replies are malformed."""

    name = "ranker"

    def __init__(self, key: Any, lost: Any = lambda number: False) -> None:
        self.key, self.lost = key, lost
        self.shown: list[tuple[str, ...]] = []

    def __call__(self, requests: Any) -> list[Reply]:
        out = []
        for request in requests:
            texts = request.inputs["responses"]
            self.shown.append(texts)
            order = sorted(range(len(texts)), key=lambda i: self.key(i, texts[i]))
            text = verdict_line(request.nonce, "order", ["ABCDEFGH"[i] for i in order])
            out.append(Reply(text="lost" if self.lost(len(self.shown)) else text))
        return out


def rank(backend: Any, *texts: str, **settings: Any) -> Any:
    (found,) = Rank(backend=backend, **settings)([Listed(prompt="q", responses=texts)])
    return found


def test_a_judge_that_reads_gives_ranks() -> None:
    found = rank(Ranker(lambda place, text: text), "b", "d", "a", "c")
    assert found.scores == pytest.approx((2 / 3, 0.0, 1.0, 1 / 3)) and found.agreement == 1.0


def test_a_judge_of_places_gives_one_half_to_all() -> None:
    for sign in (1, -1):
        found = rank(Ranker(lambda place, text, sign=sign: sign * place), "b", "d", "a", "c", rounds=3)
        assert found.scores == (0.5,) * 4 and found.agreement == -1.0


def test_each_order_is_shown_with_its_reverse_and_is_a_function_of_the_seed() -> None:
    first, again, other = (Ranker(lambda place, text: text) for _ in range(3))
    for backend, seed in ((first, 0), (again, 0), (other, 1)):
        rank(backend, *"abcdefg", rounds=2, seed=seed)
    assert first.shown == again.shown != other.shown and len(first.shown) == 4
    assert first.shown[1] == first.shown[0][::-1] and first.shown[3] == first.shown[2][::-1]


def test_equal_texts_share_their_score() -> None:
    backend = Ranker(lambda place, text: text)
    assert rank(backend, "x", "a", "x").scores == (0.0, 1.0, 0.0) and len(backend.shown[0]) == 2
    assert rank(backend, "x", "x").scores == (0.5, 0.5) and len(backend.shown) == 2


def test_an_order_without_its_reverse_does_not_count() -> None:
    found = rank(Ranker(lambda place, text: place, lambda n: n in (2, 5)), *"abc", rounds=2)
    assert found.scores == (0.5,) * 3 and found.reason == "mean rank over 2 orders"
    found = rank(Ranker(lambda place, text: place, lambda n: True), *"abc")
    assert found.scores is None and "abstained" in found.reason


@pytest.mark.parametrize("order", [["A"], ["A", "A", "B"], ["A", "B", "D"], "ABC", ["A", "B", 3], [["A"], "B", "C"]])
def test_what_is_no_order_is_malformed(order: Any) -> None:
    def backend(requests: Any) -> list[Reply]:
        return [Reply(text=verdict_line(request.nonce, "order", order)) for request in requests]

    assert rank(backend, *"abc").scores is None


def test_too_many_responses_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 26 responses, got 27"):
        rank(Ranker(lambda place, text: place), *map(str, range(27)))


def test_kendall() -> None:
    a, b = {"x": 0, "y": 1, "z": 2}, {"x": 0, "y": 2, "z": 1}
    assert kendall(a, a, "xyz") == 1 and kendall(a, b, "xyz") == pytest.approx(1 / 3)


def test_a_function_ranks(tmp_path: Path) -> None:
    from strop.judges import Function

    (tmp_path / "m.py").write_text(
        "def f(task, inputs):\n"
        "    order = sorted(range(len(inputs['responses'])), key=lambda i: -len(inputs['responses'][i]))\n"
        "    return ' '.join('ABC'[i] for i in order)\n"
    )
    assert rank(Function(function=f"{tmp_path}/m.py:f"), "a", "bbb", "cc").scores == (0.0, 1.0, 0.5)
