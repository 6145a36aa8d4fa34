"""Annotations: numbers a step's groups carry into training, computed before they are packed.

An objective never crosses its unit, so whatever needs another model or the whole step is written
into the groups here, as columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.model.forward import Model
from strop.model.sequences import Numbers, sequence_logprobs
from strop.train.refcache import ReferenceCache, sequence_key


@dataclass(frozen=True, slots=True)
class Reference:
    """The frozen model that log-ratios are taken against.

    Attributes:
        identity, precision: hash of its weights, and what it runs in; they key the cache.
        cache: where its log-probs of fixed data are kept; None computes them every time.
    """

    model: Model
    identity: str
    precision: str
    cache: ReferenceCache | None
    temperature: float
    max_tokens: int
    device: str

    def __call__(self, groups: Sequence[EncodedGroup]) -> tuple[EncodedGroup, ...]:
        """The same groups with a `ref_logprobs` column, nats, at every trained token."""
        keys = [[self._key(group, sequence) for sequence in group.sequences] for group in groups]
        known = {key: self.cache.get(key) for row in keys for key in row} if self.cache is not None else {}
        missing = [i for i, row in enumerate(keys) if any(known.get(key) is None for key in row)]
        if missing:
            fresh = sequence_logprobs(
                self.model, [groups[i] for i in missing],
                temperature=self.temperature, max_tokens=self.max_tokens, device=self.device,
            )  # fmt: skip
            known = dict(known)
            for i, row in zip(missing, fresh, strict=True):
                for key, numbers in zip(keys[i], row, strict=True):
                    known[key] = numbers
                    if self.cache is not None:  # an empty cache is false
                        self.cache.put(key, numbers)
        return tuple(with_tokens(g, "ref_logprobs", row, known) for g, row in zip(groups, keys, strict=True))

    def _key(self, group: EncodedGroup, sequence: EncodedSequence) -> bytes:
        return sequence_key(
            model=self.identity,
            precision=self.precision,
            temperature=self.temperature,
            prompt_ids=group.prompt_ids,
            completion_ids=sequence.ids,
            trained=sequence.trained,
        )


def with_tokens(
    group: EncodedGroup, name: str, keys: Sequence[bytes], known: Mapping[bytes, Numbers | None]
) -> EncodedGroup:
    """The group with a token column: `known[key]` at each sequence's trained tokens."""
    sequences = []
    for sequence, key in zip(group.sequences, keys, strict=True):
        numbers = known[key]
        assert numbers is not None
        sequences.append(replace(sequence, columns={**sequence.columns, name: spread(sequence, group, numbers)}))
    return replace(group, sequences=tuple(sequences))


def spread(sequence: EncodedSequence, group: EncodedGroup, numbers: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    """Numbers of the trained tokens laid out over all ids, nan elsewhere."""
    out = np.full(len(sequence.ids), np.nan)
    out[trained_ids(sequence, group)] = numbers
    return tuple(out.tolist())


def trained_ids(sequence: EncodedSequence, group: EncodedGroup) -> NDArray[np.bool_]:
    """Which ids have a number; without a prompt the first token is predicted by nothing and has none."""
    trained = np.asarray(sequence.trained, dtype=bool).copy()
    if not group.prompt_ids:
        trained[0] = False
    return trained
