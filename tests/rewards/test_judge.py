"""A judge as a reward: win rates, ranks and ratings with known answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from strop.judges import Endpoint, Function, InProcess, Reply, Request
from strop.judges.verdict import verdict_line
from strop.rewards import JudgeReward, load_rewards, reward_metrics, score
from strop.rewards.judge import _meetings
from strop.types import Completion, Group, Message


@dataclass(frozen=True)
class Longest:
    """Prefers and rates by length; `mute` texts it does not judge."""

    mute: frozenset[str] = frozenset()
    asked: list[Request] = field(default_factory=list, compare=False)
    name: str = "function"

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked.extend(requests)
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Reply:
        texts = request.inputs["responses"]
        if self.mute & set(texts):
            return Reply(text=None, reason="mute")
        if request.task == "rate":
            return Reply(text=verdict_line(request.nonce, "score", min(10, len(texts[0]))))
        if request.task == "rank":
            order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
            return Reply(text=verdict_line(request.nonce, "order", ["ABCDEFG"[i] for i in order]))
        return Reply(text=verdict_line(request.nonce, "better", "A" if len(texts[0]) > len(texts[1]) else "B"))


def group(*texts: str, **row: Any) -> Group:
    return Group((Message("user", "q"),), tuple(Completion(text) for text in texts), row=row)


def judged(backend: Any, *texts: str, row: dict[str, Any] | None = None, **settings: Any) -> list[Any]:
    (found,) = JudgeReward(backend=backend, **settings)([group(*texts, **(row or {}))])
    return [verdict.score for verdict in found]


def test_win_rates_among_siblings() -> None:
    assert judged(Longest(), "aaa", "a", "aa") == [1.0, 0.0, 0.5]
    assert judged(Longest(), "aa", "aa", "a") == [0.75, 0.75, 0.0], "equal answers tie, without being asked"


def test_what_the_judge_does_not_judge_is_unscorable() -> None:
    assert judged(Longest(frozenset({"aa"})), "aaa", "a", "aa") == [1.0, 0.0, None]
    (found,) = JudgeReward(backend=Longest(frozenset({"a"})))([group("a", "b")])  # type: ignore[arg-type]
    assert found[0].score is None and found[0].reason == "abstained: mute"
    assert judged(Longest(), "alone") == [None]


def test_thinking_is_not_shown() -> None:
    backend = Longest()
    assert judged(backend, "<think>long and wide</think>a", "aa") == [0.0, 1.0]
    assert "long and wide" not in backend.asked[0].messages[0].content


def test_anchors() -> None:
    assert judged(Longest(), "aaa", "a", anchors="gold", row={"gold": "aa"}) == [1.0, 0.0]
    assert judged(Longest(), "aaa", "a", anchors="gold", row={"gold": ["aa", "aaaa", "aaa"]}) == [0.5, 0.0]
    with pytest.raises(ValueError, match="no row has a column 'gold'"):
        judged(Longest(), "aaa", anchors="gold")


def test_ranks_and_ratings() -> None:
    assert judged(Longest(), "a", "aaa", "aa", method="rank") == [0.0, 1.0, 0.5]
    assert judged(Longest(), "a" * 10, "a", method="rate") == [1.0, -1.0]
    assert judged(Longest(frozenset({"b"})), "a", "b", method="rate") == [-1.0, None]
    assert judged(Longest(), "alone", method="rank") == [None]


def test_the_principle_and_the_reference_reach_the_judge() -> None:
    backend = Longest()
    judged(backend, "a", "bb", principle="Be kind.", reference="gold", row={"gold": "right"})
    assert all("Be kind." in r.messages[0].content and "| right" in r.messages[0].content for r in backend.asked)


def test_fewer_opponents_are_drawn_on_rings() -> None:
    for opponents, most in ((1, 2), (2, 2), (3, 4)):
        meetings = _meetings(8, opponents, "seed")
        met = [sum(i in pair for pair in meetings) for i in range(8)]
        assert set(met) == {most}, "everybody meets as many"
    assert len(_meetings(4, 9, "")) == len(_meetings(4, None, "")) == 6
    assert _meetings(8, 2, "a") == _meetings(8, 2, "a") != _meetings(8, 2, "b")


def test_figures_become_metrics(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def first(task, inputs):\n    return 'A'\n")
    reward = JudgeReward(backend=Function(function=f"{tmp_path}/m.py:first"))
    scored = score([group("a", "b"), group("c", "d")], [reward])
    assert [c.score for g in scored for c in g.completions] == [0.5] * 4
    found = reward_metrics(scored, [reward])
    assert found["rewards/judge/flip_rate"] == found["rewards/judge/position_bias"] == found["rewards/judge/ties"] == 1
    assert found["rewards/judge/calls"] * 4 == 4 and found["rewards/judge/abstained"] == 0


def test_a_judge_that_cannot_be_asked_fails_before_anything_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="cannot be reached"):
        load_rewards([JudgeReward(backend=Endpoint(url="http://127.0.0.1:9/v1", model="m"))])
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(ValueError, match="NO_KEY is not set"):
        load_rewards([JudgeReward(backend=Endpoint(url="http://127.0.0.1:9/v1", model="m", key_env="NO_KEY"))])
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_rewards([JudgeReward(backend=Function(function=f"{tmp_path}/none.py:f"))])
    with pytest.raises(ValueError, match="cannot load"):
        load_rewards([JudgeReward(backend=InProcess(path=str(tmp_path)))])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "rate", "anchors": "gold"}, "judge.anchors is for method=pairs"),
        ({"anchors": "gold", "opponents": 2}, "leave it out"),
        ({"opponents": 0}, "at least 1"),
        ({"method": "rank", "samples": 2, "temperature": 1.0}, "judge.samples"),
        ({"tie_margin": 0.7}, "tie_margin"),
        ({"method": "rate", "samples": 2}, "temperature"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JudgeReward(backend=Function(function="m.py:f"), **settings)


def test_a_model_that_a_stage_made_is_named() -> None:
    assert JudgeReward(backend=InProcess(path="@sft")).models == ("backend.path",)
    assert JudgeReward(backend=Function(function="m.py:f")).models == ()
