"""Phrases that the policy has taken up: more documents have them than the reference's, beyond chance.

For each run of one to five words, with c of N answers of the policy and c_ref of N_ref of the
reference that hold it at least once:

    lift = log (c + 1/2)/(N + 1/2) - log (c_ref + 1/2)/(N_ref + 1/2)

Document frequency, so that one answer that says a word forty times counts once. Chance is judged by a
normal test of the difference of the shares, whose variance is the larger of the pooled binomial one
and that between prompts (answers to one prompt are alike), with Benjamini and Hochberg's control over
all the runs that are frequent enough to be tested. Overlapping runs that stand in the same answers are
one phrase, the longest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from strop.monitor.numbers import Floats, false_discovery, log_odds_lift, upper_tail
from strop.monitor.settings import Thresholds
from strop.monitor.words import LONGEST, Phrase, phrases

Texts = Sequence[Sequence[str]]
"""Answers by prompt."""

SAME = 0.8
"""Two runs are one phrase where the rarer stands in so large a share of the other's answers."""
OVERLAP = LONGEST - 1
MIN_DOCUMENTS = 5
"""Runs in fewer answers are not tested."""


@dataclass(frozen=True, slots=True)
class Uptake:
    """A phrase that has been taken up.

    Attributes: share, reference: of the policy's and of the reference's answers. lift: nats.
        q: the adjusted p-value, the share of false ones among phrases at least as significant.
    """

    phrase: Phrase
    share: float
    reference: float
    lift: float
    q: float


@dataclass(frozen=True, slots=True)
class Counted:
    """How many answers hold each phrase, by prompt and in all."""

    num: tuple[int, ...]
    total: Counter[Phrase]
    by_prompt: tuple[Counter[Phrase], ...]

    @property
    def documents(self) -> int:
        return sum(self.num)

    def shares(self, phrase: Phrase) -> Floats:
        """The share of each prompt's answers; NaN for a prompt without any."""
        return np.array([c[phrase] / n if n else math.nan for c, n in zip(self.by_prompt, self.num, strict=True)])


def counted(texts: Texts) -> Counted:
    """The phrases of answers."""
    by_prompt = []
    for row in texts:
        here: Counter[Phrase] = Counter()
        for text in row:
            here.update(phrases(text))
        by_prompt.append(here)
    total: Counter[Phrase] = Counter()
    for here in by_prompt:
        total.update(here)
    return Counted(tuple(len(row) for row in texts), total, tuple(by_prompt))


def uptakes(policy: Counted, reference: Counted, thresholds: Thresholds, *, paired: bool) -> list[Uptake]:
    """The phrases taken up, those of the largest increase first.

    Args: paired: both answer the same prompts, in the same order.
    """
    if not policy.documents or not reference.documents:
        return []
    least = max(MIN_DOCUMENTS, thresholds.min_increase / 2 * policy.documents)
    # Chosen by the count of both together, which says nothing of which has more.
    tested = [p for p, c in policy.total.items() if c + reference.total[p] >= least]
    if not tested:
        return []
    adjusted = false_discovery([_p_value(p, policy, reference, paired) for p in tested])
    found = {p: _uptake(p, policy, reference, float(q)) for p, q in zip(tested, adjusted, strict=True)}
    strong = {p: u for p, u in found.items() if _matters(u, thresholds)}
    return sorted(merged(strong), key=lambda u: (u.reference - u.share, u.phrase))


def _matters(uptake: Uptake, thresholds: Thresholds) -> bool:
    grown = uptake.share - uptake.reference >= thresholds.min_increase
    return grown and uptake.lift >= thresholds.min_lift and uptake.q <= thresholds.fdr


def _uptake(phrase: Phrase, policy: Counted, reference: Counted, q: float) -> Uptake:
    c, n, rc, rn = policy.total[phrase], policy.documents, reference.total[phrase], reference.documents
    return Uptake(phrase, c / n, rc / rn, log_odds_lift(c, n, rc, rn), q)


def _p_value(phrase: Phrase, policy: Counted, reference: Counted, paired: bool) -> float:
    """The chance of so large an increase of the share of answers, by the normal approximation; one-sided."""
    c, n, rc, rn = policy.total[phrase], policy.documents, reference.total[phrase], reference.documents
    pooled = (c + rc) / (n + rn)
    variance = pooled * (1 - pooled) * (1 / n + 1 / rn)
    if variance <= 0:
        return 1.0
    if c / n - rc / rn <= 0:
        return 1.0  # no increase; the exact value, at least a half, changes no decision
    ours, theirs = policy.shares(phrase), reference.shares(phrase)
    between = _error2(ours - theirs) if paired else _error2(ours) + _error2(theirs)
    return upper_tail((c / n - rc / rn) / math.sqrt(max(variance, between)))


def _error2(values: Floats) -> float:
    """The squared standard error of a mean over prompts."""
    known = values[~np.isnan(values)]
    return float(known.var(ddof=1) / len(known)) if len(known) > 1 else 0.0


def merged(found: Mapping[Phrase, Uptake]) -> list[Uptake]:
    """The longest phrases: runs that overlap are joined, and parts of a longer one in as many answers go."""
    pieces = sorted((u for p, u in found.items() if len(p) == LONGEST), key=lambda u: (-u.share, u.phrase))
    whole: list[Uptake] = [u for p, u in found.items() if len(p) < LONGEST]
    while pieces:
        chain = pieces.pop(0)
        while (place := _next(chain, pieces)) is not None:
            chain = _joined(chain, pieces.pop(place))
        whole.append(chain)
    kept: list[Uptake] = []
    for uptake in sorted(whole, key=lambda u: (-len(u.phrase), -u.share, u.phrase)):
        if not any(_inside(uptake.phrase, other.phrase) and other.share >= SAME * uptake.share for other in kept):
            kept.append(uptake)
    return kept


def _next(chain: Uptake, pieces: Sequence[Uptake]) -> int | None:
    """The run that goes on where the chain ends, or ends where it begins, in nearly the same answers."""
    for place, piece in enumerate(pieces):
        ends = chain.phrase[-OVERLAP:] == piece.phrase[:OVERLAP], piece.phrase[-OVERLAP:] == chain.phrase[:OVERLAP]
        if any(ends) and min(chain.share, piece.share) >= SAME * max(chain.share, piece.share):
            return place
    return None


def _joined(chain: Uptake, piece: Uptake) -> Uptake:
    """Chain and piece as one phrase, which stands in at most as many answers as the rarer of them."""
    rarer = min(chain, piece, key=lambda u: u.share)
    if chain.phrase[-OVERLAP:] == piece.phrase[:OVERLAP]:
        return replace(rarer, phrase=chain.phrase + piece.phrase[OVERLAP:])
    return replace(rarer, phrase=piece.phrase + chain.phrase[OVERLAP:])


def _inside(part: Phrase, whole: Phrase) -> bool:
    return len(part) < len(whole) and any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))
