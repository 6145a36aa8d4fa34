"""Pairs of the policy's own samples: the best and the worst of each prompt, as online preference methods train on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from strop.data.encoded import EncodedGroup
from strop.rollout.choose import best_and_worst, penalised
from strop.rollout.select import Selected, sampled_sequence
from strop.types import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class BestAndWorst:
    """The select that makes a pair of each scored group, best first.

    A group whose scores are all the same, or whose best and worst are the same tokens, says nothing
    of which answer is better and makes no pair; it is counted in pairs/tied. (TRL 1.16 takes the
    first of a tie as the better.)

    Attributes:
        missing_eos_penalty: taken from the score of an answer that was cut by the length limit,
            before they are ranked.
        min_margin: a difference of scores that is no more counts as a tie.
    """

    missing_eos_penalty: float = 0.0
    min_margin: float = 0.0

    def __call__(self, groups: Sequence[Group]) -> Selected:
        scores = [[penalised(c, None, self.missing_eos_penalty) for c in group.completions] for group in groups]
        places = [self._places(group, row) for group, row in zip(groups, scores, strict=True)]
        pairs = [(group, found) for group, found in zip(groups, places, strict=True) if found is not None]
        margins = [
            (row[found[0]] or 0.0) - (row[found[1]] or 0.0)
            for row, found in zip(scores, places, strict=True)
            if found is not None
        ]
        known = [score for row in scores for score in row if score is not None]
        unscored = sum(sum(score is not None for score in row) < 2 for row in scores)
        metrics = {
            "val/contain_eos_token": _mean([float(c.finish == "stop") for g in groups for c in g.completions]),
            "pairs/tied": float(len(groups) - len(pairs) - unscored),
            "pairs/unscored": float(unscored),
        }
        if known:
            metrics["objective/scores"] = _mean(known)
        if margins:
            metrics["objective/scores_margin"] = _mean(margins)
        return Selected(tuple(_encoded(group, found) for group, found in pairs), tuple(groups), metrics)

    def _places(self, group: Group, scores: Sequence[float | None]) -> tuple[int, int] | None:
        found = best_and_worst(scores, self.min_margin)
        if found is None or group.completions[found[0]].token_ids == group.completions[found[1]].token_ids:
            return None
        return found


def _encoded(group: Group, places: tuple[int, int]) -> EncodedGroup:
    assert group.prompt_ids is not None
    sequences = tuple(sampled_sequence(group.completions[place]) for place in places)
    return EncodedGroup(group.prompt_ids, sequences, origin=group.origin)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
