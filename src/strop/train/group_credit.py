"""Annotation: group credit of scores that have the KL to the reference in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from strop.credit import LeaveOneOut
from strop.data.encoded import EncodedGroup
from strop.train.crediting import scores_of, shaped_means, trained_numbers, with_numbers


@dataclass(slots=True)
class ShapedGroupCredit:
    """Advantages of each group from score - beta k1, k1 = sum_t (old_logprob_t - ref_logprob_t).

    Reads the columns rewards [S], old_logprobs and ref_logprobs; every token of a sequence gets its
    sequence's advantage.
    Ahmadian et al. 2024 (RLOO), arXiv:2402.14740, section 3; beta 0.05 is TRL's.

    Attributes: metrics: of the last call; see `shaped_means`.
    """

    settings: LeaveOneOut
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[EncodedGroup, ...]:
        """The same groups with the column `advantages`."""
        old, ref = trained_numbers(groups, "old_logprobs"), trained_numbers(groups, "ref_logprobs")
        kl = [float((o - r).sum()) for o, r in zip(old, ref, strict=True)]
        scores = scores_of(groups)
        shaped = iter([score - self.settings.beta * k for score, k in zip(scores, kl, strict=True)])
        credited = self.settings([[next(shaped) for _ in group.sequences] for group in groups])
        self.metrics = shaped_means(scores, kl, beta=self.settings.beta)
        flat = [a or 0.0 for row in credited for a in row]
        return with_numbers(groups, "advantages", [np.full(len(o), a) for o, a in zip(old, flat, strict=True)])
