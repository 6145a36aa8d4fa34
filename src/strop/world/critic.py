"""The embedded world's critic: rules, not a language model, in the place of one.

It knows how a response is built and nothing of the right answer, and it goes by the words of the
principle it is shown: politeness, conciseness, or without a principle the whole gold style. As a
backend's function it stands in for a model that criticises, revises and judges:

    backend: {name: function, function: "strop.world.critic:reply"}

What it shows is that the stages work; that a language model would be as good a critic, it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from strop.world.oracle import MALFORMED_STYLE, POLITE, RAMBLES, RUDE, parse, style

NOTHING_TO_MEND = "Nothing to mend."
COURTESY = ("polite", "rude", "courteous", "kind")
BREVITY = ("concise", "nothing to do with", "brief", "short")
"""Words of a principle by which the critic knows what it is about."""


def reply(task: str, inputs: Mapping[str, Any]) -> str:
    """The critic's answer to a question, as a backend asks it.

    Args: task: compare, rate, critique or revise. inputs: `responses` (one, or two to compare), and
        maybe `principle` and `critique`.
    Raises: ValueError for another task.
    """
    if task not in TASKS:
        raise ValueError(f"the world's critic cannot {task}; it can {', '.join(TASKS)}")
    return TASKS[task](inputs)


def politeness(text: str) -> float:
    """1 polite, 0 plain, -1 rude or without a parse."""
    response = parse(text)
    return -1.0 if response is None else {"polite": 1.0, "plain": 0.0, "rude": -1.0}[response.manner]


def conciseness(text: str) -> float:
    """0 without a ramble, -0.5 for each; -1 without a parse."""
    response = parse(text)
    return MALFORMED_STYLE if response is None else -0.5 * response.rambles


def _measure(principle: str | None) -> Callable[[str], float]:
    """What a principle is about, by its words; the gold style where it is about neither or both."""
    courteous, brief = (any(word in (principle or "").lower() for word in words) for words in (COURTESY, BREVITY))
    if courteous == brief:
        return style
    return politeness if courteous else conciseness


def _compare(inputs: Mapping[str, Any]) -> str:
    measure = _measure(inputs.get("principle"))
    first, second = (measure(text) for text in inputs["responses"])
    return "tie" if first == second else "A" if first > second else "B"


def _rate(inputs: Mapping[str, Any]) -> str:
    """From 1 (style -2) to 10 (style 1)."""
    (text,) = inputs["responses"]
    return f"{min(max(1 + 3 * (style(text) + 2), 1), 10):.4g}"


def _critique(inputs: Mapping[str, Any]) -> str:
    (text,) = inputs["responses"]
    response, measure = parse(text), _measure(inputs.get("principle"))
    if response is None:
        return NOTHING_TO_MEND  # it has no form, so there is nothing that a rule could take hold of
    found = []
    if measure is not conciseness and response.manner != "polite":
        found.append(f"It is rude: it says{RUDE}" if response.manner == "rude" else "It lacks a polite remark.")
    if measure is not politeness and response.rambles:
        found.append(f"It rambles: {response.rambles} of its sentences have nothing to do with the question.")
    return " ".join(found) or NOTHING_TO_MEND


def _revise(inputs: Mapping[str, Any]) -> str:
    """The response mended where the criticism says so; its steps and its answer stay as they are."""
    text = str(*inputs["responses"])
    critique = inputs.get("critique") or _critique(inputs)
    if "rude" in critique or "polite" in critique:
        text = _with_remark(text)
    if "rambles" in critique:
        for ramble in RAMBLES:
            text = text.replace(ramble, "")
    return text


def _with_remark(text: str) -> str:
    """The response with the polite remark behind its answer, in place of a rude one."""
    head, end, tail = text.partition("</answer>")
    return f"{head}{end}{POLITE}{tail.removeprefix(RUDE)}" if end and not tail.startswith(POLITE) else text


TASKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = MappingProxyType(
    {"compare": _compare, "rate": _rate, "critique": _critique, "revise": _revise}
)
