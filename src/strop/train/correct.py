"""Annotation for samples of another sampler than the policy: what the trainer itself gives them, and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from strop.data.encoded import EncodedGroup
from strop.model.forward import Model
from strop.model.sequences import sequence_logprobs
from strop.rollout.corrections import Correction, Numbers, mismatch_metrics
from strop.train.crediting import trained_numbers, with_numbers


@dataclass(slots=True)
class Corrected:
    """Splits pi / mu into pi / pi_old, which the objective clips, and pi_old / mu, which weighs its term.

    The log-probs that came with the samples become `sampler_logprobs` (mu); `old_logprobs` (pi_old)
    are the policy's own, by the forward that trains it, before the step's first update; and
    `policy_weight` is what the correction makes of the two.

    Attributes: metrics: of the last call; see `mismatch_metrics`.
    """

    policy: Model
    correction: Correction
    temperature: float
    max_tokens: int
    device: str
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[EncodedGroup, ...]:
        """The same groups with the three columns."""
        sampled = [row.astype(np.float32) for row in trained_numbers(groups, "old_logprobs")]
        old = self._old(groups)
        weights = [self.correction(o, s) for o, s in zip(old, sampled, strict=True)]
        self.metrics = mismatch_metrics(old, sampled, weights)
        for name, rows in (("sampler_logprobs", sampled), ("old_logprobs", old), ("policy_weight", weights)):
            groups = with_numbers(groups, name, [row.astype(np.float64) for row in rows])
        return tuple(groups)

    def _old(self, groups: Sequence[EncodedGroup]) -> list[Numbers]:
        if not groups:
            return []
        rows = sequence_logprobs(
            self.policy, groups, temperature=self.temperature, max_tokens=self.max_tokens, device=self.device
        )
        return [row for group in rows for row in group]
