"""The chat template of a base model: its words, its mask, and when it is not taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data import conftest as t

from strop.data.chat import Chat
from strop.data.templates import R1_ZERO, conversations, give_template
from strop.types import Completion, Group, Message

QUESTION = (Message("user", "what is two"),)


@pytest.fixture
def bare():  # noqa: ANN201
    """A base model's tokenizer: no chat template."""
    return t.bpe(None)


def test_the_prompt_is_the_paragraph_the_question_and_the_beginning_of_an_answer(bare) -> None:
    assert give_template(bare, "r1-zero")
    chat = Chat(bare)
    text = bare.decode(chat.encode_prompt(QUESTION), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert text == f"{R1_ZERO}\n\nUser:\nwhat is two\n\nAssistant:\n"
    assert "<think>" in R1_ZERO and "</answer>" in R1_ZERO


def test_an_answer_is_trained_up_to_the_end_of_text_token(bare) -> None:
    give_template(bare, "r1-zero")
    chat = Chat(bare)
    (found,) = chat.encode_many([Group(QUESTION, (Completion("two"),))], 1000)
    assert not isinstance(found, str)
    (sequence,) = found.sequences
    trained = [i for i, m in zip(sequence.ids, sequence.trained, strict=True) if m]
    assert trained[-1] == bare.eos_token_id and chat.decode(trained) == "two"
    assert found.prompt_ids == chat.encode_prompt(QUESTION), "what is trained is what is sampled"


def test_a_system_turn_stands_in_the_paragraphs_place(bare) -> None:
    give_template(bare, "r1-zero")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]
    text = bare.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert "Be brief.\n\nUser:\na\n\nAssistant:\n" in text and R1_ZERO not in text
    with pytest.raises(Exception, match="turns of user and assistant only"):
        bare.apply_chat_template([*turns, {"role": "tool", "content": "x"}], tokenize=False)


def test_a_template_of_ones_own_stands(tmp_path: Path) -> None:
    own = t.bpe(t.CHATML)
    assert not give_template(own, "r1-zero") and own.chat_template == t.CHATML


def test_it_is_saved_with_the_tokenizer_and_known_again(bare, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    give_template(bare, "r1-zero")
    bare.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template == bare.chat_template and give_template(again, "r1-zero")


def test_plain_prompts_become_turns() -> None:
    plain = Group("q", (Completion("a", score=1.0),), row={"answer": 1}, prompt_ids=(1,))
    turns, text, chat = conversations([plain, Group("", (Completion("text"),)), Group(QUESTION)])
    assert turns.prompt == (Message("user", "q"),) and turns.completions[0].content == (Message("assistant", "a"),)
    assert turns.completions[0].score == 1.0 and turns.row == {"answer": 1} and turns.prompt_ids is None
    assert text.prompt == "" and chat.prompt == QUESTION
