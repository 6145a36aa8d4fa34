"""What a data set trains a model on: counts, lengths, and the first rows token by token.

`inspect` gives plain JSON values, `as_text` the same for a terminal, where trained tokens stand in
⟦brackets⟧, tokens are parted by a dot and a pair's two sides stand beside each other. Without a
tokenizer lengths are in characters and rows are shown as they were read.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.formats import Dataset
from strop.data.steps import encode_steps
from strop.data.stepwise import STEP_SEPARATOR
from strop.types import Completion, Content, Group, content_to_json

_ALL = 10**9
_MEASURED = 1000
_SHOWN_TOKENS = 300
_PERCENTS = (50, 90, 99)


def inspect(
    dataset: Dataset, chat: Chat | None = None, *, max_length: int = 2048, num_rows: int = 2, measured: int = _MEASURED
) -> dict[str, Any]:
    """A data set in plain values.

    Args:
        chat: how rows are tokenised; None measures characters.
        max_length: tokens of prompt and completion together.
        num_rows: how many groups are shown in full; measured: how many are tokenised for lengths.
    Returns: rows, kept and dropped (by reason, with the first example of each), lengths of the
        first `measured` groups by percentile, the share of completions that `max_length` cuts,
        the reasons for which tokenised groups would be dropped, and `samples`.
    """
    out: dict[str, Any] = {
        "kind": dataset.kind,
        "shape": dataset.shape,
        "files": list(dataset.files),
        "sha256": dataset.sha256,
        "columns": list(dataset.columns),
        "rows": dataset.num_rows,
        "kept": dataset.num_rows - dataset.num_dropped,
        "groups": len(dataset.groups),
        "dropped": dict(dataset.dropped),
        "examples": dict(dataset.examples),
    }
    head = dataset.groups[:measured]
    out |= _in_characters(head) if chat is None else _in_tokens(head, dataset.kind, chat, max_length)
    shown = dataset.groups[:num_rows]
    out["samples"] = [_as_read(g) if chat is None else _sample(g, dataset.kind, chat, max_length) for g in shown]
    return out


def _in_characters(groups: Sequence[Group]) -> dict[str, Any]:
    lengths = {
        "prompt": percentiles(_characters(g.prompt) for g in groups),
        "completion": percentiles(_characters(c.content) for g in groups for c in g.completions),
    }
    return {"unit": "characters", "measured": len(groups), "lengths": lengths}


def _characters(content: Content) -> int:
    return len(content) if isinstance(content, str) else sum(len(m.content) for m in content)


def _encoded(groups: Sequence[Group], kind: str, chat: Chat, max_length: int) -> Sequence[EncodedGroup | str]:
    """Groups as tokens; solutions in labelled steps as a head at the steps' ends reads them."""
    if kind.startswith("stepwise"):
        return encode_steps(groups, chat, separator=STEP_SEPARATOR, max_length=max_length)
    return chat.encode_many(groups, max_length)


def _in_tokens(groups: Sequence[Group], kind: str, chat: Chat, max_length: int) -> dict[str, Any]:
    whole = [g for g in _encoded(groups, kind, chat, _ALL) if isinstance(g, EncodedGroup)]
    before = Counter(chat.notes)
    kept = _encoded(groups, kind, chat, max_length)
    cut = [one for g in kept if isinstance(g, EncodedGroup) for one in _cut(g, kind, max_length)]
    lengths = {
        "prompt": percentiles(len(g.prompt_ids) for g in whole),
        "completion": percentiles(len(s.ids) for g in whole for s in g.sequences),
        "trained": percentiles(s.num_trained for g in whole for s in g.sequences),
    }
    return {
        "unit": "tokens",
        "measured": len(groups),
        "max_length": max_length,
        "lengths": lengths,
        "truncated": sum(cut) / len(cut) if cut else 0.0,
        "unusable": dict(Counter(g for g in kept if isinstance(g, str)).most_common()),
        "notes": dict(Counter(chat.notes) - before),
    }


def _cut(group: EncodedGroup, kind: str, max_length: int) -> tuple[bool, ...]:
    """Whether each completion was cut; of solutions in steps whole ones are left out."""
    return tuple(s.truncated for s in group.sequences) if kind.startswith("stepwise") else group.cut(max_length)


def percentiles(values: Iterable[int]) -> dict[str, float]:
    """Smallest, largest, mean, and the smallest value that so many percent do not exceed; {} of nothing."""
    found = sorted(values)
    if not found:
        return {}
    ranks = {f"p{p}": float(found[-(-p * len(found) // 100) - 1]) for p in _PERCENTS}
    return {"min": float(found[0]), **ranks, "max": float(found[-1]), "mean": sum(found) / len(found)}


def _as_read(group: Group) -> dict[str, Any]:
    completions = [content_to_json(c.content) for c in group.completions]
    return {"origin": group.origin, "prompt": content_to_json(group.prompt), "completions": completions}


def _sample(group: Group, kind: str, chat: Chat, max_length: int) -> dict[str, Any]:
    """A group's tokens, each with its id, its text and whether it is trained; or why it would be dropped."""
    (encoded,) = _encoded([group], kind, chat, max_length)
    if isinstance(encoded, str):
        return {**_as_read(group), "unusable": encoded}
    prompt = _tokens(chat, encoded.prompt_ids, [False] * len(encoded.prompt_ids))
    cut = _cut(encoded, kind, max_length)
    sides = zip(group.completions, encoded.sequences, cut, strict=False)  # solutions without a label that fits lack
    completions = [_side(chat, kind, k, *side) for k, side in enumerate(sides)]
    return {"origin": group.origin, "prompt": prompt, "completions": completions}


def _side(
    chat: Chat, kind: str, place: int, completion: Completion, sequence: EncodedSequence, cut: bool
) -> dict[str, Any]:
    tokens = _tokens(chat, sequence.ids, sequence.trained)
    steps = sequence.columns.get("step_labels")
    if isinstance(steps, tuple):
        for token, label in zip(tokens, steps, strict=True):
            if label == label:  # nan is no step's end
                token["step_label"] = label
    return {"name": _name(kind, place, completion), "tokens": tokens, "truncated": cut}


def _tokens(chat: Chat, ids: Sequence[int], trained: Sequence[bool]) -> list[dict[str, Any]]:
    texts = chat.token_texts(ids)
    return [{"id": i, "text": text, "trained": on} for i, text, on in zip(ids, texts, trained, strict=True)]


def _name(kind: str, place: int, completion: Completion) -> str:
    if kind == "preference":
        return ("chosen", "rejected")[place]
    if kind == "ranking":
        return f"rank {place + 1}"
    if completion.label is not None:
        return "desirable" if completion.label else "undesirable"
    return "completion"


def as_text(report: Mapping[str, Any], width: int = 100) -> str:
    """What `inspect` gave, for a terminal of that many columns."""
    lines = [
        f"kind     {report['kind']} ({report['shape']})",
        f"files    {', '.join(report['files']) or 'read by `datasets`'}",
        f"sha256   {report['sha256']}",
        f"columns  {', '.join(report['columns'])}",
        f"rows     {report['rows']} read, {report['kept']} kept, {report['rows'] - report['kept']} dropped",
    ]
    lines += [f"         {count} x {report['examples'][reason]}" for reason, count in report["dropped"].items()]
    lines.append(f"lengths  in {report['unit']}, of the first {report['measured']} groups")
    for name, numbers in report["lengths"].items():
        lines.append(f"         {name:<10} " + "  ".join(f"{key} {value:.0f}" for key, value in numbers.items()))
    if report["unit"] == "tokens":
        lines.append(f"cut      {report['truncated']:.1%} of completions by max_length={report['max_length']}")
        lines += [f"unusable {count} x {reason}" for reason, count in report["unusable"].items()]
        lines += [f"note     {count} x {note}" for note, count in report["notes"].items()]
    for sample in report["samples"]:
        lines += ["", f"--- {sample['origin']} " + "-" * max(0, width - 5 - len(sample["origin"]))]
        lines += _sample_lines(sample, width)
    return "\n".join(lines) + "\n"


def _sample_lines(sample: Mapping[str, Any], width: int) -> list[str]:
    if "unusable" in sample:
        return [f"dropped: {sample['unusable']}"]
    lines = ["prompt", *_wrapped(_part(sample["prompt"]), width)]
    sides = [_side_lines(side, k) for k, side in enumerate(sample["completions"])]
    if len(sides) == 2:
        half = (width - 3) // 2
        left, right = ([name, *_wrapped(text, half)] for name, text in sides)
        return lines + [f"{a:<{half}} | {b}" for a, b in zip_longest(left, right, fillvalue="")]
    for name, text in sides:
        lines += [name, *_wrapped(text, width)]
    return lines


def _side_lines(side: Any, place: int) -> tuple[str, str]:
    if not (isinstance(side, Mapping) and "tokens" in side):
        return f"completion {place + 1}", _part(side)
    return side["name"] + (", cut by max_length" if side["truncated"] else ""), _part(side["tokens"])


def _part(part: Any) -> str:
    """A text, turns or tokens on lines; of many tokens only the first and last ones."""
    if isinstance(part, str):
        return part
    if part and "role" in part[0]:
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in part)
    if len(part) <= _SHOWN_TOKENS:
        return _marked(part)
    half = _SHOWN_TOKENS // 2
    return f"{_marked(part[:half])}\n... {len(part) - 2 * half} more tokens ...\n{_marked(part[-half:])}"


def _marked(tokens: Sequence[Mapping[str, Any]]) -> str:
    out, on = "", False
    for token in tokens:
        if token["trained"] != on:
            out += "⟦" if token["trained"] else "⟧"
        elif out:
            out += "·"
        on = token["trained"]
        out += _visible(token["text"]) + (f"<step {token['step_label']:g}>" if "step_label" in token else "")
    return out + ("⟧" if on else "")


def _visible(text: str) -> str:
    """A token's text with its line breaks seen and kept, and nothing that could steer a terminal."""
    return "".join("↵\n" if c == "\n" else c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _wrapped(text: str, width: int) -> list[str]:
    lines = ("".join(c for c in line if c.isprintable()) for line in text.split("\n"))
    return [part for line in lines for part in textwrap.wrap(line, width - 2, drop_whitespace=False) or [""]]
