"""An evaluation beside the start: what all detectors ask of proxy and held-out reward, worked out once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from strop.monitor.gains import LENIENT, Relation, differences, peak, relation, worth
from strop.monitor.numbers import NORMAL, Change, change, level_at
from strop.monitor.samples import Snapshot, held_out, proxy
from strop.monitor.settings import Thresholds

RECENT = 4
"""Evaluations whose answers are compared within prompts, besides the start's."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything up to one evaluation.

    Attributes:
        history: evaluations in order; the first is of the starting policy, the last is judged.
        look: how many evaluations after the first. level: of a test at this look.
        value: held-out reward that a unit of proxy was worth at the start, 0 where that is not shown.
        since: the relation to the start and to the held-out reward's peak, where both rewards are known.
    """

    history: tuple[Snapshot, ...]
    thresholds: Thresholds
    look: int
    level: float
    has_proxy: bool
    has_held_out: bool
    value: float
    since: tuple[Relation, ...]

    @property
    def start(self) -> Snapshot:
        return self.history[0]

    @property
    def now(self) -> Snapshot:
        return self.history[-1]

    def z(self, num: int = 1) -> float:
        """How many standard errors one of `num` tests at this look must reach."""
        return NORMAL.inv_cdf(1 - self.level / num)

    @property
    def recent(self) -> tuple[Snapshot, ...]:
        """The start and the newest evaluations: what an effect is looked for in."""
        return (self.start, *self.history[1:][-RECENT:])

    @property
    def gained(self) -> Change:
        """The proxy's change since the start."""
        return change(differences(self.now, self.start, proxy), LENIENT)

    @property
    def fallen(self) -> Relation | None:
        """The baseline from which the held-out reward fell, significantly; the one of the larger fall."""
        down = [r for r in self.since if r.held_out.down]
        return min(down, key=lambda r: r.held_out.value) if down else None

    @property
    def hacked(self) -> Relation | None:
        """The same where the proxy did not fall too: it stands no lower, and above the start or the baseline."""
        apart = [r for r in self.since if r.held_out.down and r.proxy.value >= 0 and (r.proxy.up or self.gained.up)]
        return min(apart, key=lambda r: r.held_out.value) if apart else None

    @property
    def lagging(self) -> Relation | None:
        """The baseline since which the proxy rose and the held-out reward, shown, did not rise half as it should."""
        found = [r for r in self.since if self.value > 0 and r.proxy.up and r.lag.up]
        return max(found, key=lambda r: r.lag.value) if found else None

    @property
    def spoilt(self) -> bool:
        """Whether the held-out reward fell and the proxy did not, or it lags and did not rise at all."""
        lagging = self.lagging
        return self.hacked is not None or (lagging is not None and lagging.held_out.value <= 0)

    @property
    def rises(self) -> bool:
        """Whether the held-out reward stands above the start (5 %) and keeps up with the proxy."""
        held = change(differences(self.now, self.start, held_out), LENIENT)
        return held.up and self.lagging is None and self.fallen is None


def view(history: Sequence[Snapshot], thresholds: Thresholds) -> View:
    """The view of the last of at least two evaluations of the same prompts."""
    start, now, look = history[0], history[-1], len(history) - 1
    assert look >= 1 and len(start.prompts) == len(now.prompts)
    level = level_at(thresholds.alpha, look)
    has_proxy, has_held_out = now.has(proxy) and start.has(proxy), now.has(held_out) and start.has(held_out)
    value = worth(start) if has_proxy and has_held_out else 0.0
    since: tuple[Relation, ...] = ()
    if has_held_out:
        best = peak(history[:-1])
        since = tuple(relation(now, then, value, level) for then in ([start] if best is start else [start, best]))
    return View(tuple(history), thresholds, look, level, has_proxy, has_held_out, value, since)


def with_bounds(found: Change, level: float) -> str:
    """A change in words, with its interval and n."""
    if math.isinf(found.low):
        return f"{found.value:+.3g} (n = {found.n} prompts, too few for an interval)"
    share = 100 * (1 - 2 * level)
    return f"{found.value:+.3g} ({share:.3g} % interval {found.low:+.3g} to {found.high:+.3g}, n = {found.n} prompts)"
