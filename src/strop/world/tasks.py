"""Four kinds of question, each with its answer and the one correct way to write the steps.

| kind  | question                                                       | steps                    | answer |
|-------|----------------------------------------------------------------|--------------------------|--------|
| chain | Last digit of 8+8+6+0+3?                                       | 8+8=6;6+6=2;2+0=2;2+3=5  | 5      |
| add   | Compute 39+75.                                                 | 9+5=14;3+7+1=11          | 114    |
| word  | Mia has 8 books, gets 1 more and loses 2. How many books now?  | 8+1=09;09-2=07           | 7      |
| sort  | Sort 97462.                                                    | (none)                   | 24679  |

Two-digit results inside steps keep their leading zero: a model this small learns fixed widths.
A question belongs to the test split when its own hash says so, so no seed can leak it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Literal

Kind = Literal["chain", "add", "word", "sort"]
Split = Literal["train", "test"]

NAMES = (
    "Mia",
    "Tom",
    "Ana",
    "Ben",
    "Zoe",
    "Max",
    "Eva",
    "Leo",
    "Ida",
    "Sam",
    "Kim",
    "Jon",
    "Lily",
    "Omar",
    "Ravi",
    "Yuki",
)
THINGS = (
    "books",
    "coins",
    "pens",
    "cups",
    "cards",
    "plums",
    "shells",
    "kites",
    "stamps",
    "marbles",
    "flowers",
    "pebbles",
)


@dataclass(frozen=True, slots=True)
class Task:
    """One question; `steps` is the only correct way to reason it out, empty where none is written."""

    question: str
    steps: tuple[str, ...]
    answer: str
    kind: Kind


def make_task(rng: Random, kind: Kind, split: Split = "train") -> Task:
    """The first question of this kind and split that the generator draws."""
    while True:
        task = _MAKERS[kind](rng)
        if split_of(task.question) == split:
            return task


def split_of(question: str) -> Split:
    """train, or test for the tenth of all questions whose SHA-256 is divisible by ten."""
    digest = hashlib.sha256(question.encode()).digest()
    return "test" if int.from_bytes(digest[:8]) % 10 == 0 else "train"


def chain(digits: tuple[int, ...]) -> Task:
    """The last digit of a sum, carried from left to right modulo ten."""
    steps, total = [], digits[0]
    for digit in digits[1:]:
        steps.append(f"{total}+{digit}={(total + digit) % 10}")
        total = (total + digit) % 10
    return Task(f"Last digit of {'+'.join(map(str, digits))}?", tuple(steps), str(total), "chain")


def add(a: int, b: int) -> Task:
    """The sum of two two-digit numbers: ones first, then tens with the carry, even a carry of 0."""
    ones = a % 10 + b % 10
    tens = a // 10 + b // 10 + ones // 10
    steps = (f"{a % 10}+{b % 10}={ones:02}", f"{a // 10}+{b // 10}+{ones // 10}={tens:02}")
    return Task(f"Compute {a}+{b}.", steps, str(a + b), "add")


def word(name: str, thing: str, start: int, gain: int, loss: int, gain_first: bool) -> Task:
    """A gain and a loss, told in either order."""
    changes = (gain, -loss) if gain_first else (-loss, gain)
    middle, end = start + changes[0], start + gain - loss
    story = f"gets {gain} more and loses {loss}" if gain_first else f"loses {loss} and gets {gain} more"
    steps = (f"{start}{changes[0]:+}={middle:02}", f"{middle:02}{changes[1]:+}={end:02}")
    question = f"{name} has {start} {thing}, {story}. How many {thing} now?"
    return Task(question, steps, str(end), "word")


def sort(digits: tuple[int, ...]) -> Task:
    """The digits in ascending order, done directly."""
    question = f"Sort {''.join(map(str, digits))}."
    return Task(question, (), "".join(map(str, sorted(digits))), "sort")


def _draw_chain(rng: Random) -> Task:
    return chain(tuple(rng.randrange(10) for _ in range(rng.randint(4, 6))))


def _draw_add(rng: Random) -> Task:
    return add(rng.randint(10, 99), rng.randint(10, 99))


def _draw_word(rng: Random) -> Task:
    name, thing, start, gain = rng.choice(NAMES), rng.choice(THINGS), rng.randint(2, 9), rng.randint(1, 9)
    gain_first = rng.random() < 0.5
    loss = rng.randint(1, min(9, start + gain if gain_first else start))
    return word(name, thing, start, gain, loss, gain_first)


def _draw_sort(rng: Random) -> Task:
    return sort(tuple(rng.randint(1, 9) for _ in range(5)))


_MAKERS: Mapping[Kind, Callable[[Random], Task]] = MappingProxyType(
    {"chain": _draw_chain, "add": _draw_add, "word": _draw_word, "sort": _draw_sort}
)
KINDS: tuple[Kind, ...] = tuple(_MAKERS)
