r"""Solutions cut in steps, as token ids that a step-end head reads.

A solution becomes [step 1][separator][step 2][separator] ... behind the prompt's ids, each piece
tokenised by itself: a separator never merges with a word, so it is the same ids after every step,
the last one too. The step's end is the separator's last token, and it alone is `trained`: that is
where a process reward model's logit is read. Blanks around a step, and separators it ends with, are
no part of it, so texts cut from a sampled answer and steps of a data set give the same ids.

Truncation leaves out whole steps. Prompts go through the chat template as in `chat`; the steps follow
the generation prompt, without an end-of-turn token.

A separator that is one token of its own is best: "\n" where the tokenizer keeps it apart, or a mark
that occurs nowhere else.

Left out: solutions over several assistant turns (the last one is cut, the others are not seen).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.types import Group

if TYPE_CHECKING:
    from strop.data.chat import Chat

Ids = tuple[int, ...]
Labels = Sequence[bool | float | None]

UNLABELLED = "solutions left out: no labelled step fits in max_length"


def cut(text: str, separator: str) -> tuple[str, ...]:
    """A text in pieces, each up to and with its separator; joined, they are the text.

    A piece of blanks and separators alone belongs to the one before it (at the start, after it).
    """
    if not separator:
        raise ValueError("separator is empty, so nothing ends a step; name the text between two steps")
    parts = text.split(separator)
    pieces = [part + separator for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
    out: list[str] = []
    for piece in pieces:
        if out and (not bare(piece, separator) or not bare(out[-1], separator)):
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def bare(step: str, separator: str) -> str:
    """A step's words: without blanks around it and without separators at its end."""
    words = step.strip()
    while separator.strip() and words.endswith(separator.strip()):
        words = words.removesuffix(separator.strip()).rstrip()
    return words


def step_ends(ids: Sequence[int], pieces: Sequence[str], decode: Callable[[Sequence[int]], str]) -> tuple[int, ...]:
    """The index of the token that completes each piece of a sampled text; the last piece's is the last token.

    A token that ends one piece and begins the next ends the first. Where the text does not begin with
    the pieces (it was decoded otherwise), the pieces after that end with the last token, too.

    Args: pieces: `cut(decode(ids), separator)`.
    """
    ends: list[int] = []
    upto, low = "", 0
    for piece in pieces[:-1]:
        upto += piece
        low = _shortest(ids, upto, decode, low)
        ends.append(min(low, len(ids)) - 1)
    return (*ends, len(ids) - 1) if pieces else ()


def _shortest(ids: Sequence[int], text: str, decode: Callable[[Sequence[int]], str], low: int) -> int:
    """How many tokens decode to a text that begins with `text`; at least `low`, at most all."""
    high = len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(decode(ids[:middle])) >= len(text):
            high = middle
        else:
            low = middle + 1
    # A character cut in two decodes to more than one, so lengths may mislead by a few tokens.
    while low < len(ids) and not decode(ids[:low]).startswith(text):
        low += 1
    return low


def encode_steps(groups: Sequence[Group], chat: Chat, *, separator: str, max_length: int) -> list[EncodedGroup | str]:
    """Labelled solutions for training: the column `step_labels` and `trained` at labelled steps' ends.

    A solution without a label that fits is left out and counted in `chat.notes`.

    Returns: for each group its ids, or the reason why it is dropped.
    """
    known = _Pieces.of([s for g in groups for c in g.completions for s in c.steps], chat, separator)
    out: list[EncodedGroup | str] = []
    for group in groups:
        prompt_ids = prompt_of(group, chat, max_length)
        if any(len(c.step_labels) not in (0, len(c.steps)) for c in group.completions):
            prompt_ids = "steps and labels differ in number"
        if isinstance(prompt_ids, str):
            out.append(prompt_ids)
            continue
        room = max_length - len(prompt_ids)
        found = [known.sequence(c.steps, c.step_labels or (None,) * len(c.steps), room) for c in group.completions]
        kept = tuple(s for s in found if s is not None)
        if kept:
            chat.notes[UNLABELLED] += len(found) - len(kept)
        out.append(EncodedGroup(prompt_ids, kept, origin=group.origin) if kept else known.reason(group))
    return out


def encode_to_score(
    prompt_ids: Ids, solutions: Sequence[Sequence[str]], chat: Chat, *, separator: str, max_length: int
) -> list[EncodedSequence | None]:
    """Solutions of one prompt, read at every step that fits in `max_length`; None where none does."""
    known = _Pieces.of([step for steps in solutions for step in steps], chat, separator)
    room = max_length - len(prompt_ids)
    return [known.sequence(steps, [0.0] * len(steps), room) for steps in solutions]


def prompt_of(group: Group, chat: Chat, max_length: int) -> Ids | str:
    """The ids that stand before the first step, or why there are none."""
    try:
        ids = chat.encode_prompt(group.prompt, group.row)
    except ValueError as refused:
        return str(refused)
    if not ids:
        return "empty prompt, and the tokenizer has no first token to stand for it"
    return ids if len(ids) < max_length else "prompt fills max_length"


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Ids of the words of steps, and of the separator behind each."""

    words: dict[str, Ids]
    end: Ids
    separator: str
    forged: dict[str, str]

    @staticmethod
    def of(steps: Sequence[str], chat: Chat, separator: str) -> _Pieces:
        """All of them in one call of the tokenizer."""
        texts = list(dict.fromkeys(bare(step, separator) for step in steps))
        (end,) = chat.encode_texts([separator])
        if not end:
            raise ValueError(f"separator {separator!r} gives no token; name a text that the tokenizer keeps")
        ids = dict(zip(texts, chat.encode_texts(texts), strict=True))
        forged = {text: token for text in texts if (token := chat.control_in(text))}
        return _Pieces(ids, end, separator, forged)

    def sequence(self, steps: Sequence[str], labels: Labels, room: int) -> EncodedSequence | None:
        """The steps that fit in `room` tokens, up to the last labelled one; None if there is none."""
        assert len(steps) == len(labels), "a label for each step, None where there is none"
        words = [bare(step, self.separator) for step in steps]
        if any(text in self.forged for text in words):
            return None
        pieces = [self.words[text] + self.end for text in words]
        fitting, used = 0, 0
        for number, (piece, label) in enumerate(zip(pieces, labels, strict=True), start=1):
            used += len(piece)
            if used > room:
                break
            fitting = number if label is not None else fitting
        if not fitting:
            return None
        numbers = [math.nan if label is None else float(label) for label in labels[:fitting]]
        column = [x for piece, y in zip(pieces, numbers, strict=False) for x in (*[math.nan] * (len(piece) - 1), y)]
        return EncodedSequence(
            ids=tuple(i for piece in pieces[:fitting] for i in piece),
            trained=tuple(not math.isnan(x) for x in column),
            columns={"step_labels": tuple(column)},
            truncated=fitting < max((k for k, label in enumerate(labels, start=1) if label is not None), default=0),
        )

    def reason(self, group: Group) -> str:
        """Why nothing of a group can be read."""
        if not any(label is not None for c in group.completions for label in c.step_labels):
            return "no labelled step"
        tokens = [self.forged.get(bare(s, self.separator)) for c in group.completions for s in c.steps]
        forged = next((token for token in tokens if token), "")
        return f"control token {forged} in the words of a step" if forged else "no labelled step fits in max_length"
