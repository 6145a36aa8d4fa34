"""What puts the scores of reward models on one scale: frozen figures, length residuals, ensembles.

Bradley-Terry scores are known up to a constant a prompt, and their unit is whatever training made
it. So each member of an ensemble is centred within the prompt and divided by its own deviation
before members are compared; and a single model is brought to mean 0 and deviation 1 by figures that
were taken once and stand beside its weights. A running mean would hide that scores drift.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

FILE = "reward.json"
"""Where a reward model's figures stand, beside its weights."""

Combine = Literal["mean", "mean_minus_std", "min", "uwo"]
Scores = Sequence[float | None]
"""One prompt's scores; None is unscorable."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a finished reward model.

    Attributes:
        mean, std: of its scores over all completions.
        std_within: deviation from each prompt's mean score; nan if no prompt had two completions.
        length_slope: score a token, within prompts; 0 where no lengths differed.
        temperature: P(first better) = sigmoid(difference / temperature).
        num_completions, fitted_on: how many completions, and which.
    """

    mean: float
    std: float
    std_within: float
    length_slope: float
    temperature: float
    num_completions: int
    fitted_on: str

    def write(self, folder: Path) -> None:
        """Put them beside a model's weights."""
        said = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}
        (folder / FILE).write_text(json.dumps(said, indent=2) + "\n", "utf-8")


def read_figures(folder: str) -> Figures | None:
    """The figures beside a model, None if there are none.

    Raises: ValueError naming the file if it is none of ours.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text("utf-8"))
        numbers = ("mean", "std", "std_within", "length_slope", "temperature")
        known = {name: math.nan if said[name] is None else float(said[name]) for name in numbers}
        return Figures(**known, num_completions=int(said["num_completions"]), fitted_on=str(said["fitted_on"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not the figures of a reward model ({type(error).__name__}: {error})") from error


def figures_of(
    scores: Sequence[Sequence[float]], *, length_slope: float, temperature: float, fitted_on: str
) -> Figures:
    """The figures of one list of scores a prompt; deviations are the population's."""
    every = [score for row in scores for score in row]
    mean = math.fsum(every) / len(every)
    rows = [row for row in scores if len(row) > 1]
    means = [math.fsum(row) / len(row) for row in rows]
    within = [score - m for row, m in zip(rows, means, strict=True) for score in row]
    return Figures(
        mean=mean,
        std=_deviation([score - mean for score in every]),
        std_within=_deviation(within) if within else math.nan,
        length_slope=0.0 if math.isnan(length_slope) else length_slope,
        temperature=temperature,
        num_completions=len(every),
        fitted_on=fitted_on,
    )


def residual(scores: Scores, lengths: Sequence[int], slope: float) -> list[float | None]:
    """One prompt's scores without what length explains: r - slope (|y| - mean |y|), over what is scorable.

    With the slope fitted within prompts on some completions, scores and lengths of those, centred
    within prompts, are exactly uncorrelated afterwards. A lone completion stays as it is.
    """
    known = [length for score, length in zip(scores, lengths, strict=True) if score is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    return [None if s is None else s - slope * (n - mean) for s, n in zip(scores, lengths, strict=True)]


def normalised(scores: Scores, figures: Figures) -> list[float | None]:
    """(r - mean) / std by the frozen figures (Ziegler et al. 2019, arXiv:1909.08593, section 2.1)."""
    return [None if s is None else (s - figures.mean) / figures.std for s in scores]


def combined(members: Sequence[Scores], figures: Sequence[Figures], how: Combine, weight: float) -> list[Judged]:
    """One prompt's scores by an ensemble, from each member's scores of its completions.

    Each member's scores are centred on their mean over the prompt and divided by its `std_within`, so that
    a constant added to a member, or a factor, changes nothing. A lone completion has nothing to be
    centred by and takes the member's frozen mean. With z_k the members' scores and their mean, population
    deviation s and variance s^2 over k:

        mean            mean z_k
        mean_minus_std  mean z_k - weight s
        min             min_k z_k
        uwo             mean z_k - weight s^2    (Coste et al. 2023, arXiv:2310.02743)

    A completion that a member cannot score is unscorable.
    """
    known = [all(member[i] is not None for member in members) for i in range(len(members[0]))]
    columns = [_standardised(m, known, f) for m, f in zip(members, figures, strict=True)]
    out = []
    for i, scorable in enumerate(known):
        out.append(_combine([column[i] for column in columns], how, weight) if scorable else Judged(None, 0.0))
    return out


@dataclass(frozen=True, slots=True)
class Judged:
    """An ensemble's score of one completion, and how far its members lie apart (population deviation)."""

    score: float | None
    spread: float


def _standardised(scores: Scores, known: Sequence[bool], figures: Figures) -> list[float]:
    kept = [s for s, good in zip(scores, known, strict=True) if good and s is not None]
    centre = math.fsum(kept) / len(kept) if len(kept) > 1 else figures.mean
    return [0.0 if s is None else (s - centre) / figures.std_within for s in scores]


def _combine(z: Sequence[float], how: Combine, weight: float) -> Judged:
    mean = math.fsum(z) / len(z)
    spread = _deviation([value - mean for value in z])
    if how == "min":
        return Judged(min(z), spread)
    penalty = {"mean": 0.0, "mean_minus_std": spread, "uwo": spread**2}[how]
    return Judged(mean - weight * penalty, spread)


def _deviation(differences: Sequence[float]) -> float:
    """The root of their mean square."""
    return math.sqrt(math.fsum(d * d for d in differences) / len(differences))
