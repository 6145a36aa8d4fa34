"""Answers criticised and revised by principles, again and again: how a constitution becomes data to imitate.

    answer -> [critique by a principle -> revision] x depth

The critic is asked in the form of a conversation: the prompt, the answer as its own, a request to
criticise it, the critique, a request to revise it. Each depth has another principle, until all have
had their turn. Bai et al. 2022 (Constitutional AI), arXiv:2212.08073, section 3; there each step
draws its principle anew, and prompts show examples of both steps, which chat models do not need.

Left out: few-shot examples for base models, several critics.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from strop.judges.prompts import as_text
from strop.judges.protocol import Backend, Reply, Request
from strop.rollout.principles import Principle, drawn
from strop.types import Completion, Content, Group, Message

CRITICISE = "Criticise your last answer. {principle} Be brief and concrete. If there is nothing to mend, say so."
REVISE = "{principle} Reply with the whole revised answer and with nothing else: no comment, no heading, no quotes."
LABEL = re.compile(
    r"\A(?:here is (?:the|my) )?(?:revised|rewritten|new) (?:answer|response|version)\s*:\s*", re.IGNORECASE
)
THOUGHT = re.compile(r"\A<think>.*?</think>\s*", re.DOTALL)
NOT = r"(?:can(?:'|’)?t|cannot|can not|won(?:'|’)?t|will not|(?:am |'m |’m )?(?:unable|not able)|(?:must )?decline)\b"
REFUSAL = re.compile(
    r"\A\W*(?:(?:unfortunately|sorry|i apologi[sz]e|i(?:'|’| a)m (?:really |very |so )?sorry)[^.!?]{0,60}?\b" + NOT
    + r"|i(?:'m|’m)? " + NOT
    + r"|as an? (?:ai|language model)\b[^.!?]{0,80}?\b" + NOT + ")",
    re.IGNORECASE,
)  # fmt: skip
LEAK = 40
"""A critique of so many characters that stands in a revision was copied, not used."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revising:
    """How answers are revised.

    Attributes:
        ask: the critic.
        principles: to draw from.
        depth: revisions of each answer.
        critique: ask for criticism before each; false asks for the revision at once.
        temperature, max_tokens: of the critic's replies.
        seed: principles and replies are a function of it and of the answer's place.
    """

    ask: Backend
    principles: tuple[Principle, ...]
    depth: int
    critique: bool
    temperature: float
    max_tokens: int
    seed: int

    def __call__(self, groups: Sequence[Group], first: int) -> list[list[list[Json]]]:
        """Each answer's chain of records, one a depth: `principle`, `critique`, `text`, or `failed` and no more.

        Args: first: the place of the first group among all.
        """
        chains = [
            _Chain(group, completion, self._order(first + g, c))
            for g, group in enumerate(groups)
            for c, completion in enumerate(group.completions)
        ]
        for depth in range(self.depth):
            live = [chain for chain in chains if not chain.failed]
            if self.critique:
                self._step(live, depth, "critique")
            self._step([chain for chain in live if not chain.failed], depth, "revise")
        found = iter(chains)
        return [[next(found).records for _ in group.completions] for group in groups]

    def _order(self, place: int, answer: int) -> tuple[Principle, ...]:
        """The principles of an answer's depths."""
        whole = drawn(self.principles, len(self.principles), np.random.default_rng([self.seed, place, answer]))
        return tuple(whole[depth % len(whole)] for depth in range(self.depth))

    def _step(self, chains: Sequence[_Chain], depth: int, task: str) -> None:
        """Ask one thing of each chain, and write down what came."""
        asked = [self._request(chain, depth, task) for chain in chains]
        for chain, reply in zip(chains, self.ask(asked) if asked else [], strict=True):
            (chain.criticised if task == "critique" else chain.revised)(depth, reply)

    def _request(self, chain: _Chain, depth: int, task: str) -> Request:
        principle = chain.principles[depth]
        critique = chain.records[depth].get("critique", "") if task == "revise" and self.critique else ""
        words = principle.critique if task == "critique" else principle.revision
        messages = [*chain.asked, Message("assistant", chain.text)]
        if task == "critique":
            messages.append(Message("user", CRITICISE.format(principle=words)))
        else:
            if critique:
                messages += [Message("user", CRITICISE.format(principle=principle.critique))]
                messages += [Message("assistant", critique)]
            messages.append(Message("user", REVISE.format(principle=words)))
        inputs: dict[str, Any] = {"prompt": as_text(chain.group.prompt), "responses": (chain.text,), "principle": words}
        return Request(
            task="critique" if task == "critique" else "revise",
            messages=tuple(messages),
            inputs={**inputs, "critique": critique} if critique else inputs,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=_seed(self.seed, task, depth, chain.text, words),
        )


class _Chain:
    """One answer on its way through the depths."""

    def __init__(self, group: Group, completion: Completion, principles: Sequence[Principle]) -> None:
        self.group, self.principles = group, principles
        self.text = completion.text
        self.original = completion.text
        self.asked = _before(group.prompt, completion)
        self.records: list[Json] = []
        self.failed = False

    def criticised(self, depth: int, reply: Reply) -> None:
        text = _cleaned(reply.text or "", self.original)
        if not text:
            self._fail(depth, f"no critique: {reply.reason or 'it is empty'}")
        else:
            self.records.append({"principle": self.principles[depth].id, "critique": text})

    def revised(self, depth: int, reply: Reply) -> None:
        text = _cleaned(reply.text or "", self.original)
        if not text:
            self._fail(depth, f"no revision: {reply.reason or 'it is empty'}")
            return
        record = self.records.pop() if len(self.records) > depth else {"principle": self.principles[depth].id}
        self.records.append({**record, "text": text})
        self.text = text

    def _fail(self, depth: int, why: str) -> None:
        record = self.records.pop() if len(self.records) > depth else {"principle": self.principles[depth].id}
        self.records.append({**record, "failed": why})
        self.failed = True


def _before(prompt: Content, completion: Completion) -> list[Message]:
    """The turns that the revised one follows: the prompt, and the completion's own before its last."""
    turns = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    if isinstance(completion.content, str):
        return turns
    last = max(i for i, message in enumerate(completion.content) if message.role == "assistant")
    return [*turns, *completion.content[:last]]


def _cleaned(text: str, original: str) -> str:
    """A reply without what is no part of it: thoughts, unless the answer has some itself, and a heading."""
    if not original.lstrip().startswith("<think>"):
        text = THOUGHT.sub("", text)
    return LABEL.sub("", text.strip()).strip()


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1


# What becomes of a chain.


def is_refusal(text: str) -> bool:
    """Whether an answer begins by refusing, in common English words for it."""
    return bool(REFUSAL.search(text[:400]))


def fault_of(chain: Sequence[Json], original: str, depth: int, no_refusal: str) -> str:
    """Why the revision at a depth is of no use; empty where it is of use.

    Args: no_refusal: why a refusal would be of none; empty where it may be right.
    """
    failed = next((record["failed"] for record in chain[:depth] if "failed" in record), None)
    if failed is not None:
        return str(failed)
    text = chain[depth - 1]["text"]
    if text.split() == original.split():
        return "revisions that are the original"
    if any(len(record.get("critique", "")) >= LEAK and record["critique"] in text for record in chain[:depth]):
        return "revisions that repeat the criticism"
    return no_refusal if is_refusal(text) else ""


def revised_group(group: Group, completion: Completion, chain: Sequence[Json], depth: int) -> Group:
    """The prompt with the revision at a depth in place of the answer; no word of the criticism."""
    text = chain[depth - 1]["text"]
    told: Mapping[str, Any] = {"depth": depth, "principles": [record["principle"] for record in chain[:depth]]}
    return replace(
        group,
        completions=(Completion(with_text(completion.content, text)),),
        row={**group.row, "revised": dict(told)},
        prompt_ids=None,
    )


def with_text(content: Content, text: str) -> Content:
    """An answer with other words in its last assistant turn; turns behind it are left out."""
    if isinstance(content, str):
        return text
    last = max(i for i, message in enumerate(content) if message.role == "assistant")
    return (*content[:last], Message("assistant", text))
