"""Filters for chains of thought that a person can read: one language, short paragraphs.

DeepSeek-R1 leaves out sampled reasoning that mixes languages, has long paragraphs or code blocks
(Guo et al. 2025, arXiv:2501.12948, section 2.3.3; it gives no thresholds). Code blocks are
`{name: without, pattern: "```", part: thinking}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from strop.rewards.language import Part, part_of
from strop.rewards.languages import check_language, share_of
from strop.rewards.texts import paragraphs
from strop.rollout.choose import Kept
from strop.rollout.filters import share_in_range, without_answers
from strop.types import Completion, Group


@dataclass(frozen=True, slots=True, kw_only=True)
class OneLanguage:
    """Answers of whose words at least this share is in the wanted language; a text without words is kept.

    Attributes: target: ISO 639-1 code. min_share: of the words. part: what is read: the thinking, the answer
        behind it, or all.
    """

    name: Literal["one_language"] = "one_language"
    target: str = "en"
    min_share: float = 0.9
    part: Part = "thinking"

    def __post_init__(self) -> None:
        check_language(self.target)
        share_in_range("one_language.min_share", self.min_share)

    def __call__(self, groups: Sequence[Group]) -> Kept:
        reason = f"answers of which less than {self.min_share:g} is in {self.target}"

        def fault(completion: Completion) -> str:
            share = share_of(part_of(completion.text, self.part), self.target)
            return reason if share is not None and share < self.min_share else ""

        return without_answers(groups, fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraphs:
    """Answers whose longest paragraph, between blank lines, has at most so many words.

    Attributes: most: words of a paragraph. part: what is read: the thinking, the answer behind it, or all.
    """

    name: Literal["paragraphs"] = "paragraphs"
    most: int = 300
    part: Part = "thinking"

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"paragraphs.most must be at least 1 word, got {self.most}")

    def __call__(self, groups: Sequence[Group]) -> Kept:
        reason = f"answers with a paragraph of more than {self.most} words"

        def fault(completion: Completion) -> str:
            lengths = [len(p.split()) for p in paragraphs(part_of(completion.text, self.part))]
            return reason if max(lengths, default=0) > self.most else ""

        return without_answers(groups, fault)
