r"""Solutions cut in steps with a label each: one parser for each habit of writing them down.

| habit | columns | a label is |
|---|---|---|
| TRL's | prompt, completions (the steps), labels | true, false, a number in [0, 1], or null (unlabelled) |
| error steps | prompt, completions, error_steps | wrong where listed, counted from 1; right elsewhere |
| PRMBench | question, modified_process, error_steps | the same |
| Math-Shepherd | input, label | `+` or `-` in `label` where `input` has the tag `ки` |
| PRM800K | question, label (nested) | a rating: +1 right, -1 wrong, 0 neutral |

A number says how likely the step is right (a share of continuations that came out right). A step
labelled null is read and never trained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from strop.data.turns import BadRow, boolean, checked_prompt, content, listed, text
from strop.types import Completion, Content, Group, Message

Cells = Mapping[str, Any]
Label = bool | float | None

STEP_SEPARATOR = "\n"
STEP_TAG = "ки"
"""Math-Shepherd's mark at the end of a step."""

NEUTRAL_IS_RIGHT = True
"""PRM800K's rating 0, a step that is no error and no progress, counts as right: the paper's choice for its PRM
(Lightman et al. 2023, arXiv:2305.20050) and most people's since; the kind `stepwise_strict` counts it as wrong."""

_FIRST_STEP = re.compile(r"\s*Step 1:")


def stepwise(cells: Cells) -> list[Group]:
    """A prompt, its solution's steps, and their labels or the places of the wrong ones."""
    prompt = checked_prompt(content(cells["prompt"], "prompt"))
    steps = _steps(cells["completions"], "completions")
    if cells.get("labels") is None and "error_steps" in cells:
        return [_group(prompt, [_solution(steps, _around_errors(cells["error_steps"], len(steps)))])]
    labels = [None if label is None else _label(label) for label in listed(cells.get("labels"), "labels")]
    if len(labels) != len(steps):
        raise BadRow("steps and labels differ in number", f"{len(steps)} steps, {len(labels)} labels")
    return [_group(prompt, [_solution(steps, labels)])]


def prmbench(cells: Cells) -> list[Group]:
    """PRMBench (Song et al. 2025, arXiv:2501.03124): a solution into which errors were written."""
    steps = _steps(cells["modified_process"], "modified_process")
    labels = _around_errors(cells["error_steps"], len(steps))
    return [_group(_asked(cells["question"]), [_solution(steps, labels)])]


def math_shepherd(cells: Cells) -> list[Group]:
    """Math-Shepherd (Wang et al. 2024, arXiv:2312.08935): question and steps in one text, judged in a second."""
    parts = text(cells["input"], "input").split(STEP_TAG)
    if len(parts) < 2:
        raise BadRow("no step tag", f"a step ends with {STEP_TAG}")
    marks = _marks(text(cells["label"], "label"), parts)
    first = _FIRST_STEP.search(parts[0])
    if first is None:
        raise BadRow("no first step", 'the question ends where "Step 1:" stands, and it does not')
    steps = [parts[0][first.start() :].strip(), *(part.strip() for part in parts[1:-1])]
    return [_group(_asked(parts[0][: first.start()]), [_solution(steps, marks)])]


def tagged(cells: Cells) -> bool:
    """Whether a row looks like Math-Shepherd's."""
    return isinstance(cells.get("input"), str) and STEP_TAG in cells["input"]


def prm800k(neutral: bool | None) -> Callable[[Cells], list[Group]]:
    """A parser of PRM800K's lines (Lightman et al. 2023, arXiv:2305.20050).

    Labellers chose one of several candidates at each step. The chosen ones are the first solution;
    every other rated candidate is a further one, whose earlier steps are unlabelled (they stand, and
    are labelled, in the first). Annotation stops at the first error: what the solution went on to say
    is kept and unlabelled.

    Args: neutral: what a rating of 0 is; None leaves it unlabelled.
    """

    def parse(cells: Cells) -> list[Group]:
        asked, given = _object(cells["question"], "question"), _object(cells["label"], "label")
        if given.get("finish_reason") == "bad_problem":
            raise BadRow("bad problem", "the labeller found the problem itself at fault")
        chosen: list[tuple[str, Label]] = []
        others: list[Completion] = []
        for place in listed(given.get("steps"), "steps"):
            if chosen and chosen[-1][1] is False:
                break
            step, rest = _candidates(_object(place, "steps"), neutral)
            before = [said for said, _ in chosen]
            others += [_solution([*before, said], [*(None for _ in before), label]) for said, label in rest]
            chosen.append(step)
        if not chosen:
            raise BadRow("empty steps")
        later = _unrated([said for said, _ in chosen], asked.get("pre_generated_steps"))
        steps, labels = zip(*chosen, *((said, None) for said in later), strict=True)
        return [_group(_asked(asked.get("problem")), [_solution(steps, labels), *others])]

    return parse


def rated(cells: Cells) -> bool:
    """Whether a row looks like PRM800K's."""
    return isinstance(cells.get("question"), Mapping) and isinstance(cells.get("label"), Mapping)


def _candidates(place: Cells, neutral: bool | None) -> tuple[tuple[str, Label], list[tuple[str, Label]]]:
    """The step that the solution went on with, and the other rated candidates of its place.

    Where none was chosen and no person wrote one, the labelling ended here, and the first is the
    solution's own.
    """
    ratings: Mapping[Any, Label] = {1: True, 0: neutral, -1: False}
    found = [_object(entry, "completions") for entry in listed(place.get("completions") or [], "completions")]
    rated = [(text(entry.get("text"), "step"), ratings.get(entry.get("rating"))) for entry in found]
    written, number = place.get("human_completion"), place.get("chosen_completion")
    if number is None and written:
        said = written.get("text") if isinstance(written, Mapping) else written
        return (text(said, "step"), True), [entry for entry in rated if entry[1] is not None]
    if not rated or not isinstance(number or 0, int) or not 0 <= (number or 0) < len(rated):
        raise BadRow("no such step", f"chosen_completion is {number!r} of {len(rated)}")
    taken = rated.pop(number or 0)
    return taken, [entry for entry in rated if entry[1] is not None]


def _unrated(steps: Sequence[str], whole: Any) -> list[str]:
    """The steps of the solution behind those that were rated, if these are its beginning."""
    said = [entry for entry in whole if isinstance(entry, str)] if isinstance(whole, list) else []
    return said[len(steps) :] if said[: len(steps)] == list(steps) else []


def _marks(judged: str, parts: Sequence[str]) -> list[Label]:
    """Math-Shepherd's labels: the sign that stands for each tag between the same words."""
    marks: list[Label] = []
    at = 0
    for part, following in pairwise(parts):
        at += len(part)
        sign = judged[at : at + 1]
        at += 1
        if sign not in ("+", "-") or not judged.startswith(following, at):
            raise BadRow("label does not follow input", f"the tag {len(marks) + 1} is no + or - with the same words")
        marks.append(sign == "+")
    return marks


def _around_errors(listing: Any, num_steps: int) -> list[Label]:
    wrong = listed(listing, "error_steps")
    outside = [w for w in wrong if not isinstance(w, int) or not 1 <= w <= num_steps]
    if outside:
        raise BadRow("error step out of range", f"{outside[0]!r} of {num_steps} steps, counted from 1")
    return [k not in wrong for k in range(1, num_steps + 1)]


def _label(value: Any) -> Label:
    """True or false however it is written, or a number between."""
    if isinstance(value, float) and value not in (0.0, 1.0):
        if not 0 <= value <= 1:
            raise BadRow("label out of range", f"{value!r} is not in [0, 1]")
        return value
    return boolean(value, "label")


def _steps(value: Any, name: str) -> list[str]:
    steps = [text(step, "step") for step in listed(value, name)]
    if not steps:
        raise BadRow(f"empty {name}")
    return steps


def _object(value: Any, name: str) -> Cells:
    if not isinstance(value, Mapping):
        raise BadRow(f"wrong type of {name}", f"expected an object, got {type(value).__name__}")
    return value


def _asked(question: Any) -> tuple[Message, ...]:
    return (Message("user", text(question, "prompt").strip()),)


def _solution(steps: Sequence[str], labels: Sequence[Label]) -> Completion:
    return Completion(STEP_SEPARATOR.join(steps), steps=tuple(steps), step_labels=tuple(labels))


def _group(prompt: Content, solutions: Sequence[Completion]) -> Group:
    """The solutions that have a label, as turns where the prompt is turns."""
    labelled = [s for s in solutions if any(label is not None for label in s.step_labels)]
    if not labelled:
        raise BadRow("null label", "no step is labelled")
    if isinstance(prompt, str):
        return Group(prompt, tuple(labelled))
    turns = [Completion((Message("assistant", s.text),), steps=s.steps, step_labels=s.step_labels) for s in labelled]
    return Group(prompt, tuple(turns))
