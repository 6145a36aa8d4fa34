"""Critique and revision: what is asked in which words, chains by principle, and which revisions are of use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from strop.judges import Reply, Request
from strop.rollout.principles import Principle
from strop.rollout.revise import Revising, fault_of, is_refusal, revised_group
from strop.types import Completion, Group, Message


def principle(name: str) -> Principle:
    return Principle(id=name, critique=f"Is it {name}?", revision=f"Make it {name}.", comparison=f"The {name} one.")


PRINCIPLES = tuple(map(principle, ("short", "kind", "true")))


class Critic:
    """Adds the principle's word at each revision; keeps what it was asked."""

    name = "test"

    def __init__(self, answer: Any = None) -> None:
        self.asked: list[Request] = []
        self.answer = answer or self.add

    def add(self, request: Request) -> Reply:
        if request.task == "critique":
            return Reply(text=f"It lacks what was asked: {request.inputs['principle']}")
        return Reply(text=f"{request.inputs['responses'][0]} {request.inputs['principle'].split()[-1]}")

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked += requests
        return [self.answer(request) for request in requests]


def revising(critic: Critic, **changes: Any) -> Revising:
    settings = {"depth": 2, "critique": True, "temperature": 1.0, "max_tokens": 99, "seed": 5}
    return Revising(ask=critic, principles=PRINCIPLES, **{**settings, **changes})


def groups(num: int) -> list[Group]:
    return [Group(f"question {i}", (Completion(f"answer {i}a"), Completion(f"answer {i}b"))) for i in range(num)]


def test_each_depth_has_another_principle_and_works_on_the_last_text() -> None:
    critic = Critic()
    chains = revising(critic, depth=4)(groups(3), 0)
    assert [len(row) for row in chains] == [2, 2, 2] and len(critic.asked) == 6 * 2 * 4
    for group, row in zip(groups(3), chains, strict=True):
        for completion, chain in zip(group.completions, row, strict=True):
            named = [record["principle"] for record in chain]
            assert sorted(named[:3]) == ["kind", "short", "true"] and named[3] == named[0]
            assert chain[-1]["text"] == " ".join([completion.text, *(f"{name}." for name in named)])
            assert chain[0]["critique"] == f"It lacks what was asked: Is it {named[0]}?"


def test_principles_are_a_function_of_seed_and_place() -> None:
    whole = revising(Critic())(groups(6), 0)
    parts = [*revising(Critic())(groups(6)[:4], 0), *revising(Critic())(groups(6)[4:], 4)]
    assert whole == parts, "chunks change nothing"
    others = revising(Critic(), seed=6)(groups(6), 0)
    assert [r["principle"] for row in others for c in row for r in c] != [
        r["principle"] for row in whole for c in row for r in c
    ]


def test_the_critic_reads_a_conversation() -> None:
    critic = Critic()
    (chain,) = revising(critic, depth=1)(
        [Group((Message("system", "Be good."), Message("user", "Why?")), (Completion("So."),))], 0
    )[0]
    first, second = critic.asked
    name = chain[0]["principle"]
    assert [m.role for m in first.messages] == ["system", "user", "assistant", "user"]
    assert first.messages[2].content == "So." and f"Is it {name}?" in first.messages[3].content
    assert [m.role for m in second.messages[3:]] == ["user", "assistant", "user"]
    assert second.messages[4].content == chain[0]["critique"] and second.messages[5].content.startswith(
        f"Make it {name}."
    )
    assert (first.task, second.task, first.max_tokens, first.temperature) == ("critique", "revise", 99, 1.0)
    assert first.seed != second.seed and first.nonce == ""


def test_without_criticism_the_revision_is_asked_at_once() -> None:
    critic = Critic()
    (row,) = revising(critic, critique=False)(groups(1), 0)
    assert {r.task for r in critic.asked} == {"revise"} and len(critic.asked) == 4
    assert all("critique" not in record for chain in row for record in chain)


def test_what_is_no_part_of_the_answer_is_taken_off() -> None:
    said = {
        "<think>hm</think>\nBetter.": "Better.",
        "Here is the revised answer: Better.": "Better.",
        "  Better.  ": "Better.",
        "Revised version:\nBetter.": "Better.",
        "The revised answer: it depends.": "The revised answer: it depends.",
    }
    for reply, text in said.items():
        critic = Critic(lambda request, reply=reply: Reply(text=reply))
        assert revising(critic, depth=1, critique=False)(groups(1), 0)[0][0][0]["text"] == text
    own = Group("q", (Completion("<think>1</think>2"),))
    critic = Critic(lambda request: Reply(text="<think>1</think>3"))
    assert revising(critic, depth=1, critique=False)([own], 0)[0][0][0]["text"] == "<think>1</think>3"


def test_a_chain_ends_where_the_critic_fails_and_the_others_go_on() -> None:
    def answer(request: Request) -> Reply:
        if "0a" in request.inputs["responses"][0] and request.task == "revise":
            return Reply(text=None, reason="HTTP 500")
        if "0b" in request.inputs["responses"][0] and "Is it" in request.inputs["principle"]:
            return Reply(text="   ")
        return Critic().add(request)

    critic = Critic(answer)
    first, second = revising(critic)(groups(2), 0)
    assert [list(r) for r in first[0]] == [["principle", "critique", "failed"]]
    assert first[0][0]["failed"] == "no revision: HTTP 500" and first[1][0]["failed"] == "no critique: it is empty"
    assert len(first[0]) == len(first[1]) == 1 and [len(chain) for chain in second] == [2, 2]
    assert fault_of(first[0], "x", 2, "") == "no revision: HTTP 500" == fault_of(first[0], "x", 1, "")


def test_which_revisions_are_of_use() -> None:
    critique = "It is far too long, and it is not even true in parts."
    chain = [{"principle": "a", "critique": critique, "text": "good  enough"}, {"principle": "b", "text": "better"}]
    assert fault_of(chain, "good enough", 1, "") == "revisions that are the original"
    assert fault_of(chain, "good enough", 2, "") == "", "the first depth changed nothing, the second did"
    copied = [{"principle": "a", "critique": critique, "text": f"{critique} So: yes."}]
    assert fault_of(copied, "no", 1, "") == "revisions that repeat the criticism"
    no = [{"principle": "a", "text": "I'm sorry, but I can't help with that."}]
    assert fault_of(no, "x", 1, "") == "" and fault_of(no, "x", 1, "a refusal") == "a refusal"


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True), ("I cannot do this.", True), ("I won’t write that.", True),
        ("As an AI language model, I am unable to say.", True), ("Unfortunately, I cannot share it.", True),
        ("I must decline.", True), ("I'm not able to do so.", True), ("Sorry, this I will not do.", True),
        ("I am sorry for your loss. Take your time.", False), ("You cannot divide by zero.", False),
        ("I can help. I cannot promise much.", False), ("Sorry for the wait! It is 4.", False),
        ("As an AI, I like it.", False),
    ],
)  # fmt: skip
def test_refusals(text: str, refuses: bool) -> None:
    assert is_refusal(text) is refuses


def test_a_row_has_the_revision_and_no_word_of_the_criticism() -> None:
    dialogue = (Message("assistant", "Hi"), Message("user", "And?"), Message("assistant", "Bad."))
    group = Group(
        (Message("user", "q"),), (Completion(dialogue, score=1.0, token_ids=(1,)),), {"answer": 4}, "f:1", (7,)
    )
    chain = [{"principle": "a", "critique": "It is bad.", "text": "Good."}]
    row = revised_group(group, group.completions[0], chain, 1)
    assert row.completions == (Completion((*dialogue[:2], Message("assistant", "Good."))),)
    assert row.row == {"answer": 4, "revised": {"depth": 1, "principles": ["a"]}} and row.prompt_ids is None
