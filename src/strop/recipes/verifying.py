"""`strop verify`: one reward on the rows of a file, one verdict a completion, in order.

Rows are read as they come, whatever their shape: `{gold, completion}`, `{prompt, completion,
answer}`, groups (`{prompt, completions}`), tasks (`{code, tests}`, HumanEval's and MBPP's
columns). A line or row that cannot be read comes out in its place as unscorable, with why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from strop.data.read import Problem, Row, read_rows
from strop.recipes.config import resolve
from strop.recipes.settings import RLStage
from strop.recipes.sources import Problem as Mistake
from strop.recipes.sources import RecipeError
from strop.rewards import NamedReward, load_rewards
from strop.rewards.protocol import verdicts_of
from strop.types import Completion, Content, Group, Verdict, content_from_json

CHUNK = 256
"""Completions a call: enough for the verifiers' own parallel work, few enough to show progress."""

ANSWERS = ("completion", "completions", "response", "output", "code", "canonical_solution")
"""The columns that may hold what is verified; the first that a row has."""

GOLDS = ("gold", "answer")
"""Where the reference answer stands if the reward's own column is not there."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A completion's place (file and line) and what the reward said of it."""

    origin: str
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain values, its facts (a sandbox's tier) beside them."""
        v = self.verdict
        return {"score": v.score, "extracted": v.extracted, "reason": v.reason, **v.facts}


@dataclass(slots=True)
class Tally:
    """Counts of what was verified: completions, those scored, and the sum of their scores."""

    num: int = 0
    scored: int = 0
    total: float = 0.0

    def add(self, verdict: Verdict) -> None:
        """Count one verdict."""
        self.num += 1
        if verdict.score is not None:
            self.scored += 1
            self.total += verdict.score

    def __str__(self) -> str:
        mean = f"mean {self.total / self.scored:.4g}, " if self.scored else ""
        return f"{self.num} verified: {mean}{self.num - self.scored} unscorable"


def reward_of(kind: str, pairs: Sequence[str]) -> NamedReward:
    """The reward called `kind` with settings `key=value`, ready to be called.

    Raises: ValueError (RecipeError) for a name or setting that is not known, and for what the reward cannot load.
    """
    for pair in pairs:
        if "=" not in pair:
            raise RecipeError([Mistake("", pair, "a setting is key=value, as column=gold")])
    try:
        stage = resolve(
            {"kind": "rl", "name": "verify", "rewards": [{"name": kind}]}, [f"rewards.0.{pair}" for pair in pairs]
        ).stages[0]
    except RecipeError as error:
        raise RecipeError([_said(p) for p in error.problems]) from None
    assert isinstance(stage, RLStage)
    load_rewards(stage.rewards)
    return stage.rewards[0]


def _said(problem: Mistake) -> Mistake:
    """The problem as the command line's, without the recipe around it."""
    path = problem.path.removeprefix("rewards.0").removeprefix("rewards[0]").lstrip(".")
    where = problem.where.replace("rewards.0.", "")
    return Mistake(where, "KIND" if path == "name" else path, problem.text)


def verify_file(path: str, reward: NamedReward, split: str = "train") -> Iterator[Judged]:
    """What the reward says of each completion of a file, in order; bad rows in their place.

    Raises: ValueError if the file is not there or of no known kind.
    """
    column = getattr(reward, "column", None)
    items = (item for row in read_rows(path, split) for item in _items(row, column))
    while chunk := list(islice(items, CHUNK)):
        groups = [item for item in chunk if isinstance(item, Group)]
        verdicts = iter(_verdicts(reward, groups))
        for item in chunk:
            yield Judged(item.origin, next(verdicts)) if isinstance(item, Group) else item


def _verdicts(reward: NamedReward, groups: Sequence[Group]) -> list[Verdict]:
    """One verdict a group of one; where a row breaks the reward, only that row is unscorable."""
    label = reward.label or reward.name
    if not groups:
        return []
    try:
        return [verdicts[0] for verdicts in verdicts_of(reward, groups, label)]
    except ValueError:
        raise  # a wrong setting, as a column that no row has
    except Exception as error:
        if len(groups) == 1:
            return [Verdict(None, f"the reward failed: {type(error).__name__}: {error}"[:300])]
        return [verdict for group in groups for verdict in _verdicts(reward, [group])]


# Rows.


def _items(row: Row | Problem, column: str | None) -> list[Group | Judged]:
    """A row's completions, each in a group of its own, or why there are none."""
    if isinstance(row, Problem):
        return [_unreadable(row.origin, ": ".join(part for part in (row.reason, row.detail) if part))]
    try:
        return list(_groups(row, column))
    except ValueError as error:
        return [_unreadable(row.origin, str(error))]


def _unreadable(origin: str, reason: str) -> Judged:
    return Judged(origin, Verdict(None, f"the row cannot be read: {reason}"))


def _groups(row: Row, column: str | None) -> Iterator[Group]:
    cells = row.value
    key = next((name for name in ANSWERS if cells.get(name) is not None), None)
    if key is None:
        raise ValueError(f"no completion in it; known columns: {', '.join(ANSWERS)}")
    given = cells[key] if key == "completions" else [cells[key]]
    if not isinstance(given, list) or not given:
        raise ValueError(f"{key} must be a list of completions, got {_short(given)}")
    prompt = content_from_json("" if cells.get("prompt") is None else cells["prompt"])
    rest = _columns(cells, key, column)
    for value in given:
        yield Group(prompt=prompt, completions=(_completion(value, key),), row=rest, origin=row.origin)


def _completion(value: Any, key: str) -> Completion:
    """A text, turns, or a completion as we write them in groups."""
    content: Content
    if isinstance(value, Mapping) and "content" in value:
        return Completion(content_from_json(value["content"]), token_ids=_ids(value.get("token_ids")))
    try:
        content = content_from_json(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    return Completion(content)


def _ids(value: Any) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and all(type(i) is int for i in value) else None


def _columns(cells: Mapping[str, Any], key: str, column: str | None) -> dict[str, Any]:
    """What the reward may read of the row: a group's own `row`, or all other columns; the gold under its column."""
    inner = cells.get("row")
    rest = {name: cell for name, cell in cells.items() if name not in (key, "prompt", "row")}
    rest |= inner if isinstance(inner, Mapping) else {}
    if column is not None and column not in rest:
        rest[column] = _gold(rest)
    return rest


def _gold(rest: Mapping[str, Any]) -> Any:
    """The reference answer of a row that has it under another name, also in its only test; else null."""
    found = next((rest[name] for name in GOLDS if rest.get(name) is not None), None)
    tests = rest.get("tests")
    if found is None and isinstance(tests, list) and len(tests) == 1 and isinstance(tests[0], Mapping):
        found = tests[0].get("gold")
    return found


# What is printed.


def as_line(number: int, judged: Judged) -> str:
    """A verdict as one line: number, score, what was extracted, why, facts."""
    verdict = judged.verdict
    score = "null" if verdict.score is None else f"{verdict.score:g}"
    parts = [f"{number:>5}  {score:>6}", _short(verdict.extracted, 40) if verdict.extracted else "-", verdict.reason]
    facts = " ".join(f"{key}={value}" for key, value in verdict.facts.items())
    return "  ".join(" ".join(part.split()) if i else part for i, part in enumerate([*parts, facts]) if part)


def as_json(judged: Judged) -> str:
    """A verdict as one line of JSON, in ASCII so that any terminal and pipe takes it; NaN becomes null."""
    value = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in judged.to_json().items()}
    return json.dumps(value)


def _short(value: Any, limit: int = 60) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


__all__ = ["Judged", "Tally", "as_json", "as_line", "reward_of", "verify_file"]
