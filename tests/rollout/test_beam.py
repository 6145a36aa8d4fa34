"""Step-level beam search: what is kept, what is continued, and when it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from strop.rollout.beam import BeamSearch
from strop.rollout.transcript import Sampled
from strop.types import Group

END = 0


def ids(text: str) -> tuple[int, ...]:
    return tuple(END if character == "." else ord(character) for character in text)


def decode(tokens: Sequence[int]) -> str:
    return "".join(chr(i) for i in tokens if i != END)


class Steps:
    """Samples as many steps of each beginning as it is told to; `.` ends a solution, `~` is a step that was cut."""

    def __init__(self, number: int, following: Callable[[str], list[str]]) -> None:
        self.number, self.following = number, following
        self.asked: list[list[str]] = []
        self.steps: list[int] = []

    def __call__(self, prompts: Sequence[tuple[int, ...]], step: int, first_index: int) -> list[list[Sampled]]:
        self.asked.append([decode(prompt) for prompt in prompts])
        self.steps.append(step)
        out = []
        for prompt in prompts:
            texts = self.following(decode(prompt))
            assert len(texts) == self.number
            rows = [ids(t.removesuffix("~")) for t in texts]
            out.append(
                [
                    Sampled(r, (0.0,) * len(r), "length" if t[-1] == "~" else "stop")
                    for r, t in zip(rows, texts, strict=True)
                ]
            )
        return out


def by_sum(groups: Sequence[Group]) -> list[Group]:
    """The score of a beginning is the sum of its digits; with a question mark it has none."""
    return [
        replace(
            g,
            completions=tuple(
                replace(c, score=None if "?" in c.text else float(sum(int(x) for x in c.text if x.isdigit())))
                for c in g.completions
            ),
        )
        for g in groups
    ]


def search(first: Steps, following: Steps, **settings: int) -> BeamSearch:
    known = {"width": first.number, "expand": following.number, "max_steps": 9, "max_length": 99, **settings}
    return BeamSearch(first, following, by_sum, decode, frozenset({END}), **known)


def texts(group: Group) -> list[tuple[str, float | None, str | None]]:
    return [(c.text, c.score, c.finish) for c in group.completions]


def test_the_best_beginnings_are_kept_and_continued() -> None:
    """Four first steps, two kept, two continuations of each; a finished one keeps its place by its score alone."""
    told = {"q": ["1;", "3;", "2;", "3."], "q3;": ["0;", "5;"], "q3;5;": ["1.", "0."], "q3;0;": ["9.", "9."]}
    first, following = Steps(4, told.__getitem__), Steps(2, told.__getitem__)
    (group,) = search(first, following)([Group("q", prompt_ids=ids("q"))], 40)
    # Round 1 keeps 3; and 3. (the first of equals), round 2 has 3;0; 3;5; beside 3., round 3 continues 3;5; alone.
    assert first.asked == [["q"]] and following.asked == [["q3;"], ["q3;5;"]]
    assert (first.steps, following.steps) == ([40], [41, 42])
    assert texts(group) == [("3;5;1", 9.0, "stop"), ("3;5;0", 8.0, "stop")]
    assert group.completions[0].token_ids == ids("3;5;1.")


def test_a_finished_solution_stays_if_it_is_good_enough() -> None:
    told = {"q": ["9.", "8;", "1;", "1;"], "q8;": ["0.", "0;"]}
    (group,) = search(Steps(4, told.__getitem__), Steps(2, told.__getitem__))([Group("q", prompt_ids=ids("q"))], 0)
    assert texts(group) == [("9", 9.0, "stop"), ("8;0", 8.0, "stop")]


def test_beginnings_that_are_the_same_count_once() -> None:
    told = {"q": ["5;", "5;", "5;", "4;"], "q5;": ["1.", "1."], "q4;": ["3.", "0."]}
    following = Steps(2, told.__getitem__)
    (group,) = search(Steps(4, told.__getitem__), following)([Group("q", prompt_ids=ids("q"))], 0)
    assert following.asked == [["q5;", "q4;"]]  # not 5; twice
    assert texts(group) == [("4;3", 7.0, "stop"), ("5;1", 6.0, "stop")]


def test_unscorable_beginnings_come_last() -> None:
    told = {"q": ["?;", "0;", "?.", "?;"], "q0;": ["?.", "?."], "q?;": ["1.", "1."]}
    (group,) = search(Steps(4, told.__getitem__), Steps(2, told.__getitem__))([Group("q", prompt_ids=ids("q"))], 0)
    assert texts(group) == [("0;?", None, "stop"), ("?;1", None, "stop")]


def test_it_ends_with_the_rounds_the_length_and_a_cut_step() -> None:
    def endless(text: str) -> list[str]:
        return ["1;", "2;"]

    (group,) = search(Steps(2, endless), Steps(2, endless), max_steps=3)([Group("q", prompt_ids=ids("q"))], 0)
    assert texts(group) == [("2;2;2;", 6.0, "length")]
    (group,) = search(Steps(2, endless), Steps(2, endless), max_length=4)([Group("q", prompt_ids=ids("q"))], 0)
    assert texts(group) == [("2;2;", 4.0, "length")]
    (group,) = search(Steps(2, endless), Steps(2, endless), max_length=5)([Group("q", prompt_ids=ids("q"))], 0)
    assert texts(group) == [("2;2;2", 6.0, "length")]  # the step that crosses the limit is cut there
    cut = Steps(2, lambda text: ["1;", "44~"])
    (group,) = search(cut, Steps(2, endless))([Group("q", prompt_ids=ids("q"))], 0)
    assert texts(group) == [("44", 8.0, "length")]


def test_prompts_are_searched_side_by_side_and_apart() -> None:
    random = np.random.default_rng(0)
    known: dict[str, list[str]] = {}

    def following(text: str) -> list[str]:
        drawn = [f"{random.integers(10)}{'.' if random.random() < 0.3 else ';'}" for _ in range(3)]
        return known.setdefault(text, drawn)

    prompts = [Group(p, prompt_ids=ids(p)) for p in "abcd"]
    together = search(Steps(3, following), Steps(3, following))(prompts, 0)
    alone = [search(Steps(3, following), Steps(3, following))([p], 0)[0] for p in prompts]
    assert list(map(texts, together)) == list(map(texts, alone))
    assert [len(g.completions) for g in together] == [1] * 4


def test_one_beam_of_one_is_sampling() -> None:
    told = {"q": ["1;"], "q1;": ["2;"], "q1;2;": ["3."]}
    (group,) = search(Steps(1, told.__getitem__), Steps(1, told.__getitem__))([Group("q", prompt_ids=ids("q"))], 0)
    assert texts(group) == [("1;2;3", 6.0, "stop")]
