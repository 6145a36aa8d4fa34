"""What a reward is, and how several become one score.

A reward is a callable on groups that returns one `Verdict` a completion. A user writes less, a
function of one completion:

    def polite(completion: str, row: dict) -> float | bool | None: ...

which `lift` turns into a reward; a function that must see siblings takes groups and is marked:

    @on_groups
    def longest_wins(groups): return [[...one entry a completion...] for group in groups]

A score of `None` means unscorable: the completion is left out of loss and baseline, and counted.
It never means zero. A reward of weight 0 is watched: computed and logged, no part of the score.

Left out: rewards that are models or judges; they are callables of the same shape.
"""

from __future__ import annotations

import math
import numbers
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from strop.types import Completion, Group, Reward, Scores, Verdict, content_to_json


class NamedReward(Protocol):
    """A reward with the name it is logged under and its weight in the score."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def label(self) -> str | None: ...
    def __call__(self, groups: Sequence[Group]) -> Sequence[Scores]: ...


UserFunction = Callable[[str, dict[str, Any]], "Verdict | float | None"]
"""`f(completion, row)`; `row` has the source row's other columns, and `prompt`."""


@dataclass(frozen=True, slots=True)
class OnGroups:
    """A user's function marked as one that takes groups."""

    function: Reward

    def __call__(self, groups: Sequence[Group]) -> Sequence[Scores]:
        return self.function(groups)


def on_groups(function: Reward) -> OnGroups:
    """Marks a function as a reward on groups: it sees all completions of a prompt at once."""
    return OnGroups(function)


def label_of(reward: NamedReward) -> str:
    """The name a reward is logged under: its label, or else its tag."""
    return reward.label or reward.name


def weights_of(rewards: Sequence[NamedReward]) -> dict[str, float]:
    """The weights of the rewards that count, by label."""
    return {label_of(reward): reward.weight for reward in rewards if reward.weight != 0}


def check_rewards(rewards: Sequence[NamedReward]) -> None:
    """Checks what no single reward can see: that there is one, that labels differ, that weights are numbers.

    Raises: ValueError naming the reward and the fix.
    """
    if not rewards:
        raise ValueError("rewards: none given, so nothing can be scored; name at least one")
    seen: set[str] = set()
    for reward in rewards:
        label = label_of(reward)
        if label in seen:
            raise ValueError(f"rewards: two are called {label!r}; give one of them a label of its own")
        seen.add(label)
        if not math.isfinite(reward.weight):
            raise ValueError(f"rewards: {label!r} has weight {reward.weight}; a weight is a finite number")


def load_rewards(rewards: Sequence[NamedReward]) -> None:
    """Checks the rewards together and loads what they load at first use, users' functions and schemas.

    Raises: ValueError, before anything was sampled for them.
    """
    check_rewards(rewards)
    for reward in rewards:
        reward([])


def score(groups: Sequence[Group], rewards: Sequence[NamedReward]) -> list[Group]:
    """Every completion with its named rewards, their reasons, and their weighted sum as its score.

    score = sum of weight * reward over the rewards whose weight is not 0; `None` where one of
    those is `None`, and where every reward is only watched. A reward that is not for a row (`only`) has
    no value there and no part in the sum.

    Where a reward scores steps, the first such one's stand in the completion, in place of others.

    Returns: new groups; rewards and reasons a completion already had under other names are kept.
    Raises: ValueError for no rewards, equal labels, or a reward that answers in the wrong shape.
    """
    check_rewards(rewards)
    verdicts = {label_of(r): verdicts_of(r, groups, label_of(r)) for r in rewards}
    weights = weights_of(rewards)
    return [
        replace(
            group,
            completions=tuple(
                _scored(completion, {label: v[g][c] for label, v in verdicts.items()}, weights)
                for c, completion in enumerate(group.completions)
            ),
        )
        for g, group in enumerate(groups)
    ]


def _scored(completion: Completion, verdicts: Mapping[str, Verdict], weights: Mapping[str, float]) -> Completion:
    asked, verdicts = verdicts, {label: verdict for label, verdict in verdicts.items() if verdict.applies}
    values = {label: verdict.score for label, verdict in verdicts.items()}
    before = {label: value for label, value in completion.rewards.items() if label not in asked}
    cut = next((verdict for verdict in verdicts.values() if verdict.steps), None)
    return replace(
        completion if cut is None else _with_steps(completion, cut),
        rewards={**before, **values},
        reasons={**completion.reasons, **{label: v.reason for label, v in verdicts.items() if v.reason}},
        facts={**completion.facts, **{label: v.facts for label, v in verdicts.items() if v.facts}},
        score=weighted_sum(values, weights),
    )


def weighted_sum(values: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """The score that rewards come to: sum of weight * reward over those that there are, None where one is None."""
    counted = [(weight, values[label]) for label, weight in weights.items() if label in values]
    known = [weight * value for weight, value in counted if value is not None]
    return sum(known) if counted and len(known) == len(counted) else None


def _with_steps(completion: Completion, verdict: Verdict) -> Completion:
    """The completion cut as the verdict cut it; labels it has stay where they are as many."""
    labels = completion.step_labels if len(completion.step_labels) == len(verdict.steps) else ()
    return replace(completion, steps=verdict.steps, step_labels=labels, step_scores=verdict.step_scores)


def verdicts_of(reward: Reward, groups: Sequence[Group], label: str) -> list[list[Verdict]]:
    """What a reward says of each completion, as verdicts in the shape of the groups.

    Raises: ValueError if it returned another number of groups or completions, or no number.
    """
    answer = reward(groups)
    if not isinstance(answer, Sequence) or isinstance(answer, str) or len(answer) != len(groups):
        raise ValueError(f"reward {label!r}: expected a list with one entry for each of {len(groups)} groups")
    out = []
    for group, scores in zip(groups, answer, strict=True):
        num = len(group.completions)
        if not isinstance(scores, Sequence) or isinstance(scores, str) or len(scores) != num:
            raise ValueError(f"reward {label!r}: a group of {num} completions needs a list of {num} scores")
        out.append([to_verdict(s, f"reward {label!r}") for s in scores])
    return out


def to_verdict(value: object, where: str) -> Verdict:
    """A returned value as a verdict: numbers and bools become floats; NaN and infinities are unscorable.

    Raises: ValueError if it is neither a `Verdict`, a number, a bool nor None.
    """
    if value is None:
        return Verdict(None, "the reward returned None")
    verdict = value if isinstance(value, Verdict) else Verdict(_number(value, where))
    if verdict.score is not None and not math.isfinite(verdict.score):
        return replace(verdict, score=None, reason=f"the reward returned {verdict.score}, which is no score")
    return verdict


def _number(value: object, where: str) -> float:
    if not isinstance(value, numbers.Real):
        raise ValueError(
            f"{where} returned {_brief(value)} of type {type(value).__name__}; return a number, a bool, or None for"
            " unscorable"
        )
    try:
        return float(value)
    except OverflowError:  # an int or Fraction beyond the floats
        return math.inf


def lift(function: UserFunction | OnGroups, label: str = "custom") -> Reward:
    """A reward on groups from a user's function of one completion; a marked function stays as it is.

    An exception in the function makes that completion unscorable, with the exception as reason.
    But if, before anything ever worked, every completion of a call fails in the same way, the
    reward is broken rather than the completion, and training on nothing would be silent.

    Raises: (when called) ValueError naming the user's line for such a reward, and for a returned
        value that is no number.
    """
    worked = False

    def reward(groups: Sequence[Group]) -> list[list[Verdict]]:
        nonlocal worked
        failures: list[Exception] = []
        verdicts = _on_each(function, groups, label, failures)
        num = sum(len(group.completions) for group in groups)
        if not worked and failures and len(failures) == num and len({_where(e) for e in failures}) == 1:
            raise ValueError(
                f"reward {label!r} failed on all {num} completions of its first call, so it can never score: "
                f"{_said(failures[0])} at {_where(failures[0])}"
            ) from failures[0]
        worked = worked or len(failures) < num
        return verdicts

    return reward


def _on_each(
    function: UserFunction | OnGroups, groups: Sequence[Group], label: str, failures: list[Exception]
) -> list[list[Verdict]]:
    if isinstance(function, OnGroups):
        try:
            answer = function(groups) if groups else []
        except Exception as error:  # the user's code may raise anything
            failed = Verdict(None, f"failed: {_said(error)}")
            failures.extend(error for group in groups for _ in group.completions)
            return [[failed for _ in group.completions] for group in groups]
        return verdicts_of(lambda _: answer, groups, label)
    return [[_on_one(function, c, group, label, failures) for c in group.completions] for group in groups]


def _on_one(
    function: UserFunction, completion: Completion, group: Group, label: str, failures: list[Exception]
) -> Verdict:
    row = {**group.row, "prompt": content_to_json(group.prompt)}
    try:
        value = function(completion.text, row)
    except Exception as error:  # the user's code may raise anything
        failures.append(error)
        return Verdict(None, f"failed: {_said(error)}")
    return to_verdict(value, f"reward {label!r}")


def _said(error: Exception) -> str:
    return _brief(f"{type(error).__name__}: {error}", quote=False)


def _where(error: Exception) -> str:
    """The place an exception came from: 'file:line in function: source line'."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"


def _brief(value: object, quote: bool = True, limit: int = 200) -> str:
    text = repr(value) if quote else str(value)
    return text if len(text) <= limit else text[:limit] + "…"


def each(groups: Sequence[Group], verify: Callable[[Completion, Group], Verdict]) -> list[list[Verdict]]:
    """One verdict a completion, from a function of a completion and its group."""
    return [[verify(completion, group) for completion in group.completions] for group in groups]


def gold_of(group: Group, column: str) -> Any:
    """The row's reference answer; `None` if the row has none."""
    return group.row.get(column)


def check_column(groups: Sequence[Group], column: str, name: str) -> None:
    """Raises ValueError if no row has the column at all: a wrong name, not a row without an answer."""
    if groups and not any(column in group.row for group in groups):
        known = ", ".join(sorted({key for group in groups for key in group.row})) or "none"
        raise ValueError(
            f"reward {name!r}: no row has a column {column!r} (columns: {known}); set the reward's `column`, or map it"
            " in the data's `columns`"
        )


def reward_metrics(groups: Sequence[Group], rewards: Sequence[NamedReward]) -> dict[str, float]:
    """Each reward's mean and deviation over scored completions, and its share of unscorable ones, where it applies.

    Returns: `rewards/LABEL/mean`, `rewards/LABEL/std` (population; both absent where nothing was
        scorable), `rewards/LABEL/unscorable`, a share in [0, 1], and those of `fact_metrics`.
    """
    metrics: dict[str, float] = {}
    for label in map(label_of, rewards):
        values = [c.rewards[label] for group in groups for c in group.completions if label in c.rewards]
        known = [v for v in values if v is not None]
        if known:
            mean = math.fsum(known) / len(known)
            metrics[f"rewards/{label}/mean"] = mean
            metrics[f"rewards/{label}/std"] = math.sqrt(math.fsum((v - mean) ** 2 for v in known) / len(known))
        if values:
            metrics[f"rewards/{label}/unscorable"] = 1 - len(known) / len(values)
        metrics |= fact_metrics([c for group in groups for c in group.completions], label)
    return metrics


def fact_metrics(completions: Sequence[Completion], label: str) -> dict[str, float]:
    """The mean of each number that a reward measured beside its score, over the completions that have it.

    Returns: `rewards/LABEL/FACT`; texts among the facts are left out.
    """
    found: dict[str, list[float]] = {}
    for completion in completions:
        for name, value in completion.facts.get(label, {}).items():
            if not isinstance(value, str) and math.isfinite(value):
                found.setdefault(f"rewards/{label}/{name}", []).append(float(value))
    return {name: math.fsum(values) / len(values) for name, values in found.items()}
