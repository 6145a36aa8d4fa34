"""Groups as token ids, with the loss mask already decided: what `chat` gives and `pack` takes.

No torch here, and no tokenizer: plain tuples of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EncodedSequence:
    """One completion's tokens, those that follow the prompt's.

    Attributes:
        ids: token ids of the completion, the prompt's not among them.
        trained: whether the loss sees each token; as long as `ids`, at least one is True.
        columns: recorded numbers by name. A float is one number for the sequence, [S]. A tuple
            has one number for each id (nan where there is none) and is read at trained tokens.
        truncated: the end was cut off, so no end-of-turn token stands there.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    columns: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    truncated: bool = False

    @property
    def num_trained(self) -> int:
        """Tokens that the loss sees."""
        return sum(self.trained)


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """A prompt's tokens, once, and its completions'.

    Attributes:
        prompt_ids: what generation would see before the first completion token; never trained.
        sequences: the completions, in the group's order (best first where there is an order).
        columns: recorded numbers of the whole group by name, [G].
        origin: where the row came from ("file.jsonl:12").
        idle: its loss is exactly zero whatever the model says (equal rewards, no KL): it is not
            computed, and counts in the step's normalisers.
    """

    prompt_ids: tuple[int, ...]
    sequences: tuple[EncodedSequence, ...]
    columns: Mapping[str, float] = field(default_factory=dict)
    origin: str = ""
    idle: bool = False

    @property
    def num_tokens(self) -> int:
        """Tokens a packed row holds for this group: the prompt once, then every completion."""
        return len(self.prompt_ids) + sum(len(s.ids) for s in self.sequences)

    def cut(self, max_length: int) -> tuple[bool, ...]:
        """Whether each completion was cut at so many tokens; one that a sampler did not finish has no end either."""
        return tuple(s.truncated and len(self.prompt_ids) + len(s.ids) >= max_length for s in self.sequences)
