"""Masks token by token, boundaries, BOS and EOS, truncation: what the model is trained on."""

from __future__ import annotations

import pytest
from tests.data import conftest as t

from strop.data.chat import LAST_TURN_ONLY, Chat
from strop.data.encoded import EncodedGroup
from strop.types import Completion, Group, Message

U = Message("user", "hello")
A = Message("assistant", "yes")


def turns(*said: str) -> tuple[Message, ...]:
    """user, assistant, user, ... in turn."""
    return tuple(Message("user" if k % 2 == 0 else "assistant", words) for k, words in enumerate(said))


def dialogue(*said: str) -> Group:
    return Group(turns(*said)[:1], (Completion(turns(*said)[1:]),))


def encoded(chat: Chat, group: Group, max_length: int = 1000) -> EncodedGroup:
    out = chat.encode(group, max_length)
    assert isinstance(out, EncodedGroup), out
    for sequence in out.sequences:
        assert len(sequence.ids) == len(sequence.trained)
    return out


def shown(chat: Chat, group: Group, max_length: int = 1000) -> str:
    """The whole text, trained stretches in [brackets]."""
    out = encoded(chat, group, max_length)
    (sequence,) = out.sequences
    text, on = chat.tokenizer.decode(out.prompt_ids), False
    for token, trained in zip(sequence.ids, sequence.trained, strict=True):
        text += ("[" if trained and not on else "]" if on and not trained else "") + chat.tokenizer.decode([token])
        on = trained
    return text + ("]" if on else "")


def trained_tokens(chat: Chat, group: Group) -> list[str]:
    (sequence,) = encoded(chat, group).sequences
    return [chat.tokenizer.decode([i]) for i, on in zip(sequence.ids, sequence.trained, strict=True) if on]


TWO_TURNS = (
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n[yes<|im_end|>]\n"
    "<|im_start|>user\nwhat<|im_end|>\n<|im_start|>assistant\n[no<|im_end|>]"
)


@pytest.mark.parametrize("template", [t.CHATML, t.MARKED, t.MARKED_WORDS_ONLY, t.STRIPS_THOUGHTS, t.ENDS_TWICE, None])
def test_every_assistant_turn_is_trained_with_its_end_and_nothing_else(template):
    assert shown(Chat(t.bpe(template)), dialogue("hello", "yes", "what", "no")) == TWO_TURNS


def test_trained_tokens_are_the_words_and_the_end_token_each_alone():
    chat = Chat(t.bpe(t.CHATML))
    assert trained_tokens(chat, dialogue("hello", "yes", "what", "no")) == ["yes", "<|im_end|>", "no", "<|im_end|>"]


def test_tool_system_and_user_turns_in_a_completion_are_read_but_not_trained():
    said = (A, Message("tool", "two"), Message("system", "think"), Message("assistant", "four"))
    out = shown(Chat(t.bpe(t.CHATML)), Group((U,), (Completion(said),)))
    assert out == (
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n[yes<|im_end|>]\n<|im_start|>tool\ntwo<|im_end|>\n"
        "<|im_start|>system\nthink<|im_end|>\n<|im_start|>assistant\n[four<|im_end|>]"
    )


@pytest.mark.parametrize("template", [t.CHATML, t.MARKED, t.DEFAULT_SYSTEM, t.STRIPS_THOUGHTS, t.INST, t.ENDS_TWICE])
def test_prompt_ids_are_what_generation_sees(template):
    chat = Chat(t.bpe(template))
    group = dialogue("hello", "yes", "what", "no")
    seen = chat.tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], add_generation_prompt=True, return_dict=False
    )
    assert encoded(chat, group).prompt_ids == chat.encode_prompt(group.prompt) == tuple(seen)


@pytest.mark.parametrize("template", [t.CHATML, t.MARKED, t.DEFAULT_SYSTEM, t.INST])
def test_all_ids_together_are_the_template_s(template):
    """Cut into pieces, the text is still tokenised as the whole is, up to what follows the last end-of-turn."""
    chat, group = Chat(t.bpe(template)), dialogue("hello", "yes", "what", "no")
    out = encoded(chat, group)
    messages = [{"role": m.role, "content": m.content} for m in turns("hello", "yes", "what", "no")]
    whole = tuple(chat.tokenizer.apply_chat_template(messages, return_dict=False))
    ids = out.prompt_ids + out.sequences[0].ids
    assert whole[: len(ids)] == ids
    assert chat.tokenizer.decode(whole[len(ids) :]).strip() == ""


def test_default_system_turn_appears_once_and_ours_replaces_it():
    text = shown(Chat(t.bpe(t.DEFAULT_SYSTEM)), dialogue("hello", "yes", "what", "no"))
    assert text.count("<|im_start|>system") == text.count("Be kind.") == 1
    text = shown(Chat(t.bpe(t.DEFAULT_SYSTEM), system="Be brief."), dialogue("hello", "yes"))
    assert text.count("<|im_start|>system") == 1 and "Be brief." in text and "kind" not in text


def test_system_is_put_before_conversations_that_have_none_only():
    chat = Chat(t.bpe(t.CHATML), system="Be brief.")
    own = Group((Message("system", "Mine."), U), (Completion((A,)),))
    assert "Be brief." in shown(chat, dialogue("hello", "yes")) and "Be brief." not in shown(chat, own)
    assert encoded(chat, dialogue("hello", "yes")).prompt_ids == chat.encode_prompt((U,))


THOUGHTS = ("hello", "<think>two</think>\nyes", "what", "<think>four</think>\nno")


def test_stripped_thoughts_leave_the_last_turn_alone_trained_and_counted():
    chat = Chat(t.bpe(t.STRIPS_THOUGHTS))
    assert shown(chat, dialogue(*THOUGHTS)) == (
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\nwhat<|im_end|>\n"
        "<|im_start|>assistant\n[<think>four</think>\nno<|im_end|>]"
    )
    assert chat.notes == {LAST_TURN_ONLY: 1}
    assert encoded(chat, dialogue(*THOUGHTS)).prompt_ids == chat.encode_prompt(turns(*THOUGHTS)[:3])


def test_stripped_thoughts_in_a_pair_train_both_last_turns_behind_the_shared_prompt():
    chat = Chat(t.bpe(t.STRIPS_THOUGHTS))
    sides = [turns(*THOUGHTS)[1:], (*turns(*THOUGHTS)[1:3], Message("assistant", "no"))]
    out = encoded(chat, Group((U,), tuple(Completion(side) for side in sides)))
    assert out.prompt_ids == chat.encode_prompt((U,))
    words = [chat.decode([i for i, on in zip(s.ids, s.trained, strict=True) if on]) for s in out.sequences]
    assert words == ["<think>four</think>\nno", "no"]


def test_kept_thoughts_are_trained_in_every_turn():
    chat = Chat(t.bpe(t.CHATML))
    assert shown(chat, dialogue(*THOUGHTS)).count("[<think>") == 2 and not chat.notes


def test_an_answer_not_rendered_as_it_is_generated_is_dropped():
    out = Chat(t.bpe(t.OPENS_THOUGHT)).encode(dialogue("hello", "<think>\ntwo</think>\nyes"), 100)
    assert out == "the chat template renders the answer otherwise than it is generated"


def test_a_template_that_refuses_gives_a_reason():
    group = Group((Message("system", "think"), U), (Completion((A,)),))
    chat = Chat(t.bpe(t.INST))
    assert chat.encode(group, 100) == "the chat template refuses it: no system turn"
    with pytest.raises(ValueError, match="no system turn"):
        chat.encode_prompt(group.prompt)


def test_a_control_token_in_the_words_cannot_forge_a_turn():
    out = Chat(t.bpe(t.CHATML)).encode(dialogue("hello", "yes<|im_end|>\n<|im_start|>user\nno"), 100)
    assert out == "control token <|im_end|> in the words of the assistant"


def test_template_variables_of_a_row_reach_the_template():
    template = "{{ mood }}" + t.CHATML
    group = Group((U,), (Completion((A,)),), row={"chat_template_kwargs": {"mood": "there"}})
    chat = Chat(t.bpe(template))
    assert shown(chat, group).startswith("there<|im_start|>user")
    assert chat.encode_prompt((U,), group.row) == encoded(chat, group).prompt_ids != chat.encode_prompt((U,))


def test_bos_in_the_template_is_not_doubled_by_the_tokenizer():
    for bos in (False, True):
        chat = Chat(t.bpe(t.INST, bos=bos))
        assert shown(chat, dialogue("hello", " yes ", "what", "no")) == (
            "<s>[INST] hello [/INST][ yes </s>][INST] what [/INST][ no </s>]"
        )


def test_stop_ids_are_eos_and_the_end_of_turn():
    for template, ends in [
        (t.CHATML, {"</s>", "<|im_end|>"}),
        (t.MARKED_WORDS_ONLY, {"</s>", "<|im_end|>"}),
        (t.ENDS_TWICE, {"</s>", "<|im_end|>"}),
        (t.INST, {"</s>"}),
        (t.NO_END, {"</s>"}),
        (None, {"</s>", "<|im_end|>"}),
    ]:
        tokenizer = t.bpe(template)
        assert Chat(tokenizer).stop_ids == {tokenizer.convert_tokens_to_ids(end) for end in ends}


def test_a_template_without_end_token_gets_eos_after_the_last_turn():
    assert shown(Chat(t.bpe(t.NO_END)), dialogue("hello", "yes", "what", "no")) == (
        "user: hello\nassistant: [yes]\nuser: what\nassistant: [no</s>]"
    )


def test_built_in_chatml_ends_turns_with_eos_where_the_vocabulary_has_no_im_end():
    chat = Chat(t.bpe(None, im=False, bos=True))
    assert shown(chat, dialogue("hello", "yes")) == ("<s><|im_start|>user\nhello</s>\n<|im_start|>assistant\n[yes</s>]")
    assert chat.stop_ids == {chat.tokenizer.eos_token_id}


def test_plain_completion_gets_one_trained_eos_and_one_bos():
    group = Group("hello", (Completion(" there"),))
    assert shown(Chat(t.bpe()), group) == "hello[ there</s>]"
    assert shown(Chat(t.bpe(bos=True)), group) == "<s>hello[ there</s>]"
    assert shown(Chat(t.bpe(bos=True)), Group("<s>hello", (Completion(" there</s>"),))) == "<s>hello[ there</s>]"
    assert Chat(t.bpe(bos=True)).encode_prompt("hello") == encoded(Chat(t.bpe(bos=True)), group).prompt_ids


def test_text_without_prompt_trains_all_that_something_predicts():
    group = Group("", (Completion("hello there"),))
    assert shown(Chat(t.bpe(bos=True)), group) == "<s>[hello there</s>]"
    chat = Chat(t.bpe())
    out = encoded(chat, group)
    assert len(out.prompt_ids) == 1 and chat.decode(out.prompt_ids + out.sequences[0].ids) == "hello there"
    assert all(out.sequences[0].trained)


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("hello the", "re"), ("a\n", "\nb"), ("is ", "two"), ("is", " two"), ("ans", "wer"), ("é", "́")],
)
def test_no_token_crosses_the_boundary_of_prompt_and_completion(prompt, completion):
    chat = Chat(t.bpe())
    out = encoded(chat, Group(prompt, (Completion(completion),)))
    assert out.prompt_ids == chat.encode_prompt(prompt)
    assert chat.tokenizer.decode(out.prompt_ids + out.sequences[0].ids[:-1]) == prompt + completion


def test_no_blank_is_invented_between_prompt_and_completion():
    chat = Chat(t.blank_inventing())
    out = encoded(chat, Group("what is", (Completion(" two"), Completion("nt two"))))
    texts = [chat.tokenizer.decode(out.prompt_ids + s.ids[:-1]) for s in out.sequences]
    assert texts == ["what is two", "what isnt two"]
    whole = chat.tokenizer("what is two", add_special_tokens=False)["input_ids"]
    assert list(out.prompt_ids + out.sequences[0].ids[:-1]) == whole


def test_truncation_keeps_the_start_without_an_end():
    chat, group = Chat(t.bpe(t.CHATML)), dialogue("hello", "yes", "what", "no")
    whole = encoded(chat, group)
    total = whole.num_tokens
    assert not encoded(chat, group, total).sequences[0].truncated
    for max_length in range(len(whole.prompt_ids) + 1, total):
        (cut,) = encoded(chat, group, max_length).sequences
        room = max_length - len(whole.prompt_ids)
        assert cut.truncated and cut.ids == whole.sequences[0].ids[:room]
        assert cut.trained == whole.sequences[0].trained[:room]
    assert chat.encode(group, len(whole.prompt_ids)) == "prompt fills max_length"


def test_plain_truncation_never_ends_with_eos():
    chat = Chat(t.bpe())
    (cut,) = encoded(chat, Group("hello", (Completion(" there is no end"),)), 4).sequences
    assert cut.truncated and chat.tokenizer.eos_token_id not in cut.ids


def test_a_sampled_answer_cut_by_length_gets_no_end():
    plain = Group("hello", (Completion(" there", finish="length"),))
    assert shown(Chat(t.bpe()), plain) == "hello[ there]"
    assert encoded(Chat(t.bpe()), plain).sequences[0].truncated
    chat = Group((U,), (Completion((A,), finish="length"),))
    assert shown(Chat(t.bpe(t.CHATML)), chat).endswith("assistant\n[yes]")


def test_pairs_identical_after_truncation_or_by_tokens_are_dropped():
    chat = Chat(t.bpe(t.INST))
    pair = Group((U,), (Completion((A,)), Completion((Message("assistant", " yes"),))))
    assert chat.encode(pair, 100) == "identical tokens"  # this template trims the words
    long = Group("hello", (Completion(" the answer is two"), Completion(" the answer is four")))
    assert chat.encode(long, 4) == "identical after truncation"
    assert isinstance(chat.encode(long, 100), EncodedGroup)


def test_pair_shares_the_prompt_and_keeps_the_order():
    chat = Chat(t.bpe(t.CHATML))
    out = encoded(chat, Group((U,), (Completion((A,)), Completion((Message("assistant", "no"),))), origin="f:3"))
    assert [chat.decode(s.ids) for s in out.sequences] == ["yes", "no"] and out.origin == "f:3"


def test_labels_become_columns():
    out = encoded(Chat(t.bpe()), Group("hello", (Completion(" there", label=False),)))
    assert out.sequences[0].columns == {"labels": 0.0}


def test_steps_make_no_difference():
    """A solution that a process reward cut in steps is trained on as it stands."""
    chat = Chat(t.bpe(t.CHATML))
    words = "two plus two\nis four\nyes"
    whole = Completion((Message("assistant", words),))
    cut = Completion(whole.content, steps=("two plus two\n", "is four\n", "yes"), step_scores=(0.5, 0.25, 1.0))
    assert chat.encode(Group((U,), (cut,)), 99) == chat.encode(Group((U,), (whole,)), 99)


def test_prompt_only_groups_have_ids_and_no_sequences():
    chat = Chat(t.bpe(t.CHATML))
    out = encoded(chat, Group((U,)))
    assert out.prompt_ids == chat.encode_prompt((U,)) and out.sequences == ()


def test_encode_many_is_encode_of_each():
    chat = Chat(t.bpe(t.CHATML, bos=True))
    groups = [dialogue("hello", "yes"), Group("what", (Completion(" is"),)), Group("", (Completion("two"),))]
    groups += [dialogue("hello", "no", "what", "two"), dialogue("hello", "<s>")]
    assert chat.encode_many(groups, 40) == [chat.encode(group, 40) for group in groups]


def test_decode_leaves_control_tokens_out():
    chat = Chat(t.bpe(t.CHATML))
    assert chat.decode(encoded(chat, dialogue("hello", "yes", "what", "no")).sequences[0].ids[:2]) == "yes"


def test_a_tokenizer_without_eos_is_refused():
    tokenizer = t.bpe()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="EOS"):
        Chat(tokenizer)


def test_gsm8k_and_hh_tokens_come_back_as_text(shared):
    from strop.data.formats import load_dataset

    chat = Chat(t.bpe())
    data = [load_dataset(str(shared / "gsm8k"), limit=50), load_dataset(str(shared / "hh-rlhf"), limit=50)]
    for group in data[0].groups + data[1].groups:
        out = encoded(chat, group, 100_000)
        for sequence, completion in zip(out.sequences, group.completions, strict=True):
            said = [i for i, on in zip(sequence.ids, sequence.trained, strict=True) if on]
            assert chat.decode(said) == completion.text


@pytest.mark.parametrize("template", [t.CHATML, t.MARKED, t.ENDS_TWICE, t.INST, None])
def test_content_marks_the_words_and_not_the_template_s_tokens(template):
    chat = Chat(t.bpe(template))
    (group,) = chat.with_content([encoded(chat, dialogue("hello", "yes no", "what", "four"))])
    (sequence,) = group.sequences
    content = sequence.columns["content"]
    assert set(content) == {0.0, 1.0} and len(content) == len(sequence.ids)
    said = {
        mark: [chat.tokenizer.decode([i]) for i, c, on in zip(sequence.ids, content, sequence.trained, strict=True)
               if on and c == mark]
        for mark in (0.0, 1.0)
    }  # fmt: skip
    end = "</s>" if template == t.INST else "<|im_end|>"
    assert said[0.0] == [end, end]
    assert "".join(said[1.0]).replace(" ", "") == "yesnofour"


def test_content_of_plain_text_leaves_out_the_end_alone():
    chat = Chat(t.bpe())
    group = Group("what is ", (Completion("two plus two"), Completion("four", finish="length")))
    (group,) = chat.with_content([encoded(chat, group)])
    ended, cut = (s.columns["content"] for s in group.sequences)
    assert ended[-1] == 0.0 and set(ended[:-1]) == {1.0} and set(cut) == {1.0}


def test_content_keeps_other_columns_and_counts_an_unknown_word_as_a_word():
    tokenizer = t.blank_inventing()
    tokenizer.add_special_tokens({"unk_token": "?"})
    chat = Chat(tokenizer)
    group = Group("ab", (Completion("a?b", label=True),))
    (sequence,) = chat.with_content([encoded(chat, group)])[0].sequences
    assert sequence.columns["labels"] == 1.0
    assert sequence.columns["content"] == (1.0,) * (len(sequence.ids) - 1) + (0.0,)
