"""Texts cut at the edges of the loss mask, tokenised piece by piece: no token ever crosses an edge.

The ids of a sequence are those of its pieces, one after another, so the prompt's ids are exactly
what generation would see, whatever follows. Pieces of many groups go through the tokenizer at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.data.encoded import EncodedGroup, EncodedSequence

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text under one mask value; `ids` where the token is known beforehand."""

    text: str
    trained: bool
    ids: Ids | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A group as pieces, before it is tokenised.

    Attributes:
        bos: put the tokenizer's own first token before the prompt, unless it stands there.
        cut, columns: of each sequence: it was cut short when it was sampled; numbers known of it.
    """

    prompt: str
    sequences: tuple[tuple[Piece, ...], ...]
    bos: bool
    cut: tuple[bool, ...]
    columns: tuple[Mapping[str, float], ...]
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A tokenizer seen as a function of pieces.

    Attributes:
        bos: ids that the tokenizer puts before a text of its own accord.
        lead, lead_ids: SentencePiece-like tokenizers invent a blank before a text. A piece that
            continues another is tokenised behind `lead`, whose ids are taken off again.
    """

    tokenizer: Any
    bos: Ids
    lead: str = ""
    lead_ids: Ids = field(default=())

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text as it stands, nothing added."""
        if not texts:
            return []
        out = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [tuple(ids) for ids in out["input_ids"]]

    def prompt_ids(self, text: str, ids: Ids, *, bos: bool) -> Ids:
        """A prompt's ids, behind the tokenizer's own first token unless the text begins with it."""
        return ids if not bos or ids[: len(self.bos)] == self.bos else self.bos + ids

    def continuing(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of texts that continue another text."""
        if not self.lead:
            return self.ids(texts)
        num = len(self.lead_ids)
        led = self.ids([self.lead + text for text in texts])
        clean = [ids[:num] == self.lead_ids for ids in led]
        bare = iter(self.ids([text for text, ok in zip(texts, clean, strict=True) if not ok]))
        return [ids[num:] if ok else next(bare) for ids, ok in zip(led, clean, strict=True)]


def pieces_of(tokenizer: Any) -> Pieces:
    """The tokenizer's habits, found by trying: its first token, and its invented blank."""

    def bare(text: str) -> Ids:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    word, full = bare("a"), tuple(tokenizer("a")["input_ids"])
    at = next((k for k in range(len(full)) if word and full[k : k + len(word)] == word), 0)
    lead_ids, led = bare("\n"), bare("\na")
    invents = bool(lead_ids) and led[: len(lead_ids)] == lead_ids and led[len(lead_ids) :] != word
    return Pieces(tokenizer, full[:at], "\n" if invents else "", lead_ids if invents else ())


def tokenise(drafts: Sequence[Draft], pieces: Pieces) -> list[tuple[Ids, list[list[Ids]]]]:
    """Each draft's prompt ids and its sequences' pieces' ids, through two tokenizer calls in all."""
    # The first piece after an empty prompt begins the text.
    starts = _unique([d.prompt for d in drafts] + [s[0].text for d in drafts if not d.prompt for s in d.sequences])
    rests = _unique(
        p.text for d in drafts for s in d.sequences for k, p in enumerate(s) if p.ids is None and (d.prompt or k > 0)
    )
    start = dict(zip(starts, pieces.ids(starts), strict=True))
    rest = dict(zip(rests, pieces.continuing(rests), strict=True))

    def ids(draft: Draft, at: int, piece: Piece) -> Ids:
        if piece.ids is not None:
            return piece.ids
        return rest[piece.text] if draft.prompt or at > 0 else start[piece.text]

    return [
        (
            pieces.prompt_ids(d.prompt, start[d.prompt], bos=d.bos),
            [[ids(d, k, p) for k, p in enumerate(s)] for s in d.sequences],
        )
        for d in drafts
    ]


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def assemble(draft: Draft, prompt_ids: Ids, pieces_ids: Sequence[Sequence[Ids]], max_length: int) -> EncodedGroup | str:
    """The group's ids and masks, cut to `max_length` tokens of prompt and completion; or why it is dropped."""
    if not prompt_ids and draft.sequences:
        if len(draft.sequences) > 1 or not pieces_ids[0] or not pieces_ids[0][0]:
            return "empty prompt, and the tokenizer has no first token to stand for it"
        # Nothing predicts a text's first token, so it is read as the prompt.
        (first, *others), prompt_ids = pieces_ids[0], pieces_ids[0][0][:1]
        pieces_ids = [[first[1:], *others]]
    if len(prompt_ids) >= max_length:
        return "prompt fills max_length"
    room = max_length - len(prompt_ids)
    sequences = []
    for k, (pieces, ids) in enumerate(zip(draft.sequences, pieces_ids, strict=True)):
        sequence = _sequence(pieces, ids, room, draft.columns[k], draft.cut[k])
        fault = _fault(sequence)
        if fault:
            return fault
        sequences.append(sequence)
    if len(sequences) == 2 and sequences[0].ids == sequences[1].ids:
        cut = sequences[0].truncated or sequences[1].truncated
        return "identical after truncation" if cut else "identical tokens"
    return EncodedGroup(prompt_ids, tuple(sequences), origin=draft.origin)


def _fault(sequence: EncodedSequence) -> str:
    if not any(sequence.trained):
        return "no trained token fits in max_length" if sequence.truncated else "no trained token"
    return ""


def _sequence(
    pieces: Sequence[Piece], pieces_ids: Sequence[Ids], room: int, columns: Mapping[str, float], cut: bool
) -> EncodedSequence:
    """The start of a sequence that fits in `room` tokens."""
    ids = [i for piece_ids in pieces_ids for i in piece_ids]
    trained = [piece.trained for piece, piece_ids in zip(pieces, pieces_ids, strict=True) for _ in piece_ids]
    return EncodedSequence(tuple(ids[:room]), tuple(trained[:room]), columns, cut or len(ids) > room)
