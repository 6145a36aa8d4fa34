"""Monte-Carlo step labels: which prefixes are continued, and what their outcomes say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from strop.rollout.steps import MonteCarlo
from strop.rollout.transcript import Sampled
from strop.types import Completion, Group

END = 0


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def decode(tokens: Sequence[int]) -> str:
    return "".join(chr(i) for i in tokens if i != END)


def score(groups: Sequence[Group]) -> list[Group]:
    """1 where the last character is 7, unscorable where it is a question mark."""

    def judged(c: Completion) -> Completion:
        return replace(c, score=None if c.text.endswith("?") else float(c.text.endswith("7")))

    return [replace(g, completions=tuple(map(judged, g.completions))) for g in groups]


class Continuations:
    """A sampler that gives each prompt the texts it was told to, and remembers what it was asked."""

    def __init__(self, texts: dict[str, list[str]]) -> None:
        self.texts = texts
        self.asked: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def __call__(self, prompts: Sequence[tuple[int, ...]], step: int, first_index: int) -> list[list[Sampled]]:
        self.asked += [decode(prompt) for prompt in prompts]
        self.steps.append((step, first_index))
        told = [self.texts[decode(prompt)] for prompt in prompts]
        return [[Sampled((*ids(t), END), (0.0,) * (len(t) + 1), "stop") for t in texts] for texts in told]


def solved(*texts: str, prompt: str = "q") -> Group:
    made = tuple(Completion(t, token_ids=(*ids(t), END), finish="stop") for t in texts)
    (group,) = score([Group(prompt, made, prompt_ids=ids(prompt))])
    return group


def test_each_step_is_labelled_by_how_its_continuations_end() -> None:
    sample = Continuations({"q1;": ["7", "2;7", "8", "9;9"], "q1;2;": ["8", "?", "6", "?"]})
    mc = MonteCarlo(sample, decode, score, ";")
    (group,) = mc([solved("1;2;7")], 5)
    (completion,) = group.completions
    assert sample.asked == ["q1;", "q1;2;"] and sample.steps == [(5, 0)]
    assert completion.steps == ("1;", "2;", "7")
    assert completion.step_labels == (0.5, 0.0, True)  # unscorable continuations do not count; the last is the outcome
    assert (completion.text, completion.score, group.prompt_ids) == ("1;2;7", 1.0, ids("q"))
    hard = replace(mc, labels="hard")
    assert hard([solved("1;2;7")], 5)[0].completions[0].step_labels == (True, False, True)


def test_a_prefix_is_sampled_once_for_all_solutions_that_begin_with_it() -> None:
    sample = Continuations({"q1;": ["7", "8"], "q1;2;": ["7", "7"], "q1;3;": ["8", "8"], "p1;": ["8", "8"]})
    groups = MonteCarlo(sample, decode, score, ";")([solved("1;2;7", "1;3;8", "1;2;9"), solved("1;7", prompt="p")], 0)
    assert sample.asked == ["q1;", "q1;2;", "q1;3;", "p1;"]
    assert [c.step_labels for c in groups[0].completions] == [(0.5, 1.0, True), (0.5, 0.0, False), (0.5, 1.0, False)]
    assert [c.step_labels for c in groups[1].completions] == [(0.0, True)]


def test_what_cannot_be_judged_is_unlabelled() -> None:
    sample = Continuations({"q1;": ["?", "?"]})
    (group,) = MonteCarlo(sample, decode, score, ";")([solved("1;?", "", "5")], 0)
    one, empty, alone = group.completions
    assert one.step_labels == (None, None)
    assert (empty.steps, empty.step_labels) == ((), ())
    assert (alone.steps, alone.step_labels) == (("5",), (False,))


def test_nothing_to_continue_asks_for_nothing() -> None:
    sample = Continuations({})
    assert MonteCarlo(sample, decode, score, ";")([solved("7")], 0)[0].completions[0].step_labels == (True,)
    assert sample.asked == []


@pytest.mark.parametrize(("above", "labels"), [(0.5, (0.5, True)), (1.0, (0.0, False))])
def test_right_is_above_the_threshold(above: float, labels: tuple[float, bool]) -> None:
    sample = Continuations({"q1;": ["7", "8"]})
    (group,) = MonteCarlo(sample, decode, score, ";", right_above=above)([solved("1;7")], 0)
    assert group.completions[0].step_labels == labels
