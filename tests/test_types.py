"""Groups are what files hold: nothing is lost either way, and what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from strop.types import (
    Completion,
    Group,
    Message,
    content_from_json,
    content_to_json,
    group_from_json,
    group_to_json,
)

TURNS = (Message("system", "Be brief."), Message("user", "2+2?"), Message("assistant", "4"), Message("user", "Sure?"))

FULL = Group(
    prompt=TURNS,
    completions=(
        Completion(
            content=(Message("assistant", "Yes."), Message("tool", "4"), Message("assistant", "Yes, 4.")),
            label=False,
            score=0.0,
            rewards={"exact": 1.0, "style": None},
            reasons={"exact": "4 = 4"},
            facts={"code": {"tier": "A", "hidden": 0.0}},
            steps=("2+2", "=4", "."),
            step_labels=(True, 0.25, None),
            step_scores=(0.75, -1.5, None),
            token_ids=(5, 6, 7),
            logprobs=(-0.5, -1e-9, -30.25),
            finish="length",
            advantage=-0.125,
            version=3,
        ),
        Completion("No.", label=True, finish="stop"),
    ),
    row={"answer": 4, "tags": ["a", {"b": None}], "ü": "é"},
    origin="a.jsonl:12",
    prompt_ids=(1, 2),
)


@pytest.mark.parametrize(
    "group",
    [
        FULL,
        Group("p"),
        Group("", (Completion(""),)),
        Group((), (Completion(()),)),
        Group("p", (Completion("c", token_ids=(), logprobs=()),), prompt_ids=()),
    ],
)
def test_a_group_survives_json(group: Group) -> None:
    assert group_from_json(json.loads(json.dumps(group_to_json(group)))) == group


def test_every_field_of_a_completion_is_written() -> None:
    assert set(group_to_json(FULL)["completions"][0]) == {f.name for f in fields(Completion)}


def test_what_says_nothing_is_left_out_and_false_and_zero_say_something() -> None:
    assert group_to_json(Group("p", (Completion("c"),))) == {"prompt": "p", "completions": [{"content": "c"}]}
    (completion,) = group_to_json(Group("p", (Completion("c", label=False, score=0.0),)))["completions"]
    assert completion == {"content": "c", "label": False, "score": 0.0}


def test_content_both_ways() -> None:
    assert content_to_json("text") == "text" and content_from_json("text") == "text"
    assert content_to_json(TURNS[:1]) == [{"role": "system", "content": "Be brief."}]
    assert content_from_json(content_to_json(TURNS)) == TURNS


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"completions": []}, "a group needs 'prompt' and a list 'completions'"),
        ({"prompt": "p"}, "a group needs 'prompt' and a list 'completions'"),
        ({"prompt": "p", "completions": {}}, "a group needs 'prompt' and a list 'completions'"),
        ({"prompt": "p", "completions": [], "promt": 1}, "unknown key 'promt' in a group; known: completions, origin"),
        ({"prompt": "p", "completions": [{"content": "c", "scor": 1}]}, "unknown key 'scor' in a completion; known: "),
        ({"prompt": "p", "completions": [{"score": 1}]}, "each completion needs 'content'"),
        ({"prompt": "p", "completions": ["c"]}, "each completion needs 'content'"),
        ({"prompt": 3, "completions": []}, "expected a text or a list of messages, got int"),
        ({"prompt": ["p"], "completions": []}, "expected a message with a text 'role'"),
        ({"prompt": [{"role": "user"}], "completions": []}, "the user message has no text 'content'"),
        ({"prompt": [{"role": "user", "content": None}], "completions": []}, "the user message has no text 'content'"),
        ({"prompt": "p", "completions": [], "row": [1]}, "'row'"),
        ({"prompt": "p", "completions": [], "prompt_ids": ["a"]}, "'prompt_ids'"),
        ({"prompt": "p", "completions": [], "prompt_ids": 5}, "'prompt_ids'"),
        ({"prompt": "p", "completions": [{"content": "c", "token_ids": 5}]}, "'token_ids'"),
        ({"prompt": "p", "completions": [{"content": "c", "token_ids": [1, "2"]}]}, "'token_ids'"),
        ({"prompt": "p", "completions": [{"content": "c", "logprobs": "no"}]}, "'logprobs'"),
        ({"prompt": "p", "completions": [{"content": "c", "score": "high"}]}, "'score'"),
        ({"prompt": "p", "completions": [{"content": "c", "label": "yes"}]}, "'label'"),
        ({"prompt": "p", "completions": [{"content": "c", "rewards": [1]}]}, "'rewards'"),
        ({"prompt": "p", "completions": [{"content": "c", "rewards": {"a": "b"}}]}, "'rewards'"),
        ({"prompt": "p", "completions": [{"content": "c", "facts": {"a": "b"}}]}, "'facts'"),
        ({"prompt": "p", "completions": [{"content": "c", "facts": {"a": {"b": [1]}}}]}, "'facts'"),
        ({"prompt": "p", "completions": [{"content": "c", "steps": "one"}]}, "'steps'"),
        ({"prompt": "p", "completions": [{"content": "c", "step_labels": [1.5]}]}, "'step_labels'"),
        ({"prompt": "p", "completions": [{"content": "c", "finish": "eos"}]}, "'finish'"),
    ],
)
def test_what_is_wrong_is_named(value: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        group_from_json(value)
    assert words in str(caught.value)


def test_null_is_absence() -> None:
    nulls = {f.name: None for f in fields(Completion)} | {"content": "c"}
    value = {"prompt": "p", "completions": [nulls], "row": None, "origin": None, "prompt_ids": None}
    assert group_from_json(value) == Group("p", (Completion("c"),))


def test_text_is_the_last_assistant_turn_and_prompt_text_the_last_user_turn() -> None:
    assert FULL.completions[0].text == "Yes, 4." and FULL.completions[1].text == "No."
    assert Completion((Message("user", "?"),)).text == ""
    assert FULL.prompt_text == "Sure?" and Group("plain").prompt_text == "plain"
    assert Group((Message("system", "s"),)).prompt_text == ""
