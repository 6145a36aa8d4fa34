r"""The row shapes that are read, one parser each: a row's cells become one group (rarely several).

| shape | columns | kind |
|---|---|---|
| groups | prompt, completions (objects with `content`) | groups |
| stepwise | prompt, completions, labels (or error_steps); PRM800K, Math-Shepherd, PRMBench | stepwise |
| ranking | prompt, completions or responses, ranks or scores | ranking |
| preference | chosen, rejected, maybe prompt | preference |
| two answers | prompt (or input), response_a and _b (or output_1 and _2), maybe winner or label | comparison |
| MT-bench judgement | conversation_a, conversation_b, winner | comparison |
| unpaired | prompt, completion, label | unpaired_preference |
| prompt and completion | prompt, completion | prompt_completion |
| Alpaca, Self-Instruct | instruction, input, output; instruction, instances | prompt_completion |
| ShareGPT | conversations | language_modeling |
| messages, text | messages; text | language_modeling |
| question and answer | question, answer | prompt_completion |
| prompt | prompt; question; instruction; messages (their last assistant turn left out) | prompt_only |

These are TRL's dataset types, standard and conversational, and the field's other habits. A parser
gets the cells by our names and raises `BadRow`. Texts stay texts, turns stay turns; where a row
mixes them, texts become turns. What is no ready-made text but says who speaks becomes turns as well:
HH-RLHF dialogues (`\n\nHuman: ...`), instructions, questions with answers. To have questions and
answers as plain texts, joined as they stand, map them: `columns: {prompt: question, completion: answer}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.data.stepwise import NEUTRAL_IS_RIGHT, math_shepherd, prm800k, prmbench, rated, stepwise, tagged
from strop.data.turns import (
    BadRow,
    boolean,
    checked_dialogue,
    checked_prompt,
    content,
    dialogue,
    listed,
    shared_characters,
    shared_turns,
    sharegpt_turns,
    text,
    turns,
)
from strop.types import Completion, Content, Group, Message, group_from_json

Cells = Mapping[str, Any]
Turns = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """Columns that mean something together.

    Attributes:
        required, optional: column names; those read are not repeated in a group's `row`,
        kept: except these, which rewards read.
        detected: found by its columns alone, not only when its kind is asked for.
        looks: what most rows must look like besides, where other data sets have the same columns.
    """

    name: str
    kind: str
    required: tuple[str, ...]
    parse: Callable[[Cells], Sequence[Group]]
    optional: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    detected: bool = True
    looks: Callable[[Cells], bool] | None = None


def _groups(cells: Cells) -> list[Group]:
    try:
        return [group_from_json(cells)]
    except (ValueError, TypeError) as error:
        raise BadRow("not a group", str(error)) from error


def _text(cells: Cells) -> list[Group]:
    return [Group("", (Completion(text(cells["text"], "text")),))]


def _messages(cells: Cells) -> list[Group]:
    return [_whole_dialogue(turns(cells["messages"], "messages"))]


def _sharegpt(cells: Cells) -> list[Group]:
    return [_whole_dialogue(_system(cells) + sharegpt_turns(cells["conversations"], "conversations"))]


def _whole_dialogue(found: tuple[Message, ...]) -> Group:
    checked_dialogue(found)
    first = next(k for k, m in enumerate(found) if m.role == "assistant")
    return Group(found[:first], (Completion(found[first:]),))


def _prompt(cells: Cells) -> list[Group]:
    return [Group(checked_prompt(_asked(cells["prompt"], "prompt")))]


def _messages_prompt(cells: Cells) -> list[Group]:
    """A dialogue up to its last assistant turn."""
    found = turns(cells["messages"], "messages")
    if found and found[-1].role == "assistant":
        found = found[:-1]
    return [Group(checked_prompt(found))]


def _instruction_only(cells: Cells) -> list[Group]:
    return [Group(_system(cells) + (_instruction(cells),))]


def _prompt_completion(cells: Cells) -> list[Group]:
    return [_group(_asked(cells["prompt"], "prompt"), [content(cells["completion"], "completion")])]


def _question_answer(cells: Cells) -> list[Group]:
    return [_group(_question(cells)[0].prompt, [text(cells["answer"], "completion")])]


def _question(cells: Cells) -> list[Group]:
    return [Group((Message("user", text(cells["question"], "prompt")),))]


def _alpaca(cells: Cells) -> list[Group]:
    return [_group(_system(cells) + (_instruction(cells),), [text(cells["output"], "completion")])]


def _self_instruct(cells: Cells) -> list[Group]:
    """One group an instance of the instruction."""
    out = []
    for instance in listed(cells["instances"], "instances"):
        if not isinstance(instance, Mapping):
            raise BadRow("wrong type of instances", "expected objects with 'input' and 'output'")
        asked = _instruction({"instruction": cells["instruction"], "input": instance.get("input")})
        out.append(_group((asked,), [text(instance.get("output"), "completion")]))
    if not out:
        raise BadRow("empty instances")
    return out


def _instruction(cells: Cells) -> Message:
    asked, given = text(cells["instruction"], "prompt"), cells.get("input")
    more = text(given, "input") if given is not None and given != "" else ""
    return Message("user", f"{asked}\n\n{more}" if more else asked)


def _system(cells: Cells) -> tuple[Message, ...]:
    said = cells.get("system")
    return (Message("system", text(said, "system")),) if said else ()


def _unpaired(cells: Cells) -> list[Group]:
    label = boolean(cells["label"], "label")
    group = _group(_asked(cells["prompt"], "prompt"), [content(cells["completion"], "completion")])
    return [Group(group.prompt, (Completion(group.completions[0].content, label=label),))]


def _preference(cells: Cells) -> list[Group]:
    sides = [_answer(cells[name], name) for name in ("chosen", "rejected")]
    if sides[0] == sides[1]:
        raise BadRow("chosen == rejected")
    if cells.get("prompt") is None:
        return [_implicit(sides)]
    return [_group(_asked(cells["prompt"], "prompt"), sides)]


def _implicit(sides: list[Content]) -> Group:
    """A pair whose prompt is what both sides share, by turns or by characters."""
    dialogues = [dialogue(side) if isinstance(side, str) else side for side in sides]
    found = [d for d in dialogues if d is not None]
    if len(found) == len(sides):
        whole = [checked_dialogue(d) for d in found]
        if whole[0] == whole[1]:
            raise BadRow("chosen == rejected")
        cut = shared_turns(whole)
        if cut == 0:
            raise BadRow("no shared prompt", "the two dialogues have no user turn in common at their start")
        return _group(whole[0][:cut], [d[cut:] for d in whole])
    texts = [side for side in sides if isinstance(side, str)]
    if len(texts) < len(sides):
        raise BadRow("chosen and rejected differ in type", "one is a text, the other a list of messages")
    cut = shared_characters(texts)
    return Group(texts[0][:cut], tuple(Completion(side[cut:]) for side in texts))


def _two_answers(prompt: str, first: str, second: str) -> Callable[[Cells], list[Group]]:
    """A parser of two answers as they are listed; who wins stays in the row, and may be nobody."""

    def parse(cells: Cells) -> list[Group]:
        sides = [_answer(cells[name], name) for name in (first, second)]
        return [_group(_asked(cells[prompt], "prompt"), sides)]

    return parse


def _two_dialogues(cells: Cells) -> list[Group]:
    """Two dialogues that begin alike: an answer is all that follows in it, later questions among it."""
    whole = [checked_dialogue(turns(cells[name], name)) for name in ("conversation_a", "conversation_b")]
    cut = shared_turns(whole)
    if cut == 0:
        raise BadRow("no shared prompt", "the two dialogues have no user turn in common at their start")
    return [_group(whole[0][:cut], [d[cut:] for d in whole])]


def _ranking(answers: str, order: str) -> Callable[[Cells], list[Group]]:
    """A parser of rankings: answers in the column `answers`, ordered by `ranks` (1 is best) or `scores`."""

    def parse(cells: Cells) -> list[Group]:
        found = [content(answer, "completion") for answer in listed(cells[answers], answers)]
        if len(found) < 2:
            raise BadRow("fewer than two completions")
        scores: list[float | None] = [None] * len(found)
        if order:
            sign = -1.0 if order == "ranks" else 1.0
            scores = [sign * _number(x, order) for x in listed(cells[order], order)]
        if len(scores) != len(found):
            raise BadRow(f"completions and {order} differ in number", f"{len(found)} and {len(scores)}")
        if order and len(set(scores)) == 1:
            raise BadRow("all completions rank the same")
        group = _group(_asked(cells["prompt"], "prompt"), found)
        best_first = sorted(range(len(found)), key=lambda k: -(scores[k] or 0.0))
        return [
            Group(group.prompt, tuple(Completion(group.completions[k].content, score=scores[k]) for k in best_first))
        ]

    return parse


def _number(value: Any, name: str) -> float:
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRow(f"wrong type of {name}", f"expected numbers, got {value!r}"[:200])
    return float(value)


def _asked(value: Any, name: str) -> Content:
    """A prompt: a text, turns, or an HH dialogue that ends where the assistant should speak."""
    found = content(value, name)
    if isinstance(found, str):
        said = dialogue(found)
        if said and len(said) > 1 and said[-1] == Message("assistant", ""):
            return said[:-1]
    return found


def _answer(value: Any, name: str) -> Content:
    found = content(value, name)
    if not found:
        raise BadRow("empty completion", name)
    return found


def _group(prompt: Content, answers: Sequence[Content]) -> Group:
    """A prompt and its completions, all texts or all turns, checked."""
    if isinstance(prompt, str) and all(isinstance(a, str) for a in answers):
        if any(not str(a).strip() for a in answers):
            raise BadRow("empty completion")
        return Group(checked_prompt(prompt), tuple(Completion(a) for a in answers))
    asked = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    sides = [(Message("assistant", a),) if isinstance(a, str) else a for a in answers]
    asked, sides = _opened(asked, sides)
    checked_prompt(asked)
    return Group(asked, tuple(Completion(checked_dialogue(side)) for side in sides))


def _opened(prompt: Turns, sides: list[Turns]) -> tuple[Turns, list[Turns]]:
    """Completions that begin with an assistant turn: turns before it belong to the prompt.

    Some files repeat the prompt, maybe under a system turn, at the head of every completion.
    """
    if all(side[: len(prompt)] == prompt for side in sides):
        sides = [side[len(prompt) :] for side in sides]
    heads = [side[: next((k for k, m in enumerate(side) if m.role == "assistant"), len(side))] for side in sides]
    head = heads[0]
    if any(other != head for other in heads):
        raise BadRow("completion does not begin with an assistant turn")
    rests = [side[len(head) :] for side in sides]
    if head and prompt and head[-len(prompt) :] == prompt:
        return head, rests
    return prompt + head, rests


SHAPES: tuple[Shape, ...] = (
    Shape("groups", "groups", ("prompt", "completions"), _groups, ("row", "origin", "prompt_ids")),
    Shape("stepwise", "stepwise", ("prompt", "completions", "labels"), stepwise),
    Shape("stepwise with error steps", "stepwise", ("prompt", "completions", "error_steps"), stepwise),
    Shape("PRMBench", "stepwise", ("question", "modified_process", "error_steps"), prmbench),
    Shape("Math-Shepherd", "stepwise", ("input", "label"), math_shepherd, looks=tagged),
    Shape("PRM800K", "stepwise", ("question", "label"), prm800k(NEUTRAL_IS_RIGHT), kept=("question",), looks=rated),
    Shape(
        "PRM800K, neutral is wrong",
        "stepwise_strict",
        ("question", "label"),
        prm800k(not NEUTRAL_IS_RIGHT),
        kept=("question",),
        detected=False,
    ),
    *(
        Shape(f"ranking by {order}", "ranking", ("prompt", answers, order), _ranking(answers, order))
        for answers in ("completions", "responses")
        for order in ("ranks", "scores")
    ),
    *(
        Shape("ranking, best first as listed", "ranking", ("prompt", answers), _ranking(answers, ""), detected=False)
        for answers in ("completions", "responses")
    ),
    Shape("preference", "preference", ("chosen", "rejected"), _preference, ("prompt",)),
    Shape(
        "MT-bench judgement",
        "comparison",
        ("conversation_a", "conversation_b", "winner"),
        _two_dialogues,
        kept=("winner",),
    ),
    *(
        Shape("two answers", "comparison", (prompt, first, second), _two_answers(prompt, first, second))
        for prompt, first, second in (
            ("prompt", "response_a", "response_b"),
            ("prompt", "response_1", "response_2"),
            ("input", "output_1", "output_2"),
        )
    ),
    Shape("unpaired", "unpaired_preference", ("prompt", "completion", "label"), _unpaired),
    Shape(
        "prompt and completion",
        "prompt_completion",
        ("prompt", "completion"),
        _prompt_completion,
        kept=("completion",),
    ),
    Shape("Alpaca", "prompt_completion", ("instruction", "output"), _alpaca, ("input", "system"), kept=("output",)),
    Shape("Self-Instruct", "prompt_completion", ("instruction", "instances"), _self_instruct),
    Shape("ShareGPT", "language_modeling", ("conversations",), _sharegpt, ("system",)),
    Shape("messages", "language_modeling", ("messages",), _messages),
    Shape("question and answer", "prompt_completion", ("question", "answer"), _question_answer, kept=("answer",)),
    Shape("prompt", "prompt_only", ("prompt",), _prompt),
    Shape("question", "prompt_only", ("question",), _question),
    Shape("messages", "prompt_only", ("messages",), _messages_prompt, detected=False),
    Shape("Alpaca", "prompt_only", ("instruction",), _instruction_only, ("input", "system")),
    Shape("text", "language_modeling", ("text",), _text),
)
KINDS: tuple[str, ...] = tuple(dict.fromkeys(shape.kind for shape in SHAPES))
