"""Two sets of answers paired by prompt, and their mean difference with Student's interval; without numpy."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence

from strop.report.records import Answer, Figure, Sampled
from strop.types import content_to_json

FEWEST = 4
"""Prompts below which no interval is given."""


def keyed(groups: Sequence[Sampled]) -> dict[tuple[str, int], Sampled]:
    """The groups by prompt, and by which time it is there: a prompt may stand in the data twice."""
    seen: Counter[str] = Counter()
    found = {}
    for group in groups:
        prompt = json.dumps(content_to_json(group.prompt))
        found[prompt, seen[prompt]] = group
        seen[prompt] += 1
    return found


def value_of(answer: Answer, name: str) -> float | None:
    """A reward of an answer, or its total (`score`)."""
    return answer.score if name == "score" else answer.rewards.get(name)


def paired_difference(before: Sequence[Sampled], after: Sequence[Sampled], name: str) -> Figure | None:
    """Mean of after - before over the prompts that both have scored, each prompt's answers averaged.

    Its interval is d +- t(0.975, n - 1) s / sqrt(n). None with fewer than 4 prompts or where all differences are
    the same, of which s says nothing.
    """
    sides = keyed(before), keyed(after)
    means = [(_mean(sides[0][key], name), _mean(group, name)) for key, group in sides[1].items() if key in sides[0]]
    differences = [b - a for a, b in means if a is not None and b is not None]
    n = len(differences)
    if n < FEWEST or len(set(differences)) == 1:
        return None
    mean = math.fsum(differences) / n
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    half = _student(n - 1) * math.sqrt(variance / n)
    return Figure(mean, mean - half, mean + half, n)


def _mean(group: Sampled, name: str) -> float | None:
    values = [v for answer in group.answers if (v := value_of(answer, name)) is not None and math.isfinite(v)]
    return math.fsum(values) / len(values) if values else None


def _student(freedom: int) -> float:
    """The 0.975 quantile of Student's t, within 1 % from 3 degrees of freedom on.

    z + (z^3 + z)/4v + (5z^5 + 16z^3 + 3z)/96v^2 + (3z^7 + 19z^5 + 17z^3 - 15z)/384v^3, Abramowitz and Stegun 26.7.5.
    """
    z, v = 1.959963984540054, freedom
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + math.fsum(term / v**power for power, term in enumerate(terms, start=1))
