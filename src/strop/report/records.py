"""A run as plain values: what `read` fills in and every other module of the report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strop.types import Content

Points = tuple[tuple[int, float], ...]
"""(step, value), steps ascending."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value with its 95 % interval and the number of prompts or rows it rests on.

    What `evaluate.statistics.Measure` was before it became JSON, without importing numpy. The value
    is nan where nothing could be scored.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Overlap:
    """Prompts of an evaluation that stand in what a stage was trained on.

    Attributes:
        stage, path: that stage, and its data. prompts: looked for. rows: training rows that were read.
        same: prompts that are a training row's. shared: those, and those with a run of so many words in one.
    """

    stage: str
    path: str
    words: int | None
    prompts: int | None
    rows: int | None
    same: int | None
    shared: int | None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DataUse:
    """The rows a stage read: how many, how many were dropped and why, and their sha256.

    Attributes: overlap: what a check against training data found; None where none was made.
    """

    rows: int | None
    kept: int | None
    dropped: Mapping[str, int]
    examples: Mapping[str, str]
    kind: str
    sha256: str
    overlap: tuple[Overlap, ...] | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of a gate, and what was found: pass, fail or unclear; closed, of an alarm that was answered."""

    name: str
    verdict: str
    text: str


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a model may be shipped, and why."""

    passed: bool | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage as summary.json tells it; empty values where it does not.

    Attributes:
        rewards: of an evaluate stage, those that count for something, in their order.
        chosen: of a stage that picks the best of several, the one it picked.
    """

    name: str
    kind: str = ""
    state: str = ""
    seconds: float | None = None
    metrics: Mapping[str, Figure] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    data: DataUse | None = None
    hash: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    rewards: tuple[str, ...] = ()
    chosen: str = ""
    gate: Gate | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A prompt and an answer that show what an alert means."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a stage's monitor measured at a step."""

    step: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Event:
    """A line of events.jsonl; `code` is the detector's that raised it, if one did."""

    kind: str
    text: str
    time: float | None
    stage: str
    step: int | None
    reason: str
    traceback: str = ""
    code: str = ""
    cause: str = ""
    fix: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled completion with what the rewards said of it."""

    text: str
    score: float | None
    rewards: Mapping[str, float | None]
    reasons: Mapping[str, str]
    finish: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """A prompt and the completions sampled for it."""

    prompt: Content
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """Comparisons of about the same confidence: how sure the model was of a side, and how often that side was right."""

    confidence: float
    right: float
    low: float | None
    high: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class Licence:
    """Under which terms a model or a dataset stands, and where that is said."""

    name: str
    licence: str
    source: str


@dataclass(frozen=True, slots=True)
class Run:
    """All that a report is made of.

    Attributes: folder: its whole path. gate: that of `strop ship`, asked once the run was done.
    """

    name: str
    folder: str = ""
    state: str = "unknown"
    stage: str = ""
    step: int | None = None
    steps: int | None = None
    updated: float | None = None
    error: str = ""
    command: str = ""
    seed: str = ""
    version: str = ""
    seconds: float | None = None
    stages: tuple[StageRun, ...] = ()
    lineage: tuple[Mapping[str, str], ...] = ()
    difference: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    config: str = ""
    curves: Mapping[str, Mapping[str, Points]] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    samples: Mapping[str, tuple[Sampled, ...]] = field(default_factory=dict)
    looks: Mapping[str, tuple[Look, ...]] = field(default_factory=dict)
    calibration: Mapping[str, Mapping[str, tuple[Bin, ...]]] = field(default_factory=dict)
    licences: Mapping[str, Licence] = field(default_factory=dict)
    gate: Gate | None = None
    problems: tuple[str, ...] = ()
