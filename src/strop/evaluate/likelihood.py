"""What a model thinks of given answers, without sampling: which side of a pair it finds the likelier.

Two readings of a pair. Alone, a model prefers the side with the higher log-prob: summed, which favours
short answers, and per token, which does not. Against a baseline it prefers the side whose log-prob it
raised more; log p - log p_baseline is the implicit reward of DPO (Rafailov et al. 2023, arXiv:2305.18290,
eq. 5) up to its beta, here 1. A tie is no win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from strop.data.encoded import EncodedGroup
from strop.evaluate.statistics import Measure, measure
from strop.model.forward import LanguageModel
from strop.model.sequences import sequence_logprobs
from strop.types import Group

ByRow = tuple[tuple[float, ...], ...]
"""A number for each completion of each row."""


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """log p(completion | prompt) of every completion, by row, best first: sums in nats, and means over its tokens."""

    sums: ByRow
    means: ByRow

    def measures(self, *, seed: int) -> dict[str, Measure]:
        """logps/chosen and logps/rejected, and how often the better side is the likelier: summed and per token.

        Rows of more than two count each pair of them; "rejected" is then the mean over all but the best.
        """
        chosen, rejected = _sides(self.sums)
        return {
            "logps/accuracy": measure(self.wins(), share=True, seed=seed),
            "logps/accuracy_per_token": measure(_wins(self.means), share=True, seed=seed),
            "logps/chosen": measure(chosen, share=False, seed=seed),
            "logps/rejected": measure(rejected, share=False, seed=seed),
        }

    def wins(self) -> list[list[float]]:
        """How often the better side is the likelier, by row."""
        return _wins(self.sums)

    def against(self, baseline: Likelihoods, *, seed: int) -> dict[str, Measure]:
        """Implicit rewards log p - log p_baseline, nats: rewards/accuracies, margins, chosen and rejected."""
        rewards = self.rewards(baseline)
        chosen, rejected = _sides(rewards)
        margins = [[a - b] for [a], [b] in zip(chosen, rejected, strict=True)]
        return {
            "rewards/accuracies": measure(_wins(rewards), share=True, seed=seed),
            "rewards/margins": measure(margins, share=False, seed=seed),
            "rewards/chosen": measure(chosen, share=False, seed=seed),
            "rewards/rejected": measure(rejected, share=False, seed=seed),
        }

    def rewards(self, baseline: Likelihoods) -> ByRow:
        """Summed log-ratios to the baseline."""
        pairs = zip(self.sums, baseline.sums, strict=True)
        return tuple(tuple(a - b for a, b in zip(ours, theirs, strict=True)) for ours, theirs in pairs)

    def scored(self, groups: Sequence[Group], scores: ByRow) -> tuple[Group, ...]:
        """The rows with each completion's log-probs as its rewards, and these scores."""
        rows = zip(groups, self.sums, self.means, scores, strict=True)
        return tuple(_scored(group, total, mean, score) for group, total, mean, score in rows)


def likelihoods(model: LanguageModel, groups: Sequence[EncodedGroup], max_tokens: int, device: str) -> Likelihoods:
    """Log-probs of every completion of every row."""
    found = sequence_logprobs(model, groups, temperature=1.0, max_tokens=max_tokens, device=device)
    sums = tuple(tuple(float(tokens.sum(dtype="float64")) for tokens in row) for row in found)
    means = tuple(tuple(float(tokens.mean(dtype="float64")) for tokens in row) for row in found)
    return Likelihoods(sums, means)


def _wins(rows: ByRow) -> list[list[float]]:
    """How often the better of two completions has the higher number, by row."""
    pairs = [list(combinations(row, 2)) for row in rows]
    return [[sum(better > worse for better, worse in row) / len(row)] for row in pairs]


def _sides(rows: ByRow) -> tuple[list[list[float]], list[list[float]]]:
    return [[row[0]] for row in rows], [[sum(row[1:]) / len(row[1:])] for row in rows]


def _scored(group: Group, sums: Sequence[float], means: Sequence[float], scores: Sequence[float]) -> Group:
    completions = [
        replace(completion, rewards={"logps": total, "logps_per_token": mean}, score=score)
        for completion, total, mean, score in zip(group.completions, sums, means, scores, strict=True)
    ]
    return replace(group, completions=tuple(completions))
