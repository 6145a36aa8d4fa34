"""What is told of a finding, and when: it must be seen on several evaluations in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from strop.monitor.gains import Effect
from strop.monitor.samples import Sample, Snapshot

Severity = Literal["info", "warning", "alarm"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "alarm")

CAUSES = ("phrase", "length")
"""Findings that say why a reward rises."""
PHRASES = 3
"""Phrases told as alarms in a run, and as many as warnings; twice as many as information."""
SURE = 4.0
"""Standard errors from 0 of both effects at which nobody need look twice."""
EXAMPLES = 3
CHARACTERS = 400
"""Examples an alert shows, and characters of each text."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with the answer that shows what is meant."""

    prompt: str
    completion: str
    proxy: float | None = None
    held_out: float | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that was found at an evaluation.

    Attributes:
        code: which detector. subject: of what (a phrase), empty where there is one thing only.
        sure: shown so strongly that one look is enough.
        what, cause, fix: sentences; what holds the figures with intervals and n.
        evidence: the figures by name.
    """

    code: str
    severity: Severity
    step: int
    what: str
    cause: str
    fix: str
    subject: str = ""
    evidence: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    sure: bool = False

    @property
    def text(self) -> str:
        """All of it, for a line on the terminal."""
        return " ".join(part for part in (self.what, self.cause, self.fix) if part)

    @property
    def key(self) -> tuple[str, str]:
        return self.code, self.subject

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "evidence": dict(self.evidence), "examples": [asdict(e) for e in self.examples]}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Alert:
        """The inverse of `to_json`."""
        return Alert(**{**value, "examples": tuple(Example(**e) for e in value["examples"])})


def is_sure(paid: Effect, held: Effect) -> bool:
    """Whether a feature is shown to earn the trained reward and to cost the held-out one, beyond any doubt."""
    return paid.above(SURE) and held.below(SURE)


def rank(severity: Severity) -> int:
    """0 for info up to 2 for an alarm."""
    return SEVERITIES.index(severity)


def confirmed(found: Sequence[Sequence[Alert]], patience: int) -> list[Alert]:
    """The newest findings that hold: those of the same code on each of the last `patience` evaluations.

    A finding is as severe as the mildest of them. But one that names a cause (a phrase, length) rests on
    several tests at once, and is as severe as it now is, once it was seen before. What is sure holds at once.
    Of phrases, which change their edges from one evaluation to the next, any will do.
    """
    held = []
    for alert in found[-1]:
        seen = [max((rank(a.severity) for a in row if a.code == alert.code), default=-1) for row in found[-patience:]]
        level = min([rank(alert.severity), *(() if alert.code in CAUSES else seen)])
        if alert.sure or (len(found) >= patience and min(seen) >= 0):
            held.append(replace(alert, severity=SEVERITIES[level]))
    return held


def unconfirmed(found: Sequence[Sequence[Alert]], patience: int) -> list[Alert]:
    """Findings of the last evaluation that time did not allow to confirm: warnings at most."""
    if not found:
        return []
    known = {alert.key for alert in confirmed(found, patience)}
    late = [a for a in found[-1] if a.key not in known and a.severity != "info"]
    note = "It was seen at the last evaluation only, so that nothing confirms it."
    return [replace(a, severity="warning", cause=f"{a.cause} {note}".strip()) for a in late]


def news(alerts: Sequence[Alert], told: Sequence[Alert]) -> list[Alert]:
    """The alerts that say more than was said before: of a new subject, or more severe."""
    before: dict[tuple[str, str], int] = {}
    for alert in told:
        before[alert.key] = max(rank(alert.severity), before.get(alert.key, -1))
    fresh = [alert for alert in alerts if rank(alert.severity) > before.get(alert.key, -1)]
    return _without_noise(fresh, told)


def _without_noise(alerts: Sequence[Alert], told: Sequence[Alert]) -> list[Alert]:
    """After a few phrases have been told as alarms, others are information; after many, they are left out."""
    known = {alert.key for alert in told}
    num = {level: sum(a.code == "phrase" and a.severity == level for a in told) for level in SEVERITIES}
    out = []
    for alert in alerts:
        if alert.code == "phrase":
            if alert.severity != "info" and num[alert.severity] >= PHRASES:
                alert = replace(alert, severity="info")
            if alert.severity == "info" and (num["info"] >= 2 * PHRASES or alert.key in known):
                continue
            num[alert.severity] += 1
        out.append(alert)
    return out


def excerpt(prompt: str, sample: Sample) -> Example:
    """A sample as an example, cut to a length."""
    return Example(_cut(prompt), _cut(sample.text), sample.proxy, sample.held_out)


def examples(now: Snapshot, badness: Mapping[tuple[int, int], float]) -> tuple[Example, ...]:
    """The worst few samples, one a prompt.

    Args: badness: by prompt and place; those that have none are no examples.
    """
    order = sorted(badness, key=lambda place: (-badness[place], place))
    first: dict[int, tuple[int, int]] = {}
    for place in order:
        first.setdefault(place[0], place)
    return tuple(excerpt(now.prompts[i], now.samples[i][j]) for i, j in list(first.values())[:EXAMPLES])


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
