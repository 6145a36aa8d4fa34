"""KTO's baseline z0: how far the policy has moved from the reference on completions that are not its own rows'.

Each row has a partner, fixed for the whole run: a row of another prompt, whose completions are read
under this row's prompt. Their log-ratios say how the policy drifted where nobody judged it. A step's
z0 is their mean over all its rows and ranks, at least 0, so it depends neither on the split into
micro-batches nor on which classes of row the step has.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from strop import dist
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.model.forward import Model
from strop.model.sequences import sequence_logprobs

ROW = "row"
"""Group column: the row's number, which `KLBaseline` takes off again."""


def partners(prompts: Sequence[Hashable], seed: int) -> list[int]:
    """For each row the number of another row, whose prompt is not the same.

    Rows of a prompt are put side by side, prompts in an order drawn from the seed, and all shifted by
    the largest prompt's count: each row is the partner of one. Where a prompt has more than half of
    the rows, its rows share the others among them.

    Raises: ValueError if there is only one prompt.
    """
    blocks: dict[Hashable, list[int]] = {}
    for row, prompt in enumerate(prompts):
        blocks.setdefault(prompt, []).append(row)
    if len(blocks) < 2:
        raise ValueError(f"all {len(prompts)} rows have the same prompt")
    parts = list(blocks.values())
    parts = [parts[i] for i in np.random.default_rng(seed).permutation(len(parts))]
    largest = max(parts, key=len)
    rows = [row for part in parts for row in part]
    if 2 * len(largest) <= len(rows):
        shifted = rows[len(largest) :] + rows[: len(largest)]
        found = dict(zip(rows, shifted, strict=True))
    else:
        others = [row for part in parts if part is not largest for row in part]
        found = {row: others[i % len(others)] for i, row in enumerate(largest)}
        found |= dict(zip(others, largest, strict=False))
    return [found[row] for row in range(len(prompts))]


def mismatched(groups: Sequence[EncodedGroup], *, max_length: int, seed: int) -> list[EncodedGroup]:
    """Each row's prompt with its partner's completions, cut to `max_length` tokens together.

    A completion without a trained token left is left out, so a group may be empty.
    Raises: ValueError if all rows have the same prompt.
    """
    out = []
    for group, partner in zip(groups, partners([g.prompt_ids for g in groups], seed), strict=True):
        room = max_length - len(group.prompt_ids)
        cut = [EncodedSequence(s.ids[:room], s.trained[:room]) for s in groups[partner].sequences]
        out.append(EncodedGroup(group.prompt_ids, tuple(s for s in cut if any(s.trained)), origin=group.origin))
    return out


def numbered(groups: Sequence[EncodedGroup], first: int = 0) -> list[EncodedGroup]:
    """The groups with their numbers, from `first` on, as the column `row`."""
    return [replace(g, columns={**g.columns, ROW: float(number)}) for number, g in enumerate(groups, first)]


@dataclass(frozen=True, slots=True)
class KLBaseline:
    """Writes z0 = max(0, mean of S - S_ref over mismatched completions) to each sequence of a step.

    Ethayarajh et al. 2024, arXiv:2402.01306, section 4. TRL 1.16 pairs the rows of a micro-batch
    with each other and takes z0 of each micro-batch; here a step has one, and partners never share a prompt.

    Attributes:
        model: the policy, read without gradient.
        mismatched: by row number, with the reference's log-probs as `ref_logprobs`.
    """

    model: Model
    mismatched: Mapping[int, EncodedGroup]
    max_tokens: int
    device: str

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[EncodedGroup, ...]:
        """The groups with the column `kl_baseline`, nats, [S], and without their numbers."""
        z0 = self._z0([self.mismatched[int(group.columns[ROW])] for group in groups])
        return tuple(_with_baseline(group, z0) for group in groups)

    def _z0(self, groups: Sequence[EncodedGroup]) -> float:
        """The step's estimate; every rank must ask. NaN stays NaN, so that a broken model shows."""
        read = [group for group in groups if group.sequences]
        policy = sequence_logprobs(self.model, read, temperature=1.0, max_tokens=self.max_tokens, device=self.device)
        ratios = [
            float(ours.sum(dtype=np.float64)) - float(np.nansum(sequence.columns["ref_logprobs"]))
            for group, row in zip(read, policy, strict=True)
            for sequence, ours in zip(group.sequences, row, strict=True)
        ]
        total, count = dist.sum_numbers([sum(ratios), float(len(ratios))])
        return float(np.maximum(total / count, 0.0)) if count else 0.0


def _with_baseline(group: EncodedGroup, z0: float) -> EncodedGroup:
    columns = {name: value for name, value in group.columns.items() if name != ROW}
    sequences = tuple(replace(s, columns={**s.columns, "kl_baseline": z0}) for s in group.sequences)
    return replace(group, columns=columns, sequences=sequences)
