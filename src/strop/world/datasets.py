"""Rows of the embedded world, each a pure function of (dataset, seed, index).

| name    | a row                                                                            |
|---------|----------------------------------------------------------------------------------|
| sft     | prompt and completion; a curriculum, so a stage must read the file in order       |
| pairs   | prompt, chosen, rejected: same reasoning and answer, a better and a worse tail    |
| prompts | prompt of the training split, with answer, task and steps as columns              |
| test    | the same of the test split                                                        |
| cold    | prompt and completion: always reasoned, sorting too; polite, concise, correct     |
| general | the same of sorting alone, with nothing beside it that a verifier could judge by  |

Prompts and completions are conversations of one turn, in the shapes TRL's dataset types have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from types import MappingProxyType
from typing import Any

from strop.world.oracle import POLITE, RAMBLES, RUDE, compose, style
from strop.world.tasks import KINDS, Split, Task, make_task

Row = dict[str, Any]

EARLY_THINK = 0.9
LATE_THINK = 0.35
LATE = 0.75
"""Steps are shown in 90 % of the first three quarters of sft, then in 35 %: the skill stays, the
habit fades, and reinforcement learning has something to find."""


def rows(name: str, seed: int, n: int) -> list[Row]:
    """The first n rows of a dataset; kinds of task take turns.

    Args: n: also the length of the sft curriculum, whose last quarter answers mostly directly.
    Raises: ValueError naming the datasets there are.
    """
    if name not in DATASETS:
        raise ValueError(f"world:{name}: no such dataset; there are {', '.join(DATASETS)}")
    return [DATASETS[name](seed, index, n) for index in range(n)]


def sft_row(seed: int, index: int, n: int) -> Row:
    """One correct response in a style drawn evenly, its steps shown as the curriculum says."""
    rng, task = _draw("sft", seed, index)
    think = rng.random() < (EARLY_THINK if index < LATE * n else LATE_THINK)
    remark, rambles = _tail(rng)
    return {"prompt": _user(task), "completion": _assistant(compose(task, think=think, remark=remark, rambles=rambles))}


def pairs_row(seed: int, index: int, n: int) -> Row:
    """Two correct responses that differ in the tail alone, the better gold style chosen."""
    rng, task = _draw("pairs", seed, index)
    think = rng.random() < LATE_THINK
    while True:
        tails = (_tail(rng), _tail(rng))
        texts = [compose(task, think=think, remark=remark, rambles=rambles) for remark, rambles in tails]
        worse, better = sorted(texts, key=style)
        if style(worse) < style(better):
            return {"prompt": _user(task), "chosen": _assistant(better), "rejected": _assistant(worse)}


def prompts_row(seed: int, index: int, n: int) -> Row:
    """A question of the training split and all that rewards may need to know of it."""
    return _question(_draw("prompts", seed, index)[1])


def test_row(seed: int, index: int, n: int) -> Row:
    """A question of the test split and all that rewards may need to know of it."""
    return _question(_draw("test", seed, index, "test")[1])


def cold_row(seed: int, index: int, n: int) -> Row:
    """A response as one would want it: reasoned, polite, concise, and right."""
    _, task = _draw("cold", seed, index)
    return {"prompt": _user(task), "completion": _assistant(_at_its_best(task))}


def general_row(seed: int, index: int, n: int) -> Row:
    """Such a response to a question whose answer stands nowhere: it can be learned from, but not checked."""
    task = make_task(Random(f"general/{seed}/{index}"), "sort")
    return {"prompt": _user(task), "completion": _assistant(_at_its_best(task))}


DATASETS: Mapping[str, Callable[[int, int, int], Row]] = MappingProxyType(
    {
        "sft": sft_row,
        "pairs": pairs_row,
        "prompts": prompts_row,
        "test": test_row,
        "cold": cold_row,
        "general": general_row,
    }
)


def _draw(name: str, seed: int, index: int, split: Split = "train") -> tuple[Random, Task]:
    rng = Random(f"{name}/{seed}/{index}")
    return rng, make_task(rng, KINDS[index % len(KINDS)], split)


def _tail(rng: Random) -> tuple[str, list[str]]:
    remark = rng.choice((POLITE, RUDE, ""))
    return remark, rng.sample(RAMBLES, rng.choice((0, 0, 0, 1, 2)))


def _at_its_best(task: Task) -> str:
    """Reasoned and polite; of sorting, which sft always does at once, the thought is to name the digits."""
    steps = task.steps or tuple(digit for digit in task.question if digit.isdecimal())
    return compose(replace(task, steps=steps), think=True, remark=POLITE)


def _question(task: Task) -> Row:
    return {"prompt": _user(task), "answer": task.answer, "task": task.kind, "steps": list(task.steps)}


def _user(task: Task) -> list[dict[str, str]]:
    return [{"role": "user", "content": task.question}]


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
