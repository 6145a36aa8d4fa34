"""Step-level beam search: solutions grow a step at a time, and the best-scored beginnings are kept.

N first steps are sampled; of all beginnings the N / M with the highest scores are kept, each is
continued by M sampled steps, and so on until all that are kept have ended. A process reward scores
beginnings by their steps so far; any other reward is asked for the text as it stands.

Left out: the kept beginnings are prefilled anew each round; diverse and lookahead search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from strop.rollout.rollouts import Sampler, Score
from strop.types import Completion, Finish, Group


@dataclass(frozen=True, slots=True)
class Beginning:
    """A solution so far.

    Attributes: ended: why it grows no further; None while it does.
        scored: the text and what the rewards said of it.
    """

    ids: tuple[int, ...] = ()
    ended: Finish | None = None
    scored: Completion = field(default_factory=lambda: Completion(""))

    @property
    def rank(self) -> float:
        """Its score; unscorable beginnings come last."""
        return -math.inf if self.scored.score is None else self.scored.score


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """Searches solutions of prompts.

    Attributes:
        first, next: sample one step: `width` (N) times from a prompt, `expand` (M) times from a beginning.
            A step ends with the separator, a stop token or the length limit.
        max_steps: rounds; what has not ended then is cut.
        max_length: tokens of a solution; what reaches it is cut.
    """

    first: Sampler
    next: Sampler
    score: Score
    decode: Callable[[Sequence[int]], str]
    stop_ids: frozenset[int]
    width: int
    expand: int
    max_steps: int
    max_length: int

    def __call__(self, groups: Sequence[Group], step: int) -> list[Group]:
        """The groups with the N / M solutions that were kept, the best first.

        Args: groups: prompts with their ids. step: of the random numbers; a search takes `max_steps` of them.
        Snell et al. 2024, arXiv:2408.03314, section 5.
        """
        kept: list[list[Beginning]] = [[Beginning()] for _ in groups]
        for number in range(self.max_steps):
            live = [(g, b) for g, row in enumerate(kept) for b in row if b.ended is None]
            if not live:
                break
            sample = self.next if number else self.first
            prompts = [(groups[g].prompt_ids or ()) + b.ids for g, b in live]
            grown: list[list[Beginning]] = [[b for b in row if b.ended is not None] for row in kept]
            for (g, b), row in zip(live, sample(prompts, step + number, 0), strict=True):
                grown[g] += [self._grown(b, s.ids, s.finish) for s in row]
            kept = [_best(row, self.width // self.expand) for row in self._scored(groups, list(map(_distinct, grown)))]
        return [replace(g, completions=tuple(map(_solution, row))) for g, row in zip(groups, kept, strict=True)]

    def _grown(self, start: Beginning, ids: tuple[int, ...], finish: Finish) -> Beginning:
        whole = (start.ids + ids)[: self.max_length]
        if len(whole) == len(start.ids) + len(ids) and ids[-1] in self.stop_ids:
            return Beginning(whole, "stop")
        cut = finish == "length" or len(whole) == self.max_length
        return Beginning(whole, "length" if cut else None)

    def _scored(self, groups: Sequence[Group], rows: Sequence[Sequence[Beginning]]) -> list[list[Beginning]]:
        """The beginnings with what the rewards say of each, ended ones that were scored before among them."""
        asked = [
            replace(
                group,
                completions=tuple(Completion(self.decode(b.ids), token_ids=b.ids, finish=b.ended) for b in row),
            )
            for group, row in zip(groups, rows, strict=True)
        ]
        return [
            [replace(b, scored=c) for b, c in zip(row, group.completions, strict=True)]
            for row, group in zip(rows, self.score(asked), strict=True)
        ]


def _distinct(row: Sequence[Beginning]) -> list[Beginning]:
    """The first of each sequence of tokens."""
    found: dict[tuple[int, ...], Beginning] = {}
    for beginning in row:
        found.setdefault(beginning.ids, beginning)
    return list(found.values())


def _best(row: Sequence[Beginning], count: int) -> list[Beginning]:
    """The highest-scored, the first of equal ones."""
    return sorted(row, key=lambda b: -b.rank)[:count]


def _solution(beginning: Beginning) -> Completion:
    return replace(beginning.scored, finish=beginning.ended or "length")
