r"""Groups as token ids and a loss mask, by the tokenizer's chat template or as plain text.

The mask is decided here and nowhere else: from the spans that are rendered, never from token ids.

**Conversations.** The prompt is rendered with the generation prompt, so its tokens are what
sampling would see. Of the completion every assistant turn is trained: all that follows the
generation prompt (words, and what the template puts around them) up to and with the end-of-turn
token. Role headers, the line break after an end-of-turn token, and system, user and tool turns are
read, not trained. Spans come from the template's `{% generation %}` markers where it has them,
moved so that they end with the end-of-turn token; else from rendering the turns one by one. A
template that ends turns with no token gets the tokenizer's EOS after the last one.

A template may render an earlier turn otherwise than it did while that turn was the last (Qwen3
leaves out earlier `<think>` parts). Then only the last assistant turn is trained, as everything
before it stands when it is generated; `Chat.notes` counts that. Where not even the last turn
follows what generation sees, the group is dropped with a reason, as is one whose words hold a
control token (`<|im_end|>` inside a message would forge a turn).

A tokenizer without a template gets ChatML; without `<|im_end|>` in its vocabulary, EOS ends a turn.

**Plain text.** Prompt and completion as they stand, tokenised apart, the tokenizer's own BOS before
them once, EOS behind the completion and trained. A text without prompt and BOS has its first token
as prompt, for nothing predicts it.

**Truncation** keeps the start, and what is cut gets no EOS and no end-of-turn token. Steps that a
completion is cut in make no difference here; `steps` writes them down for a head that reads their ends.

Left out: tool calls, images, `continue_final_message`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pieces import Draft, Piece, assemble, pieces_of, tokenise
from strop.types import Completion, Content, Group, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = tuple[Message, ...]
Span = tuple[int, int]
Render = Callable[[Turns, bool], str]
"""The text of turns, with the generation prompt behind them or not."""
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = "Qprobe7"
LAST_TURN_ONLY = "only the last assistant turn is trained: the template renders earlier ones otherwise"


def chatml(turn_end: str, bos: str = "") -> str:
    """A ChatML template: each turn between `<|im_start|>role` and `turn_end`, each on its own line."""
    start, end, first = (_literal(text) for text in ("<|im_start|>", turn_end + "\n", bos))
    return (
        f"{{{{ {first} }}}}"
        "{% for message in messages %}"
        f"{{{{ {start} + message['role'] + {_literal(chr(10))} + message['content'] + {end} }}}}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {start} + {_literal('assistant' + chr(10))} }}}}{{% endif %}}"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


class Chat:
    """A tokenizer's way of writing groups down.

    Attributes:
        template: the chat template in use; save it with a model whose tokenizer had none.
        stop_ids: tokens that end an answer: EOS and the template's end-of-turn token.
        notes: what encoding did to groups that it kept, counted.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> None:
        """Args: system: a turn put before every conversation that has none.

        Raises: ValueError if the tokenizer has no EOS token.
        """
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no EOS token, so no answer could end; set tokenizer.eos_token")
        self.tokenizer = tokenizer
        self.system = system
        self.notes: Counter[str] = Counter()
        self._pieces = pieces_of(tokenizer)
        self.template: str = _template(tokenizer) or self._chatml()
        self._marked = bool(_MARKER.search(self.template))
        added = tokenizer.added_tokens_decoder
        ends = self._turn_ends(_any_of({t.content for t in added.values() if t.content.strip()}))
        special = {t.content for t in added.values() if t.special} | set(map(str, tokenizer.all_special_tokens))
        self._end = _any_of(ends)
        self._control = _any_of(special | ends)
        ids = {text: int(tokenizer.convert_tokens_to_ids(text)) for text in special | ends}
        self.stop_ids: frozenset[int] = frozenset([int(tokenizer.eos_token_id), *(ids[end] for end in ends)])
        # What no token spells is a word too: the unknown token stands for it.
        self._control_ids = frozenset(ids.values()) - {tokenizer.unk_token_id} | self.stop_ids

    def encode(self, group: Group, max_length: int) -> EncodedGroup | str:
        """The group's ids and masks, or the reason why it is dropped.

        Args: max_length: tokens that prompt and completion together may have.
        """
        return self.encode_many([group], max_length)[0]

    def encode_many(self, groups: Sequence[Group], max_length: int) -> list[EncodedGroup | str]:
        """`encode` of every group, with the tokenizer called on all texts at once."""
        drafts = [self._draft(group) for group in groups]
        good = [draft for draft in drafts if isinstance(draft, Draft)]
        encoded = iter(tokenise(good, self._pieces))
        return [d if isinstance(d, str) else assemble(d, *next(encoded), max_length) for d in drafts]

    def with_content(self, groups: Sequence[EncodedGroup]) -> list[EncodedGroup]:
        """The groups with the column `content`: 0 on control tokens (end of turn, EOS, headers), 1 on all others.

        The words of a turn hold no control token (`encode` drops such rows), so each is the template's.
        """

        def marked(sequence: EncodedSequence) -> EncodedSequence:
            content = tuple(float(i not in self._control_ids) for i in sequence.ids)
            return replace(sequence, columns={**sequence.columns, "content": content})

        return [replace(group, sequences=tuple(map(marked, group.sequences))) for group in groups]

    def encode_prompt(self, prompt: Content, row: Mapping[str, Any] | None = None) -> tuple[int, ...]:
        """What generation sees: the prompt's ids, with the template's generation prompt behind turns.

        Args: row: the group's, whose `chat_template_kwargs` go to the template.
        Raises: ValueError if the template refuses the turns.
        """
        if isinstance(prompt, str):
            return self._pieces.prompt_ids(prompt, self._pieces.ids([prompt])[0], bos=True)
        try:
            text = self._render(self._opened(prompt), _variables(row or {}), asking=True)
        except _Refused as refused:
            raise ValueError(str(refused)) from refused
        return self._pieces.ids([text])[0]

    def encode_texts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of texts that continue another, each tokenised by itself."""
        return self._pieces.continuing(texts)

    def control_in(self, text: str) -> str:
        """The first control token among the words of a text; empty if there is none."""
        found = self._control.search(text)
        return found.group() if found else ""

    def decode(self, ids: Sequence[int]) -> str:
        """The words of ids, without control tokens and without the token that ends the answer."""
        said = list(ids[:-1]) if ids and ids[-1] in self.stop_ids else list(ids)
        out = self.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(out)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Each token alone as text, control tokens included, for people to read."""
        return [str(self.tokenizer.decode([i], clean_up_tokenization_spaces=False)) for i in ids]

    # Drafts: a group as pieces of text.

    def _draft(self, group: Group) -> Draft | str:
        try:
            if isinstance(group.prompt, str) and all(isinstance(c.content, str) for c in group.completions):
                return self._plain(group)
            return self._conversation(group)
        except _Refused as refused:
            return str(refused)

    def _plain(self, group: Group) -> Draft:
        assert isinstance(group.prompt, str)
        sequences = []
        for completion in group.completions:
            pieces = [Piece(str(completion.content), trained=True)]
            ended = str(completion.content).endswith(str(self.tokenizer.eos_token))
            sequences.append(pieces if ended or _is_cut(completion) else [*pieces, self._eos()])
        return _draft_of(group, group.prompt, sequences, bos=True)

    def _conversation(self, group: Group) -> Draft:
        variables = _variables(group.row)
        prompt = self._opened(_as_turns(group.prompt, "user"))
        answers = [_as_turns(c.content, "assistant") for c in group.completions]
        self._check(prompt, answers)
        render = cache(lambda turns, asking: self._render(turns, variables, asking=asking))
        if len(answers) == 1 and len(answers[0]) > 1 and not self._keeps_turns(prompt, answers[0], render):
            # A lone dialogue: what cannot be trained belongs to the prompt.
            self.notes[LAST_TURN_ONLY] += 1
            prompt, answers = prompt + answers[0][:-1], [answers[0][-1:]]
        sequences = [
            self._answer(prompt, answer, completion, render, variables)
            for answer, completion in zip(answers, group.completions, strict=True)
        ]
        return _draft_of(group, render(prompt, True), sequences, bos=False)

    def _check(self, prompt: Turns, answers: Sequence[Turns]) -> None:
        for message in (*prompt, *(m for answer in answers for m in answer)):
            forged = self._control.search(message.content)
            if forged:
                raise _Refused(f"control token {forged.group()} in the words of the {message.role}")
        if any(not a or a[0].role != "assistant" or a[-1].role != "assistant" for a in answers):
            raise _Refused("a completion must begin and end with an assistant turn")

    def _answer(
        self, prompt: Turns, answer: Turns, completion: Completion, render: Render, variables: Mapping[str, Any]
    ) -> list[Piece]:
        """A completion's rendered text behind the prompt's, cut at the edges of the mask."""
        whole, asked = render(prompt + answer, False), render(prompt, True)
        said = [k for k, m in enumerate(answer) if m.role == "assistant"]
        last = render(prompt + answer[: said[-1]], True)
        if not whole.startswith(asked) or not whole.startswith(last):
            raise _Refused("the chat template renders the answer otherwise than it is generated")
        if len(said) > 1 and not self._keeps_turns(prompt, answer, render):
            self.notes[LAST_TURN_ONLY] += 1
            said = said[-1:]
        starts = [len(render(prompt + answer[:k], True)) for k in said]
        if self._marked:
            spans = self._marked_spans(prompt + answer, whole, starts, variables)
        else:
            stops = [*starts[1:], len(whole)]
            spans = [
                self._turn_span(whole, i, j, answer[k].content) for k, i, j in zip(said, starts, stops, strict=True)
            ]
        return self._cut(whole, len(asked), spans, completion)

    def _cut(self, whole: str, at: int, spans: Sequence[Span], completion: Completion) -> list[Piece]:
        """The text from `at` on as pieces: the spans trained, what lies between them not."""
        pieces: list[Piece] = []
        for start, end in spans:
            if start > at:
                pieces.append(Piece(whole[at:start], trained=False))
            pieces.append(Piece(whole[start:end], trained=True))
            at = end
        if _is_cut(completion):
            return [*pieces[:-1], replace(pieces[-1], text=self._end.sub("", pieces[-1].text))]
        return pieces if self._end.search(pieces[-1].text) else [*pieces, self._eos()]

    def _turn_span(self, whole: str, start: int, stop: int, words: str) -> Span:
        """From behind the generation prompt to the end-of-turn token that follows the words."""
        at = whole.find(words.strip(), start, stop)
        after = start if at < 0 else at + len(words.strip())
        end = self._end.search(whole, after, stop)
        if end is None and at < 0:
            raise _Refused("the chat template rewrites the assistant's words")
        return start, after if end is None else end.end()

    def _ended(self, whole: str, start: int, end: int) -> Span:
        """A marked span, moved to end with the end-of-turn token that stands in it or right behind it."""
        inside = list(self._end.finditer(whole, start, end))
        if inside:
            return start, inside[-1].end()
        gap = len(whole[end:]) - len(whole[end:].lstrip())
        behind = self._end.match(whole, end + gap)
        return start, behind.end() if behind else end

    def _keeps_turns(self, prompt: Turns, answer: Turns, render: Render) -> bool:
        """Whether each earlier assistant turn stands in the whole as it stood when it was the last."""
        whole = render(prompt + answer, False)
        for k, message in enumerate(answer[:-1]):
            if message.role != "assistant":
                continue
            start, then = render(prompt + answer[:k], True), render(prompt + answer[: k + 1], False)
            if not (whole.startswith(start) and then.startswith(start)):
                return False
            _, end = self._turn_span(then, len(start), len(then), message.content)
            if whole[:end] != then[:end]:
                return False
        return True

    # The template.

    def _opened(self, turns: Turns) -> Turns:
        if self.system is None or any(m.role in ("system", "developer") for m in turns):
            return turns
        return (Message("system", self.system), *turns)

    def _render(self, turns: Turns, variables: Mapping[str, Any], *, asking: bool = False) -> str:
        """The turns as the template writes them; asking adds the generation prompt."""
        messages = [{"role": m.role, "content": m.content} for m in turns]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=asking, **variables
            )
        except Exception as error:  # a template is a program of the model's author and may raise anything
            raise _refusal(error) from error
        return str(text)

    def _marked_spans(
        self, turns: Turns, whole: str, starts: Sequence[int], variables: Mapping[str, Any]
    ) -> list[Span]:
        """The template's own marks from `starts[0]` on, one an assistant turn, each up to its end-of-turn token."""
        from transformers.utils.chat_template_utils import render_jinja_template

        messages = [{"role": m.role, "content": m.content} for m in turns]
        _, marks = render_jinja_template(
            conversations=[messages],
            chat_template=self.template,
            return_assistant_tokens_mask=True,
            **{**self.tokenizer.special_tokens_map, **variables},
        )
        spans = [(max(int(start), starts[0]), int(end)) for start, end in marks[0] if end > starts[0]]
        if len(spans) != len(starts):
            raise _Refused("the chat template's generation markers do not match the assistant turns")
        return [self._ended(whole, start, end) for start, end in spans]

    def _chatml(self) -> str:
        known = "<|im_end|>" in self.tokenizer.get_vocab()
        bos = str(self.tokenizer.bos_token) if self._pieces.bos == (self.tokenizer.bos_token_id,) else ""
        return chatml("<|im_end|>" if known else str(self.tokenizer.eos_token), bos)

    def _turn_ends(self, added: re.Pattern[str]) -> set[str]:
        """The added tokens that follow an assistant's words, last or in the middle of a dialogue."""
        ask, say = Message("user", "a"), Message("assistant", _PROBE)
        ends = set()
        for turns in ((ask, say), (ask, say, ask, say)):
            try:
                text = self._render(turns, {})
            except _Refused:
                continue
            for tail in text.split(_PROBE)[1:]:
                found = added.search(tail)
                if found and not tail[: found.start()].strip():
                    ends.add(found.group())
        return ends

    def _eos(self) -> Piece:
        return Piece("", trained=True, ids=(int(self.tokenizer.eos_token_id),))


class _Refused(Exception):
    """Why a group cannot be written down."""


def _refusal(error: Exception) -> _Refused:
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    return _Refused(f"the chat template refuses it: {said}")


def _template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    found = tokenizer.chat_template
    if isinstance(found, Mapping):
        found = found.get("default")
    return str(found) if found else None


def _any_of(texts: set[str]) -> re.Pattern[str]:
    """Matches any of the texts, the longest first; nothing if there are none."""
    longest_first = sorted((t for t in texts if t), key=lambda t: (-len(t), t))
    return re.compile("|".join(map(re.escape, longest_first)) if longest_first else r"(?!)")


def _variables(row: Mapping[str, Any]) -> Mapping[str, Any]:
    found = row.get("chat_template_kwargs") or {}
    if not isinstance(found, Mapping):
        raise _Refused(f"chat_template_kwargs is {type(found).__name__}, not an object")
    return {str(k): v for k, v in found.items()}


def _as_turns(content: Content, role: str) -> Turns:
    return (Message(role, content),) if isinstance(content, str) else content


def _is_cut(completion: Completion) -> bool:
    return completion.finish == "length"


def _draft_of(group: Group, prompt: str, sequences: Sequence[Sequence[Piece]], *, bos: bool) -> Draft:
    return Draft(
        prompt=prompt,
        sequences=tuple(tuple(s) for s in sequences),
        bos=bos,
        cut=tuple(_is_cut(c) for c in group.completions),
        columns=tuple({} if c.label is None else {"labels": float(c.label)} for c in group.completions),
        origin=group.origin,
    )
