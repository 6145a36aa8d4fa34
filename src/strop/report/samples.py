"""The same prompts across evaluate stages, and the worst answers of the last one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from strop.report.records import Answer, Sampled
from strop.types import Content, content_to_json

Trend = Literal["improved", "worsened", "same", "unknown"]


@dataclass(frozen=True, slots=True)
class Cell:
    """What one stage answered: the first completion, how many there were, and their mean score."""

    stage: str
    answer: Answer
    num_answers: int
    mean: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt and what each stage answered; `None` where a stage did not sample it."""

    prompt: Content
    cells: tuple[Cell | None, ...]
    trend: Trend

    @property
    def cut(self) -> bool:
        """Whether any stage's answer ran into the length limit."""
        return any(cell is not None and cell.answer.finish == "length" for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Ranked:
    """An answer in the list of the worst."""

    prompt: Content
    answer: Answer

    @property
    def why(self) -> str:
        """What the rewards said of it, those that gave the least first."""
        told = [(self.answer.rewards.get(name), text) for name, text in self.answer.reasons.items()]
        return "; ".join(text for _, text in sorted(told, key=lambda pair: (pair[0] is None, pair[0] or 0.0)))


def question(prompt: Content) -> str:
    """The words that stand for a prompt in a list: the text, or the last turn's."""
    return prompt if isinstance(prompt, str) else prompt[-1].content if prompt else ""


def compare(samples: Mapping[str, Sequence[Sampled]], limit: int) -> tuple[Comparison, ...]:
    """The first `limit` prompts, those that the most stages have first, matched by their text."""
    by_stage = [(stage, _by_prompt(groups)) for stage, groups in samples.items()]
    prompts = {key: group.prompt for _, groups in by_stage for key, group in groups.items()}
    order = sorted(prompts, key=lambda key: -sum(key in groups for _, groups in by_stage))  # stable: file order
    out = []
    for key in order[:limit]:
        cells = tuple(_cell(stage, groups.get(key)) for stage, groups in by_stage)
        out.append(Comparison(prompts[key], cells, _trend(cells)))
    return tuple(out)


def _by_prompt(groups: Sequence[Sampled]) -> dict[str, Sampled]:
    found: dict[str, Sampled] = {}
    for group in groups:
        if group.answers:
            found.setdefault(json.dumps(content_to_json(group.prompt)), group)
    return found


def _cell(stage: str, group: Sampled | None) -> Cell | None:
    if group is None:
        return None
    scores = [a.score for a in group.answers if a.score is not None]
    mean = sum(scores) / len(scores) if scores else None
    return Cell(stage, group.answers[0], len(group.answers), mean)


def _trend(cells: Sequence[Cell | None]) -> Trend:
    means = [c.mean for c in cells if c is not None and c.mean is not None]
    if len(means) < 2:
        return "unknown"
    return "improved" if means[-1] > means[0] else "worsened" if means[-1] < means[0] else "same"


def worst(groups: Sequence[Sampled], num: int) -> tuple[Ranked, ...]:
    """The answers with the lowest scores, lowest first; unscorable ones have no rank."""
    scored = [(a.score, Ranked(g.prompt, a)) for g in groups for a in g.answers if a.score is not None]
    return tuple(ranked for _, ranked in sorted(scored, key=lambda pair: pair[0])[:num])


def num_unscorable(groups: Sequence[Sampled]) -> int:
    """Answers without a score."""
    return sum(a.score is None for g in groups for a in g.answers)
