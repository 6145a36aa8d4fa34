"""The language-consistency reward: the share of words that are in the wanted language.

DeepSeek-R1 adds it to the accuracy reward, so that a chain of thought does not mix languages
(Guo et al. 2025, arXiv:2501.12948, section 2.3.2). It costs a little accuracy; give it a small weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from strop.rewards.extract import after_think
from strop.rewards.languages import LANGUAGES, check_language, main_language, share_of
from strop.rewards.protocol import each
from strop.types import Group, Verdict

Part = Literal["thinking", "answer", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """The share of words in the wanted language, in [0, 1]; code, formulas, links and numbers are no words.

    How a language is told: `languages`.

    Attributes:
        target: ISO 639-1 code of the language.
        part: what is read: the `thinking` (up to the last `</think>`), the `answer` behind it, or `all`.
        wordless: the score of a text without words to tell a language by, as of formulas alone; null calls it
            unscorable, which in training leaves the whole completion out.
    """

    name: Literal["language"] = "language"
    weight: float = 1.0
    label: str | None = None
    target: str = "en"
    part: Part = "all"
    wordless: float | None = None

    def __post_init__(self) -> None:
        if self.wordless is not None and not 0 <= self.wordless <= 1:
            raise ValueError(
                f"language.wordless: {self.wordless} is no share of words; give a number in [0, 1], or null"
            )
        if self.target not in LANGUAGES:
            raise ValueError(f"language.target: {self.target!r} is unknown; known: {', '.join(sorted(LANGUAGES))}")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        check_language(self.target)
        return each(groups, lambda c, _: verify_language(c.text, self.target, part=self.part, wordless=self.wordless))


def verify_language(text: str, target: str, *, part: Part = "all", wordless: float | None = None) -> Verdict:
    """The share of words in the target language; `wordless` without words. See `Language`."""
    read = part_of(text, part)
    share = share_of(read, target)
    if share is None:
        return Verdict(wordless, "no words to tell a language by" if read.strip() else f"the {part} part is empty")
    main = LANGUAGES.get(main_language(read) or "", "unknown")
    return Verdict(share, f"{share:.0%} of the words in {LANGUAGES[target]}, mostly {main}")


def part_of(text: str, part: Part) -> str:
    """The thinking, the answer, or all of a completion.

    A thinking part that never ends is all thinking; the prompt's template may have opened it.
    """
    if part == "all":
        return text
    answer = after_think(text)
    if part == "answer":
        return answer
    thinking = text[: len(text) - len(answer)]
    return thinking.replace("<think>", " ").replace("</think>", " ")
