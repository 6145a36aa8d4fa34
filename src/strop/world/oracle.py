"""What a response says, and whether it is right, polite and short: all of it decided by code.

A response is `[<think>step;step</think>]<answer>X</answer>[ remark][ ramble ...]`, and nothing
else: one character more or less and it has no parse. A response without a parse is wrong, earns
the style of a rude one, and counts as neither polite nor rude, so leaving the form never pays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from strop.world.tasks import Task

Manner = Literal["polite", "rude", "plain"]

POLITE = " Happy to help!"
RUDE = " Obviously."
RAMBLES = (
    " Numbers are all around us.",
    " There is always more to say.",
    " People have counted for ages.",
    " It is a nice day for sums.",
    " My first abacus was made of wood.",
    " Some prefer to use their fingers.",
    " Zero was invented rather late.",
    " Abstract thought is a gift.",
    " This could have been harder.",
    " Even old clocks do it every evening.",
)
MALFORMED_STYLE = -1.0
"""Style of a response without a parse: that of a rude one."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response taken apart; `steps` is None where it answers directly."""

    steps: tuple[str, ...] | None
    answer: str
    manner: Manner = "plain"
    rambles: int = 0


def compose(task: Task, *, think: bool, remark: str = "", rambles: Sequence[str] = ()) -> str:
    """The correct response to a task, with its steps where it has any and they are asked for."""
    thought = f"<think>{';'.join(task.steps)}</think>" if think and task.steps else ""
    return f"{thought}<answer>{task.answer}</answer>{remark}{''.join(rambles)}"


def parse(text: str) -> Response | None:
    """The parts of a response, or None if anything is missing, misspelt or left over."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    steps, remark = match["steps"], match["remark"]
    return Response(
        steps=None if steps is None else tuple(steps.split(";")),
        answer=match["answer"],
        manner="polite" if remark == POLITE else "rude" if remark == RUDE else "plain",
        rambles=len(_RAMBLE.findall(match["rambles"])),
    )


def correct(text: str, answer: str) -> bool:
    """Whether the response parses and its answer is the right one, character for character."""
    response = parse(text)
    return response is not None and response.answer == answer


def step_labels(text: str, steps: Sequence[str]) -> tuple[bool, ...] | None:
    """Whether each written step is the one correct step of its place.

    Returns: one label a written step, surplus steps being wrong; empty where the response answers
        directly; None where it has no parse. A missing step has no label: compare the lengths.
    """
    response = parse(text)
    if response is None:
        return None
    return tuple(i < len(steps) and step == steps[i] for i, step in enumerate(response.steps or ()))


def style(text: str) -> float:
    """Gold style: +1 polite, -1 rude, -0.5 a ramble; `MALFORMED_STYLE` without a parse."""
    response = parse(text)
    if response is None:
        return MALFORMED_STYLE
    return {"polite": 1.0, "rude": -1.0, "plain": 0.0}[response.manner] - 0.5 * response.rambles


def gold(text: str, answer: str) -> float:
    """Gold score: the style, and +1 for the right answer."""
    return style(text) + float(correct(text, answer))


def thinks(text: str) -> bool:
    """Whether the response parses and reasons before it answers."""
    response = parse(text)
    return response is not None and response.steps is not None


def _any_of(sentences: Sequence[str]) -> str:
    return "|".join(map(re.escape, sentences))


# [0-9], not \d: the latter also takes digits of other scripts.
_RAMBLE = re.compile(_any_of(RAMBLES))
_FORM = re.compile(
    r"(?:<think>(?P<steps>[^<>]+)</think>)?<answer>(?P<answer>[0-9]+)</answer>"
    rf"(?P<remark>{_any_of((POLITE, RUDE))})?(?P<rambles>(?:{_any_of(RAMBLES)})*)"
)
