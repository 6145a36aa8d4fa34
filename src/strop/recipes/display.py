"""What a run shows on the terminal: a live block, plain lines, or JSON lines.

All of them are fed the very objects that go into metrics.jsonl and events.jsonl, so they agree
with the files. Text from models is shown without control characters and without markup.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TextIO, get_args

from strop.recipes.ending import ending
from strop.recipes.words import clean, duration, number
from strop.types import Group

Kind = Literal["auto", "live", "plain", "json", "quiet"]

KINDS: tuple[str, ...] = get_args(Kind)

START_LINES = 12
PEEK = 3
"""Sampled answers shown at an evaluation."""

HEADLINES: tuple[str, ...] = (
    "loss",
    "reward",
    "rewards/accuracies",
    "rewards/margins",
    "mean_token_accuracy",
    "kl",
    "objective/kl",
    "completions/mean_length",
    "frac_reward_zero_std",
    "entropy",
    "logps/chosen",
    "logps/rejected",
    "grad_norm",
    "learning_rate",
)
"""Metrics worth a place on the terminal, the most telling first; the first six a step has are shown."""


class Display(Protocol):
    """What a run calls. Nothing here may fail a run."""

    def start(self, facts: Mapping[str, str]) -> None: ...
    def facts(self, stage: str, facts: Mapping[str, str]) -> None: ...
    def phase(self, name: str) -> None: ...
    def step(self, stage: str, step: int, steps: int, line: Mapping[str, Any], *, due: bool) -> None: ...
    def note(self, text: str, kind: str) -> None: ...
    def samples(self, stage: str, step: int, groups: Sequence[Group]) -> None: ...
    def end(self, summary: Mapping[str, Any], closing: Sequence[str]) -> None: ...


def make(kind: str = "auto", stream: TextIO | None = None) -> Display:
    """The display of that kind; "auto" is live on a terminal, plain in pipes, under CI and NO_COLOR."""
    out = stream or sys.stderr
    if kind == "auto":
        plain = not out.isatty() or "CI" in os.environ or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        kind = "plain" if plain else "live"
    if kind == "live":
        return Live(out)
    if kind == "json":
        return Json(stream or sys.stdout)
    return Plain(out) if kind == "plain" else Quiet()


class Quiet:
    """Shows nothing."""

    def start(self, facts: Mapping[str, str]) -> None: ...
    def facts(self, stage: str, facts: Mapping[str, str]) -> None: ...
    def phase(self, name: str) -> None: ...
    def step(self, stage: str, step: int, steps: int, line: Mapping[str, Any], *, due: bool) -> None: ...
    def note(self, text: str, kind: str) -> None: ...
    def samples(self, stage: str, step: int, groups: Sequence[Group]) -> None: ...
    def end(self, summary: Mapping[str, Any], closing: Sequence[str]) -> None: ...


class Json:
    """One object a line on the standard output: metric lines as in metrics.jsonl, all else with a `kind`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def start(self, facts: Mapping[str, str]) -> None:
        self._put({"kind": "start", **facts})

    def facts(self, stage: str, facts: Mapping[str, str]) -> None:
        self._put({"kind": "stage", "stage": stage, **facts})

    def phase(self, name: str) -> None: ...

    def step(self, stage: str, step: int, steps: int, line: Mapping[str, Any], *, due: bool) -> None:
        self._put(line)

    def note(self, text: str, kind: str) -> None:
        self._put({"kind": kind, "text": text})

    def samples(self, stage: str, step: int, groups: Sequence[Group]) -> None: ...

    def end(self, summary: Mapping[str, Any], closing: Sequence[str]) -> None:
        self._put({"kind": "end", "summary": summary})

    def _put(self, value: Mapping[str, Any]) -> None:
        print(json.dumps(value, ensure_ascii=False, default=str), file=self._stream, flush=True)


class Plain:
    """Lines without colour or movement; a metric line each `log_every` steps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = Pace()

    def start(self, facts: Mapping[str, str]) -> None:
        for line in fact_lines(facts):
            self._put(line)

    def facts(self, stage: str, facts: Mapping[str, str]) -> None:
        for line in (f"[{stage}]", *fact_lines(facts)):
            self._put(line)

    def phase(self, name: str) -> None: ...

    def step(self, stage: str, step: int, steps: int, line: Mapping[str, Any], *, due: bool) -> None:
        left = self._pace(stage, step, steps)
        if due:
            self._put(f"{stage} {step}/{steps}  {'  '.join(shown(line))}  {left}".rstrip())

    def note(self, text: str, kind: str) -> None:
        self._put(f"{kind}: {text}")

    def samples(self, stage: str, step: int, groups: Sequence[Group]) -> None:
        for line in peek(groups):
            self._put(line)

    def end(self, summary: Mapping[str, Any], closing: Sequence[str]) -> None:
        for line in (*ending(summary), *closing):
            self._put(line)

    def _put(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Live:
    """A block at the foot of the terminal, redrawn at most four times a second; notes scroll above it."""

    def __init__(self, stream: TextIO) -> None:
        import rich.console
        import rich.live

        self._console = rich.console.Console(file=stream, highlight=False)
        self._live = rich.live.Live(console=self._console, refresh_per_second=4, transient=True, auto_refresh=True)
        self._pace = Pace()
        self._phase = "starting"
        self._at: tuple[str, int, int, Mapping[str, Any], str] = ("", 0, 0, {}, "")

    def start(self, facts: Mapping[str, str]) -> None:
        self._lines(fact_lines(facts))
        self._live.start()

    def facts(self, stage: str, facts: Mapping[str, str]) -> None:
        self._console.print(f"\n{stage}", style="bold", markup=False)
        self._lines(fact_lines(facts))

    def phase(self, name: str) -> None:
        self._phase = name
        self._live.update(self._block())

    def step(self, stage: str, step: int, steps: int, line: Mapping[str, Any], *, due: bool) -> None:
        self._at = (stage, step, steps, line, self._pace(stage, step, steps))
        self._live.update(self._block())

    def note(self, text: str, kind: str) -> None:
        style = {"alarm": "yellow", "error": "red", "nonfinite": "yellow"}.get(kind, "dim")
        self._console.print(clean(f"{kind}: {text}"), style=style, markup=False)

    def samples(self, stage: str, step: int, groups: Sequence[Group]) -> None:
        self._lines(peek(groups))

    def end(self, summary: Mapping[str, Any], closing: Sequence[str]) -> None:
        self._live.stop()
        self._lines(ending(summary, self._console.width))
        self._lines(closing)

    def _lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(line, markup=False)

    def _block(self) -> Any:
        import rich.console
        import rich.progress_bar
        import rich.text

        stage, step, steps, line, left = self._at
        head = rich.text.Text(f"{stage} {step}/{steps}  {self._phase}  {left}  {memory()}".strip())
        bar = rich.progress_bar.ProgressBar(total=max(steps, 1), completed=step, width=60)
        return rich.console.Group(bar, head, rich.text.Text("  ".join(shown(line))))


class Pace:
    """Steps a second of the stage under way, and what is left of it in words."""

    def __init__(self) -> None:
        self._stage = ""
        self._first = (0, 0.0)

    def __call__(self, stage: str, step: int, steps: int) -> str:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._first = stage, (step, now)
        done = step - self._first[0]
        if done <= 0 or step >= steps:
            return ""
        return f"{duration((now - self._first[1]) / done * (steps - step))} left"


def fact_lines(facts: Mapping[str, str]) -> list[str]:
    """Labels and words as aligned lines, at most twelve."""
    width = max((len(label) for label in facts), default=0)
    return [f"  {label:<{width}}  {clean(words)}" for label, words in facts.items()][:START_LINES]


def shown(line: Mapping[str, Any]) -> list[str]:
    """The metrics of a step worth a place on the terminal, with the speed."""
    found = [f"{name} {number(line[name])}" for name in HEADLINES if line.get(name) is not None][:6]
    if isinstance(line.get("tokens_per_s"), int | float):
        found.append(f"{line['tokens_per_s']:,.0f} tokens/s")
    return found


def peek(groups: Sequence[Group]) -> list[str]:
    """A few prompts with their first answers, each on a line."""
    lines = []
    for group in groups[:PEEK]:
        for completion in group.completions[:1]:
            score = "" if completion.score is None else f"  ({number(completion.score)})"
            lines.append(f"  > {clean(group.prompt_text, 60)}  =>  {clean(completion.text, 100)}{score}")
    return lines


def memory() -> str:
    """This process's resident memory in words; empty where it is not known."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return ""
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
