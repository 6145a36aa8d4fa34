"""Texts as a reward model reads them: what `apply_chat_template` gives, to the last token, or nothing."""

from __future__ import annotations

import pytest
from tests.data import conftest as t

from strop.data.encoded import EncodedGroup
from strop.data.whole import NO_LIMIT, WholeChat
from strop.types import Completion, Group, Message

ASK, SAY = Message("user", "what is two plus two"), Message("assistant", "the answer is four")


def dialogue(*answers: str, finish: str | None = None) -> Group:
    said = tuple(Completion((Message("assistant", a),), finish=finish) for a in answers)  # type: ignore[arg-type]
    return Group((ASK,), said)


TEMPLATES = ["CHATML", "MARKED", "MARKED_WORDS_ONLY", "DEFAULT_SYSTEM", "STRIPS_THOUGHTS", "ENDS_TWICE"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_is_the_templates_own(name: str) -> None:
    tokenizer = t.bpe(getattr(t, name))
    chat = WholeChat(tokenizer)
    (encoded,) = chat.encode_many([dialogue("the answer is four", "no")], NO_LIMIT)
    assert isinstance(encoded, EncodedGroup)
    for sequence, answer in zip(encoded.sequences, ("the answer is four", "no"), strict=True):
        turns = [{"role": "user", "content": ASK.content}, {"role": "assistant", "content": answer}]
        want = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
        assert [*encoded.prompt_ids, *sequence.ids] == want
        assert len(sequence.trained) == len(sequence.ids) and not any(sequence.trained[-len(chat.tail_ids) :])


def test_a_template_without_an_end_of_turn_gets_eos() -> None:
    tokenizer = t.bpe(t.NO_END)
    chat = WholeChat(tokenizer)
    (encoded,) = chat.encode_many([dialogue("no")], NO_LIMIT)
    assert isinstance(encoded, EncodedGroup)
    assert chat.tail_ids == () and encoded.sequences[0].ids[-1] == tokenizer.eos_token_id


def test_nothing_is_cut() -> None:
    chat = WholeChat(t.bpe(t.CHATML))
    group = dialogue("no", "the answer is four yes")
    (whole,) = chat.encode_many([group], NO_LIMIT)
    assert isinstance(whole, EncodedGroup)
    longest = len(whole.prompt_ids) + max(len(s.ids) for s in whole.sequences)
    assert chat.encode_many([group], longest) == [whole]
    (reason,) = chat.encode_many([group], longest - 1)
    assert reason == f"longer than {longest - 1} tokens, and a cut text cannot be scored"


def test_an_answer_that_was_cut_off_ends_where_it_was() -> None:
    tokenizer = t.bpe(t.CHATML)
    chat = WholeChat(tokenizer)
    (encoded,) = chat.encode_many([dialogue("the answer", finish="length")], NO_LIMIT)
    assert isinstance(encoded, EncodedGroup)
    assert tokenizer.decode(encoded.sequences[0].ids) == "the answer"


def test_plain_text_stays_plain() -> None:
    tokenizer = t.bpe(t.CHATML)
    (encoded,) = WholeChat(tokenizer).encode_many([Group("what is two", (Completion(" four"),))], NO_LIMIT)
    assert isinstance(encoded, EncodedGroup)
    assert tokenizer.decode([*encoded.prompt_ids, *encoded.sequences[0].ids]) == "what is two four</s>"
