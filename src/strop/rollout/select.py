"""What becomes of scored groups: which are trained on, and with which numbers beside their tokens.

A select is a callable from this rank's scored groups to a `Selected`; GRPO's credits completions
against their siblings, others make pairs, or leave credit to an annotation that knows values or a
reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from strop.credit import Advantages, Rewards, all_equal
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.types import Completion, Group


@dataclass(frozen=True, slots=True)
class Selected:
    """What a select makes of a step's scored groups.

    Attributes:
        groups: those to train on, as exactly the tokens that were sampled.
        samples: all the groups with what was decided of them, for people to read.
        metrics: what was counted on the way.
    """

    groups: tuple[EncodedGroup, ...]
    samples: tuple[Group, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)


Select = Callable[[Sequence[Group]], Selected]


class GroupCredit(Protocol):
    """Advantages of each group's completions from their scores."""

    def __call__(self, groups: Sequence[Rewards]) -> list[Advantages]: ...


@dataclass(frozen=True, slots=True)
class Credited:
    """Groups whose completions have advantages, relative to one another.

    Groups whose rewards are all the same teach nothing without a KL term; they are idle: no forward
    sees them, and they count in the normalisers as groups with advantages of 0 would. Unscorable
    completions (and truncated ones where asked) take no part in the baseline and are not trained.

    Attributes:
        keep_equal: train on all-equal groups as well, for the KL term's sake.
        mask_truncated: leave completions cut by the length limit out of loss and baseline.
        missing_eos_penalty: subtracted from the score of those instead.
    """

    advantage: GroupCredit
    keep_equal: bool = False
    mask_truncated: bool = False
    missing_eos_penalty: float = 0.0

    def __call__(self, groups: Sequence[Group]) -> Selected:
        scores = [creditable(group, self.mask_truncated, self.missing_eos_penalty) for group in groups]
        advantages = self.advantage(scores)
        credited = [with_advantages(g, a) for g, a in zip(groups, advantages, strict=True)]
        idle = [all_equal(row) and not self.keep_equal for row in scores]
        encoded = [replace(encode(g), idle=i) for g, i in zip(credited, idle, strict=True)]
        return Selected(tuple(e for e in encoded if e.sequences), tuple(credited))


@dataclass(frozen=True, slots=True)
class Scored:
    """Groups whose completions carry their score in the column `rewards` [S]; credit comes later, from annotations.

    Unscorable completions, and truncated ones where asked, are left out; a group is, once none is
    left. Attributes as in `Credited`.
    """

    mask_truncated: bool = False
    missing_eos_penalty: float = 0.0

    def __call__(self, groups: Sequence[Group]) -> Selected:
        encoded = []
        for group in groups:
            scores = creditable(group, self.mask_truncated, self.missing_eos_penalty)
            pairs = zip(group.completions, scores, strict=True)
            sequences = tuple(sampled_sequence(c, rewards=score) for c, score in pairs if score is not None)
            assert group.prompt_ids is not None
            encoded.append(EncodedGroup(group.prompt_ids, sequences, origin=group.origin))
        return Selected(tuple(e for e in encoded if e.sequences), tuple(groups))


def scores_of(group: Group) -> list[float | None]:
    """The completions' scores as they are."""
    return [c.score for c in group.completions]


def creditable(group: Group, mask_truncated: bool, missing_eos_penalty: float) -> list[float | None]:
    """The completions' scores, less the penalty for truncated ones; `None` for those where they are masked."""
    out: list[float | None] = []
    for c in group.completions:
        if c.score is None or c.finish != "length":
            out.append(c.score)
        else:
            out.append(None if mask_truncated else c.score - missing_eos_penalty)
    return out


def with_advantages(group: Group, advantages: Advantages) -> Group:
    """The group with an advantage for each completion."""
    completions = [replace(c, advantage=a) for c, a in zip(group.completions, advantages, strict=True)]
    return replace(group, completions=tuple(completions))


def encode(group: Group) -> EncodedGroup:
    """A credited group as tokens: exactly those sampled, with old_logprobs and advantages."""
    assert group.prompt_ids is not None
    sequences = tuple(_sequence(c) for c in group.completions if c.advantage is not None)
    return EncodedGroup(group.prompt_ids, sequences, origin=group.origin)


def sampled_sequence(completion: Completion, **columns: float | tuple[float, ...]) -> EncodedSequence:
    """A completion as exactly the tokens that were sampled, all trained, with old_logprobs and more columns."""
    assert completion.token_ids is not None and completion.logprobs is not None
    trained = (True,) * len(completion.token_ids)
    everything = {"old_logprobs": completion.logprobs, **columns}
    return EncodedSequence(completion.token_ids, trained, everything, completion.finish == "length")


def _sequence(completion: Completion) -> EncodedSequence:
    assert completion.advantage is not None and completion.token_ids is not None
    return sampled_sequence(completion, advantages=(completion.advantage,) * len(completion.token_ids))
