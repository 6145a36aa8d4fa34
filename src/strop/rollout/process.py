"""Credit where steps end: sampled groups whose completions a process reward has cut in steps and scored.

The steps are places in a text; credit goes to tokens. A step ends with the token that completes its
text, found in the sampled tokens by decoding their beginnings, and the last one with the last token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from strop.credit import ProcessRelative
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.steps import step_ends
from strop.rollout.select import Selected, creditable, sampled_sequence
from strop.types import Completion, Group


@dataclass(frozen=True, slots=True)
class StepCredited:
    """Groups whose completions have an advantage at every token, from the scores of their steps.

    A completion with an unscorable step takes no part, nor has a truncated one where asked. A group in
    which no token has an advantage is idle: counted in the normalisers, and no more.

    Attributes: as in `Credited`; decode gives the text of sampled tokens, as the rewards saw it.
        The penalty and the mask are about the whole score, which counts only by `advantage.outcome`.
    """

    advantage: ProcessRelative
    decode: Callable[[Sequence[int]], str]
    keep_equal: bool = False
    mask_truncated: bool = False
    missing_eos_penalty: float = 0.0

    def __call__(self, groups: Sequence[Group]) -> Selected:
        credited, encoded = [], []
        for group in groups:
            advantages = self._advantages(group)
            credited.append(_with_means(group, advantages))
            idle = not self.keep_equal and not any(a for row in advantages if row is not None for a in row)
            encoded.append(replace(_encode(group, advantages), idle=idle))
        return Selected(tuple(e for e in encoded if e.sequences), tuple(credited), step_metrics(groups))

    def _advantages(self, group: Group) -> list[list[float] | None]:
        left_out = [self.mask_truncated and c.finish == "length" for c in group.completions]
        ids = [c.token_ids or () for c in group.completions]
        return self.advantage.tokens(
            creditable(group, self.mask_truncated, self.missing_eos_penalty),
            [() if out else c.step_scores for c, out in zip(group.completions, left_out, strict=True)],
            [step_ends(i, c.steps, self.decode) for i, c in zip(ids, group.completions, strict=True)],
            list(map(len, ids)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRewards:
    """Rewards at the tokens that end steps, for methods that have a reward a token.

    Attributes:
        weight: of them beside the score, which stays at the last token.
        of: "difference", what a step adds to the score of the one before it (the first, to 0), so that a
            solution's rewards sum to its last step's score however many steps it has; "score", the
            steps' scores themselves, for those that are increments already (`implicit_process`): sums
            of scores that are never negative reward more steps.
    """

    name: Literal["step_rewards"] = "step_rewards"
    weight: float = 1.0
    of: Literal["difference", "score"] = "difference"

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"step_rewards.weight must be positive, got {self.weight}")

    def __call__(self, scores: Sequence[float], ends: Sequence[int], length: int) -> tuple[float, ...]:
        """One number a token, 0 where no step ends; steps that one token ends add up there."""
        before = (0.0, *scores) if self.of == "difference" else (0.0,) * len(scores)
        out = [0.0] * length
        for score, previous, end in zip(scores, before, ends, strict=False):
            out[end] += self.weight * (score - previous)
        return tuple(out)


@dataclass(frozen=True, slots=True)
class StepScored:
    """Completions with their score in the column `rewards` [S] and their steps' in `step_rewards` [N].

    Those without a score, without steps or with an unscorable one are not trained on.
    """

    rewards: StepRewards
    decode: Callable[[Sequence[int]], str]

    def __call__(self, groups: Sequence[Group]) -> Selected:
        encoded = map(self._encode, groups)
        return Selected(tuple(g for g in encoded if g.sequences), tuple(groups), step_metrics(groups))

    def _encode(self, group: Group) -> EncodedGroup:
        assert group.prompt_ids is not None
        known = [c for c in group.completions if c.score is not None and c.step_scores and None not in c.step_scores]
        return EncodedGroup(group.prompt_ids, tuple(map(self._sequence, known)), origin=group.origin)

    def _sequence(self, completion: Completion) -> EncodedSequence:
        assert completion.token_ids is not None and completion.score is not None
        scores = [s for s in completion.step_scores if s is not None]
        ends = step_ends(completion.token_ids, completion.steps, self.decode)
        dense = self.rewards(scores, ends, len(completion.token_ids))
        return sampled_sequence(completion, rewards=completion.score, step_rewards=dense)


def step_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Steps a completion, their mean score, and how many completions have a step that is unscorable, or none."""
    completions = [c for group in groups for c in group.completions]
    scores = [s for c in completions for s in c.step_scores if s is not None]
    metrics = {
        "steps/number": sum(len(c.steps) for c in completions) / max(len(completions), 1),
        "steps/unscorable": float(sum(not c.step_scores or None in c.step_scores for c in completions)),
    }
    return {**metrics, "steps/score": math.fsum(scores) / len(scores)} if scores else metrics


def _with_means(group: Group, advantages: Sequence[list[float] | None]) -> Group:
    """The group with each completion's mean advantage, for people to read."""

    def mean(row: list[float] | None) -> float | None:
        return None if row is None else math.fsum(row) / len(row)

    pairs = zip(group.completions, advantages, strict=True)
    return replace(group, completions=tuple(replace(c, advantage=mean(row)) for c, row in pairs))


def _encode(group: Group, advantages: Sequence[list[float] | None]) -> EncodedGroup:
    assert group.prompt_ids is not None
    pairs: list[tuple[Completion, list[float]]] = [
        (c, row) for c, row in zip(group.completions, advantages, strict=True) if row is not None
    ]
    sequences = tuple(sampled_sequence(c, advantages=tuple(row)) for c, row in pairs)
    return EncodedGroup(group.prompt_ids, sequences, origin=group.origin)
