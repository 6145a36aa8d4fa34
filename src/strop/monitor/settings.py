"""Where the detectors draw their lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When a change is worth a word.

    Attributes:
        alpha: chance of a false alarm that each test of rewards may take over a whole run; the look
            number k is made at alpha / (k + 1).
        fdr: share of false ones allowed among the phrases that are said to be taken up.
        min_increase: by how much the share of answers with a phrase must have grown.
        min_lift: by how much its log-odds against the reference must have grown, nats.
        explains: share of a gain in reward that a phrase or the length must explain to be its cause.
        extreme: share of answers in which a phrase of four words or more is suspicious by itself.
        repetition: share of repeated runs of four words that is said; half of the rest to 1 is an alarm.
        entropy: share of the starting entropy below which it has collapsed.
        clipped: share of answers cut by the length limit that is said.
        gap: by how much the gap between visible and hidden tests may grow.
        flips: share of judgements that may change with the order of the answers.
        disagreement: how many times its starting value the deviation of an ensemble may be.
    """

    alpha: float = 0.05
    fdr: float = 0.01
    min_increase: float = 0.1
    min_lift: float = 0.7
    explains: float = 0.5
    extreme: float = 0.8
    repetition: float = 0.2
    entropy: float = 0.1
    clipped: float = 0.2
    gap: float = 0.1
    flips: float = 0.3
    disagreement: float = 1.5

    def __post_init__(self) -> None:
        shares = ("alpha", "fdr", "min_increase", "explains", "extreme", "repetition", "entropy", "clipped", "flips")
        for key in shares:
            value = getattr(self, key)
            if not 0 < value < 1:
                raise ValueError(f"thresholds.{key} must be above 0 and below 1, got {value}")
        for key in ("min_lift", "gap", "disagreement"):
            if getattr(self, key) <= 0:
                raise ValueError(f"thresholds.{key} must be positive, got {getattr(self, key)}")
