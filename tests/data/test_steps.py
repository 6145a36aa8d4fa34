"""Steps as token ids: the field's layout by hand, edges that never merge, truncation, and ends in sampled texts."""

from __future__ import annotations

import math

import pytest
from tests.data import conftest as t

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup
from strop.data.pack import pack
from strop.data.steps import UNLABELLED, bare, cut, encode_steps, encode_to_score, step_ends
from strop.types import Completion, Group, Message

STEPS = ("two plus two", "is four", "yes")
U = Message("user", "hello")


def solved(labels, steps=STEPS, prompt="hello") -> Group:
    return Group(prompt, (Completion("\n".join(steps), steps=tuple(steps), step_labels=tuple(labels)),))


def encoded(chat: Chat, group: Group, separator: str = "\n", max_length: int = 1000) -> EncodedGroup:
    (out,) = encode_steps([group], chat, separator=separator, max_length=max_length)
    assert isinstance(out, EncodedGroup), out
    return out


def words(tokens: str):
    """A tokenizer of whole words, each one id by its place in `tokens`; blanks between words are dropped."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(tokens.split(" "))}, unk_token="?"))
    blanks, lines = pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([blanks, lines])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


# The field's layout.


def test_a_row_by_hand() -> None:
    """What TRL's PRM trainer makes of a row: prompt, then each step and the separator, a label at its last token.

    Written by hand for a tokenizer of whole words (TRL <= 1.10, tokenize_row). Of its arguments ours has
    neither a first token the tokenizer does not put there itself, nor a cut inside a step.
    """
    chat = Chat(words("<s> </s> ? ки what is more 9 or 8 nine of course"))
    group = solved((True, False), ("nine is more", "of course"), "what is more 9 or 8")
    out = encoded(chat, group, separator="ки")
    (sequence,) = out.sequences
    assert out.prompt_ids == (4, 5, 6, 7, 8, 9)
    assert sequence.ids == (10, 5, 6, 3, 11, 12, 3)
    labels = sequence.columns["step_labels"]
    assert [-100 if math.isnan(x) else int(x) for x in labels] == [-100, -100, -100, 1, -100, -100, 0]
    assert sequence.trained == (False, False, False, True, False, False, True) and not sequence.truncated


def test_a_separator_of_several_tokens_is_read_at_its_last_one() -> None:
    chat = Chat(words("<s> </s> ? end step a b"))
    (sequence,) = encoded(chat, solved((0.25, True), ("a", "b a"), "b"), separator="end step").sequences
    assert sequence.ids == (5, 3, 4, 6, 5, 3, 4)
    assert [k for k, on in enumerate(sequence.trained) if on] == [2, 6]
    assert [sequence.columns["step_labels"][k] for k in (2, 6)] == [0.25, 1.0]


def test_pieces_never_merge_with_the_separator() -> None:
    """A byte-level BPE that knows a double line break as one token still ends every step with the same ids."""
    chat = Chat(t.bpe(t.CHATML))
    double = chat.encode_texts(["\n\n"])[0]
    assert len(double) == 1 and chat.encode_texts(["\n"])[0] != double
    (sequence,) = encoded(chat, solved((True, None, False), ("four", "two", "yes"))).sequences
    (end,) = chat.encode_texts(["\n"])
    assert sequence.ids == sum((chat.encode_texts([w])[0] + end for w in ("four", "two", "yes")), ())
    assert chat.encode_texts(["four\n\ntwo"])[0] != sequence.ids[: len(chat.encode_texts(["four\n\ntwo"])[0])]


def test_unlabelled_steps_are_read_and_not_trained() -> None:
    chat = Chat(t.bpe())
    (sequence,) = encoded(chat, solved((True, None, False))).sequences
    labels = sequence.columns["step_labels"]
    assert [x for x in labels if not math.isnan(x)] == [1.0, 0.0]
    assert [not math.isnan(x) for x in labels] == list(sequence.trained)
    assert chat.decode(sequence.ids) == "\n".join(STEPS) + "\n"
    # Nothing is read behind the last label.
    (shorter,) = encoded(chat, solved((True, None, None))).sequences
    assert chat.decode(shorter.ids) == STEPS[0] + "\n" and not shorter.truncated


@pytest.mark.parametrize("template", [t.CHATML, t.OPENS_THOUGHT])
def test_steps_follow_what_generation_would_see(template: str) -> None:
    chat = Chat(t.bpe(template))
    conversational = Group(
        (U,), (Completion((Message("assistant", "\n".join(STEPS)),), steps=STEPS, step_labels=(1, 0, 1)),)
    )
    out = encoded(chat, conversational)
    assert out.prompt_ids == chat.encode_prompt((U,))
    plain = encoded(Chat(t.bpe(bos=True)), solved((True, False, True)))
    assert plain.sequences[0].ids == out.sequences[0].ids
    assert plain.prompt_ids == Chat(t.bpe(bos=True)).encode_prompt("hello")


def test_a_tokenizer_that_invents_blanks_gives_steps_without_them() -> None:
    chat = Chat(t.blank_inventing())
    (sequence,) = encoded(chat, solved((True, True), ("ab", "cd"), "q")).sequences
    assert chat.tokenizer.convert_ids_to_tokens(sequence.ids) == ["a", "b", "\n", "c", "d", "\n"]


# Truncation and reasons.


def test_truncation_leaves_out_whole_steps() -> None:
    chat = Chat(t.bpe())
    whole = encoded(chat, solved((True, False, True)))
    room = whole.num_tokens - 1
    (less,) = encoded(chat, solved((True, False, True)), max_length=room).sequences
    assert less.truncated and chat.decode(less.ids) == "two plus two\nis four\n"
    assert [x for x in less.columns["step_labels"] if not math.isnan(x)] == [1.0, 0.0]
    # The label that is left may stand before steps that have none.
    (first,) = encoded(chat, solved((True, None, True)), max_length=room).sequences
    assert first.truncated and chat.decode(first.ids) == "two plus two\n"


@pytest.mark.parametrize(
    ("group", "max_length", "reason"),
    [
        (solved((True, False, True)), 5, "no labelled step fits in max_length"),
        (solved((None, None, True)), 11, "no labelled step fits in max_length"),
        (solved((None, None, None)), 100, "no labelled step"),
        (solved(()), 100, "no labelled step"),
        (solved((True,)), 100, "steps and labels differ in number"),
        (solved((True, True), ("a", "b<|im_end|>")), 100, "control token <|im_end|> in the words of a step"),
        (solved((True,), ("a",), "hello " * 9), 5, "prompt fills max_length"),
        (solved((True,), ("a",), ""), 50, "empty prompt, and the tokenizer has no first token to stand for it"),
    ],
)
def test_a_group_without_a_readable_label_is_dropped_with_the_reason(
    group: Group, max_length: int, reason: str
) -> None:
    chat = Chat(t.bpe(t.CHATML))
    assert encode_steps([group], chat, separator="\n", max_length=max_length) == [reason]


def test_a_template_that_refuses_says_so() -> None:
    chat = Chat(t.bpe(t.INST))
    group = Group((Message("system", "s"), U), solved((True,), ("a",)).completions)
    (reason,) = encode_steps([group], chat, separator="\n", max_length=99)
    assert reason == "the chat template refuses it: no system turn"


def test_a_solution_without_a_label_that_fits_is_left_out_and_counted() -> None:
    chat = Chat(t.bpe())
    short, long = solved((True,), ("yes",)).completions[0], solved((True,), ("think " * 30,)).completions[0]
    out = encoded(chat, Group("hello", (long, short, long)), max_length=20)
    assert len(out.sequences) == 1 and chat.decode(out.sequences[0].ids) == "yes\n"
    assert chat.notes[UNLABELLED] == 2


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(ValueError, match="separator is empty"):
        cut("a", "")
    with pytest.raises(ValueError, match="separator ' ' gives no token"):
        encoded(Chat(words("<s> </s> ? a")), solved((True,), ("a",), "a"), separator=" ")


# Cutting texts.


@pytest.mark.parametrize(
    ("text", "separator", "pieces"),
    [
        ("a\nb\nc", "\n", ("a\n", "b\n", "c")),
        ("a\nb\n", "\n", ("a\n", "b\n")),
        ("a\n\n\nb", "\n", ("a\n\n\n", "b")),
        ("\n\na\nb", "\n", ("\n\na\n", "b")),
        ("a\n \nb\n ", "\n", ("a\n \n", "b\n ")),
        ("1+1=2;2+2=4</think>4", ";", ("1+1=2;", "2+2=4</think>4")),
        (";;a;;b;", ";", (";;a;;", "b;")),
        ("a ки\nb ки", "ки", ("a ки", "\nb ки")),
        ("a", "\n", ("a",)),
        ("\n\n", "\n", ("\n\n",)),
        ("", "\n", ()),
    ],
)
def test_cut(text: str, separator: str, pieces: tuple[str, ...]) -> None:
    assert cut(text, separator) == pieces
    assert "".join(pieces) == text


def test_cut_pieces_and_written_steps_have_the_same_words() -> None:
    assert [bare(piece, ";") for piece in cut("1+1=2;; 2+2=4 ;done", ";")] == ["1+1=2", "2+2=4", "done"]
    assert bare(" a ки ки ", "ки") == "a" and bare("\n\n", "\n") == "" and bare("a;b", ";") == "a;b"
    chat = Chat(t.bpe())
    by_hand = encoded(chat, solved((1, 1, 1)))
    (read,) = encode_to_score(
        by_hand.prompt_ids, [cut("two plus two\n\nis four\nyes", "\n")], chat, separator="\n", max_length=99
    )
    assert read is not None and read.ids == by_hand.sequences[0].ids and read.trained == by_hand.sequences[0].trained


def test_solutions_to_score_lose_the_steps_that_do_not_fit() -> None:
    chat = Chat(t.bpe())
    pieces = cut("two\nfour\nyes", "\n")
    whole, part, nothing = encode_to_score((1, 2), [pieces, pieces[:1], ()], chat, separator="\n", max_length=99)
    assert whole is not None and part is not None and nothing is None
    assert sum(whole.trained) == 3 and sum(part.trained) == 1
    (less,) = encode_to_score((1, 2), [pieces], chat, separator="\n", max_length=2 + len(whole.ids) - 1)
    assert less is not None and sum(less.trained) == 2
    assert encode_to_score((1, 2), [pieces], chat, separator="\n", max_length=3) == [None]


def test_packed_to_be_read_every_step_end_has_a_place() -> None:
    chat = Chat(t.bpe())
    groups = [encoded(chat, solved((True, False, True))), encoded(chat, solved((None, 0.5), ("is", "no")))]
    (batch,) = pack(groups, max_tokens=999, read_last=True).batches
    assert (batch.position >= 0).all() and batch.input_ids[batch.position].tolist() == batch.target.tolist()
    assert batch.columns["step_labels"].tolist() == [1.0, 0.0, 1.0, 0.5]
    assert {chat.decode([i]) for i in batch.target.tolist()} == {"\n"}


# Ends in sampled texts.


def test_step_ends_in_sampled_tokens() -> None:
    chat = Chat(t.bpe())
    text = "two plus two\n\nis four\nyes"
    ids = [*chat.encode_texts([text])[0], chat.tokenizer.eos_token_id]
    pieces = cut(text, "\n")
    ends = step_ends(ids, pieces, chat.decode)
    assert ends[-1] == len(ids) - 1 and len(ends) == 3
    for k, end in enumerate(ends[:-1], start=1):
        assert chat.decode(ids[: end + 1]).startswith("".join(pieces[:k]))
        assert not chat.decode(ids[:end]).startswith("".join(pieces[:k]))
    assert step_ends(ids, (text,), chat.decode) == (len(ids) - 1,)
    assert step_ends(ids, (), chat.decode) == ()


def test_step_ends_are_found_behind_characters_cut_in_two() -> None:
    """Bytes of one character decode to several replacement marks until the last one comes."""
    chat = Chat(t.bpe())
    text = "ки≠é\n漢字\nyes"
    ids = chat.encode_texts([text])[0]
    ends = step_ends(ids, cut(text, "\n"), chat.decode)
    assert [chat.decode(ids[: end + 1]) for end in ends] == ["ки≠é\n", "ки≠é\n漢字\n", text]


def test_a_token_that_ends_one_step_and_begins_the_next_ends_the_first() -> None:
    spelt = {0: "a", 1: ";b", 2: ";", 3: "c"}
    decode = lambda ids: "".join(spelt[i] for i in ids)  # noqa: E731
    assert step_ends([0, 1, 2, 3], cut("a;b;c", ";"), decode) == (1, 2, 3)
    assert step_ends([0, 1], ("zzz;", "a;b"), decode) == (1, 1)  # another text: nothing is found, nothing fails


def test_inspect_shows_where_steps_end(tmp_path) -> None:
    from strop.data.formats import load_dataset
    from strop.data.inspect import as_text, inspect

    path = tmp_path / "steps.jsonl"
    path.write_text('{"prompt": "hello", "completions": ["two", "four"], "labels": [0.25, true]}\n')
    shown = as_text(inspect(load_dataset(str(path)), Chat(t.bpe())))
    assert "<step 0.25>" in shown and "<step 1>" in shown and "kind     stepwise (stepwise)" in shown
