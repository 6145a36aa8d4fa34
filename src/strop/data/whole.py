"""Groups as token ids for models that read a text as a whole and say one number of it.

Such a text is all that the chat template writes, also what comes behind the last end-of-turn token
(a line break, for most): its last token is read, and users of the finished model call
`apply_chat_template` and nothing else. Nothing is cut, since a cut text has another last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.types import Completion, Group, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_LIMIT = 1 << 30


class WholeChat(Chat):
    """`Chat`, with texts to their very end and no longer than they may be.

    Attributes: tail_ids: what the template writes behind the token that ends an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> None:
        super().__init__(tokenizer, system)
        self.tail_ids: tuple[int, ...] = self._tail()

    def encode_many(self, groups: Sequence[Group], max_length: int) -> list[EncodedGroup | str]:
        """Every group's ids, or why it is dropped; one that is longer than `max_length` tokens is."""
        found = super().encode_many(groups, NO_LIMIT)
        return [e if isinstance(e, str) else self._whole(g, e, max_length) for g, e in zip(groups, found, strict=True)]

    def _whole(self, group: Group, encoded: EncodedGroup, max_length: int) -> EncodedGroup | str:
        if not (isinstance(group.prompt, str) and all(isinstance(c.content, str) for c in group.completions)):
            encoded = replace(encoded, sequences=tuple(map(self._to_the_end, encoded.sequences)))
        longest = max((len(s.ids) for s in encoded.sequences), default=0)
        if len(encoded.prompt_ids) + longest > max_length:
            return f"longer than {max_length} tokens, and a cut text cannot be scored"
        return encoded

    def _to_the_end(self, sequence: EncodedSequence) -> EncodedSequence:
        """A sequence with the template's last words, unless it was cut off before them."""
        num = len(self.tail_ids)
        if sequence.truncated or not num:
            return sequence
        columns = {
            name: (*value, *(float("nan"),) * num) if isinstance(value, tuple) else value
            for name, value in sequence.columns.items()
        }
        ids, trained = sequence.ids + self.tail_ids, sequence.trained + (False,) * num
        return replace(sequence, ids=ids, trained=trained, columns=columns)

    def _tail(self) -> tuple[int, ...]:
        """Found by trying: what a short dialogue's tokens go on with behind what `Chat` makes of it."""
        asked, said = Message("user", "a"), Message("assistant", "b")
        (encoded,) = super().encode_many([Group((asked,), (Completion((said,)),))], NO_LIMIT)
        if isinstance(encoded, str):
            return ()
        turns = [{"role": m.role, "content": m.content} for m in (*self._opened((asked,)), said)]
        text = self.tokenizer.apply_chat_template(turns, chat_template=self.template, tokenize=False)
        whole = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        ours = encoded.prompt_ids + encoded.sequences[0].ids
        return whole[len(ours) :] if whole[: len(ours)] == ours else ()
