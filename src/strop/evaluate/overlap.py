"""Whether prompts that a model is judged by stand in what it was trained on.

A prompt overlaps with a training row if both have a run of 13 words in common, or if the row's prompt is the same but
for case, spaces and punctuation. Runs that several of the judged prompts share (instructions that come with each of
them) tell nothing and are passed over. A prompt of fewer than 13 words overlaps only if it is the same: "What is
2 + 3?" stands in longer texts by chance.

Brown et al. 2020, arXiv:2005.14165, appendix C: runs of 13 words; there those in more than ten training texts are
passed over, which would miss a problem that was trained on with many answers.
Overlap of words is what can be seen from here; a problem told in other words, or seen before this run, is not found.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from strop.data.same import normalised
from strop.types import Content, Group

WORDS = 13
LEAST_SHARED = 3
SHARED = 0.05
"""A run that at least three, and one in twenty, of the judged prompts have is their instruction."""
MOST_EXAMPLES = 3
_WORD = re.compile(r"\w+")

Run = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt that overlaps: where it stands, where the training row stands, and the words they share."""

    judged: str
    trained: str
    words: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many prompts of an evaluation stand in training rows.

    Attributes:
        prompts: looked for. rows: training rows that were read.
        same: prompts that are a training row's. shared: those, and those with a run of words in one.
    """

    prompts: int
    rows: int
    same: int
    shared: int
    examples: tuple[Example, ...] = ()


class Judged:
    """The prompts of an evaluation, to be looked for in rows that come one by one."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._origins = [group.origin for group in groups]
        words = [words_of(group.prompt_text) for group in groups]
        self._same: dict[Run, list[int]] = defaultdict(list)
        self._runs: dict[Run, list[int]] = defaultdict(list)
        for place, row in enumerate(words):
            self._same[row].append(place)
            for run in set(_runs(row)):
                self._runs[run].append(place)
        most = max(LEAST_SHARED, SHARED * len({*words}))
        for run in [run for run, places in self._runs.items() if len({words[i] for i in places}) >= most]:
            del self._runs[run]

    def overlap(self, rows: Iterable[Group]) -> Overlap:
        """How many of the prompts stand in the rows, their prompts and answers."""
        same: set[int] = set()
        found: dict[int, Example] = {}
        num = Counter[str]()
        for group in rows:
            num["rows"] += 1
            prompt = words_of(group.prompt_text)
            for place in self._same.get(prompt, ()) if prompt else ():
                same.add(place)
                found.setdefault(place, Example(self._origins[place], group.origin, " ".join(prompt[:WORDS])))
            for run in _runs_of(group):
                for place in self._runs.get(run, ()):
                    found.setdefault(place, Example(self._origins[place], group.origin, " ".join(run)))
        examples = tuple(found[place] for place in sorted(found)[:MOST_EXAMPLES])
        return Overlap(len(self._origins), num["rows"], len(same), len(found), examples)


def words_of(text: str) -> Run:
    """A text's words, without case and punctuation."""
    return tuple(_WORD.findall(normalised(text)))


def _runs(words: Run) -> Iterator[Run]:
    return (words[i : i + WORDS] for i in range(len(words) - WORDS + 1))


def _runs_of(group: Group) -> Iterator[Run]:
    for content in (group.prompt, *(c.content for c in group.completions)):
        for text in _texts(content):
            yield from _runs(words_of(text))


def _texts(content: Content) -> list[str]:
    return [content] if isinstance(content, str) else [turn.content for turn in content]
