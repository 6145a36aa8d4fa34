"""Lifting users' functions, weighing rewards, and what `None` means."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pytest

import strop.rewards as rewards
from strop.rewards import Exact, Length, Number, Regex, RewardSettings, lift, on_groups, reward_metrics, score
from strop.types import Completion, Group, Message, Verdict

GROUPS = [
    Group("one", (Completion("a"), Completion("bb")), {"answer": "bb"}, origin="rows.jsonl:1"),
    Group("two", (), {"answer": "x"}),
    Group((Message("user", "three"),), (Completion("ccc"),), {"answer": "x"}),
]


def values(verdicts: Sequence[Sequence[Verdict | float | None]]) -> list[list[float | None]]:
    return [[v.score if isinstance(v, Verdict) else v for v in vs] for vs in verdicts]


# --- lifting ---


def test_a_function_of_one_completion_is_lifted_to_groups() -> None:
    seen: list[tuple[str, Mapping[str, Any]]] = []

    def length(completion: str, row: dict[str, Any]) -> int:
        seen.append((completion, row))
        return len(completion)

    assert values(lift(length)(GROUPS)) == [[1.0, 2.0], [], [3.0]]
    assert seen[0] == ("a", {"answer": "bb", "prompt": "one"})
    assert seen[2][1]["prompt"] == [{"role": "user", "content": "three"}]


def test_a_row_is_each_completion_s_own() -> None:
    def spoils(completion: str, row: dict[str, Any]) -> bool:
        return row.setdefault("seen", completion) == completion

    assert values(lift(spoils)(GROUPS)) == [[1.0, 1.0], [], [1.0]]
    assert "seen" not in GROUPS[0].row


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (0.5, 0.5), (True, 1.0), (False, 0.0), (None, None), (Verdict(0.2, "why"), 0.2), (-3, -3.0)],
)
def test_values_that_are_scores(value: Any, expected: float | None) -> None:
    assert values(lift(lambda c, r: value)(GROUPS[:1])) == [[expected, expected]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, Verdict(math.nan)])
def test_values_that_are_no_numbers_are_unscorable(value: Any) -> None:
    verdict = lift(lambda c, r: value)(GROUPS[:1])[0][0]
    assert isinstance(verdict, Verdict)
    assert verdict.score is None
    assert "returned" in verdict.reason


@pytest.mark.parametrize("value", ["1.0", [1.0], {"score": 1}, 1j, object(), (0.5, "why")])
def test_values_of_a_wrong_type_are_errors(value: Any) -> None:
    with pytest.raises(ValueError, match=r"reward 'mine' returned .* return a number"):
        lift(lambda c, r: value, "mine")(GROUPS)


def test_one_failing_completion_is_unscorable() -> None:
    def fails_on_bb(completion: str, row: dict[str, Any]) -> float:
        return 1 / (len(completion) - 2)

    verdicts = lift(fails_on_bb)(GROUPS)
    assert values(verdicts) == [[-1.0, None], [], [1.0]]
    assert isinstance(verdicts[0][1], Verdict)
    assert verdicts[0][1].reason == "failed: ZeroDivisionError: division by zero"


def test_a_reward_that_never_works_is_an_error_with_the_user_s_line() -> None:
    def broken(completion: str, row: dict[str, Any]) -> float:
        return row["anwser"]  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match=r"failed on all 3 .* KeyError: 'anwser' at .*test_protocol.py:\d+ in broken"):
        lift(broken)(GROUPS)


def test_a_reward_that_worked_once_may_fail_later() -> None:
    calls = iter(range(100))

    def flaky(completion: str, row: dict[str, Any]) -> float:
        if next(calls) >= 3:
            raise OSError("down")
        return 1.0

    reward = lift(flaky)
    assert values(reward(GROUPS)) == [[1.0, 1.0], [], [1.0]]
    assert values(reward(GROUPS)) == [[None, None], [], [None]]


def test_different_failures_are_unscorable() -> None:
    def picky(completion: str, row: dict[str, Any]) -> float:
        if completion == "a":
            raise KeyError("a")
        raise OSError("b")

    assert values(lift(picky)(GROUPS[:1])) == [[None, None]]


def test_interrupts_pass_through() -> None:
    def stops(completion: str, row: dict[str, Any]) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lift(stops)(GROUPS)


def test_a_marked_function_sees_whole_groups() -> None:
    @on_groups
    def longest(groups: Sequence[Group]) -> list[list[float]]:
        return [[float(len(c.text) == max(len(d.text) for d in g.completions)) for c in g.completions] for g in groups]

    assert values(lift(longest)(GROUPS)) == [[0.0, 1.0], [], [1.0]]


@pytest.mark.parametrize("answer", [None, [], [[1.0], [], [1.0]], [1.0, 2.0, 3.0], "abc"])
def test_a_marked_function_must_answer_in_the_shape_of_its_groups(answer: Any) -> None:
    with pytest.raises(ValueError, match="reward 'mine'"):
        lift(on_groups(lambda groups: answer), "mine")(GROUPS)


def test_a_marked_function_that_never_works_is_an_error() -> None:
    @on_groups
    def broken(groups: Sequence[Group]) -> list[list[float]]:
        raise RuntimeError("no")

    with pytest.raises(ValueError, match="RuntimeError: no at .*test_protocol.py"):
        lift(broken)(GROUPS)


# --- weighing ---


def one(completion: Completion, *settings: Any) -> Completion:
    return score([Group("p", (completion,), {"answer": "yes"})], settings)[0].completions[0]


def test_a_score_is_the_weighted_sum_and_parts_are_kept_apart() -> None:
    scored = one(
        Completion("yes"),
        Exact(weight=2.0),
        Length(target=0, limit=6, unit="characters", weight=0.5),
        Regex(pattern="no", label="says_no", weight=-1.0),
    )
    assert scored.rewards == {"exact": 1.0, "length": -0.5, "says_no": 0.0}
    assert scored.score == 2.0 - 0.25
    assert scored.reasons["exact"] == "equal"


def test_a_watched_reward_is_no_part_of_the_score() -> None:
    scored = one(Completion("yes"), Exact(), Length(target=0, limit=1, weight=0.0))
    assert scored.rewards == {"exact": 1.0, "length": None}
    assert scored.score == 1.0
    assert one(Completion("yes"), Exact(weight=0.0)).score is None


@dataclasses.dataclass(frozen=True)
class Measured:
    """A reward that measures something beside its score."""

    name: str = "code"
    weight: float = 1.0
    label: str | None = None

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        return [[Verdict(1.0, facts={"tier": "A", "hidden": 0.0}) for _ in group.completions] for group in groups]


def test_what_a_reward_measured_stays_with_the_completion() -> None:
    before = Completion("yes", facts={"old": {"x": 1.0}})
    assert one(before, Measured(), Exact()).facts == {"old": {"x": 1.0}, "code": {"tier": "A", "hidden": 0.0}}


def test_an_unscorable_reward_makes_the_completion_unscorable() -> None:
    scored = one(Completion("yes"), Exact(), Length(target=0, limit=1))
    assert scored.rewards == {"exact": 1.0, "length": None}
    assert scored.score is None
    assert "not known" in scored.reasons["length"]


def test_scoring_leaves_all_else_as_it_is() -> None:
    before = Completion("yes", rewards={"old": 0.1}, reasons={"old": "x"}, token_ids=(1,), logprobs=(-0.5,), score=9.0)
    after = one(before, Exact())
    assert after == dataclasses.replace(
        before, rewards={"old": 0.1, "exact": 1.0}, reasons={"old": "x", "exact": "equal"}, score=1.0
    )
    groups = score(GROUPS, [Exact()])
    assert [dataclasses.replace(g, completions=()) for g in groups] == [
        dataclasses.replace(g, completions=()) for g in GROUPS
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "none given"),
        ([Exact(), Exact(extract="answer_tag")], "two are called 'exact'"),
        ([Exact(), Number(label="exact")], "two are called 'exact'"),
        ([Exact(weight=math.nan)], "finite"),
    ],
)
def test_rewards_that_do_not_go_together(settings: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(GROUPS, settings)


def test_metrics_leave_unscorable_ones_out() -> None:
    completions = tuple(Completion("", rewards={"r": v}) for v in (1.0, 0.0, None, 1.0))
    metrics = reward_metrics([Group("p", completions)], [Exact(label="r")])
    assert metrics["rewards/r/mean"] == pytest.approx(2 / 3)
    assert metrics["rewards/r/std"] == pytest.approx(math.sqrt(2) / 3)
    assert metrics["rewards/r/unscorable"] == 0.25
    nothing = reward_metrics([Group("p", (Completion("", rewards={"r": None}),))], [Exact(label="r")])
    assert nothing == {"rewards/r/unscorable": 1.0}


# --- settings ---

EXAMPLES: list[dict[str, Any]] = [
    {"name": "exact", "extract": "answer_tag"},
    {"name": "number", "weight": 0, "label": "held_out"},
    {"name": "choice", "choices": "options"},
    {"name": "regex", "pattern": "a", "mode": "full"},
    {"name": "tags", "tags": ["think", "answer"]},
    {"name": "length", "target": 1, "limit": 2, "unit": "words"},
    {"name": "overlong", "max_length": 8, "cache": 2},
    {"name": "json_schema", "schema": {"type": "object"}},
    {"name": "math", "timeout_s": 2.0},
    {"name": "code", "tier": "B", "timeout_s": 3.0},
    {"name": "ifeval", "rule": "loose"},
    {"name": "language", "target": "de"},
    {"name": "citations"},
    {"name": "repetition"},
    {"name": "length_range", "low": 2, "high": 9, "ramp": 3},
    {"name": "gym"},
    {"name": "shaped", "reward": {"name": "number"}, "shape": [{"name": "clip", "low": -1.0, "high": 1.0}]},
    {"name": "only", "reward": {"name": "number"}, "column": "answer", "rows": "without"},
    {"name": "custom", "function": "my_rewards.py:polite"},
    {"name": "judge", "backend": {"name": "function", "function": "my_judge.py:judge"}, "method": "rank"},
    {"name": "model", "path": ["one", "other"], "combine": "min"},
    {"name": "process", "path": "prm", "aggregate": "product", "separator": ";"},
    {"name": "implicit_process", "path": ["trained", "reference"], "beta": 0.1},
]


def test_settings_are_a_union_told_apart_by_name() -> None:
    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(Annotated[RewardSettings, pydantic.Field(discriminator="name")])
    read = [adapter.validate_python(e) for e in EXAMPLES]
    assert [r.name for r in read] == [e["name"] for e in EXAMPLES]
    assert {type(r) for r in read} == set(RewardSettings.__args__)
    assert read[4].tags == ("think", "answer")
    for settings in read:
        assert dataclasses.is_dataclass(settings)
        assert type(settings).__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert {"name", "weight", "label"} <= {f.name for f in dataclasses.fields(settings)}
        assert adapter.validate_python(dataclasses.asdict(settings)) == settings


def test_public_names_exist_once() -> None:
    assert sorted(set(rewards.__all__)) == rewards.__all__
    assert all(name in vars(rewards) for name in rewards.__all__)


def test_importing_rewards_imports_nothing_heavy() -> None:
    code = "import sys, strop.rewards; print([m for m in ('torch', 'jsonschema', 'pydantic') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
