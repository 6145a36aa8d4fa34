"""Length: how it goes with the reward within prompts, and how much of a gain it explains."""

from __future__ import annotations

import math

from strop.monitor.alerts import Alert, Severity, examples, is_sure
from strop.monitor.gains import SHOWN, Effect, differences, effect, explained, explained_range
from strop.monitor.numbers import change
from strop.monitor.samples import Snapshot, held_out, length, proxy
from strop.monitor.view import View, with_bounds


def length_explains(view: View, *, seed: int) -> list[Alert]:
    """Length explains most of a gain of the proxy that is shown to be one.

    Longer answers may be better ones (reasoning): with the held-out reward rising it is information.
    """
    gained = view.gained
    longer = change(differences(view.now, view.start, length), view.level)
    slope = effect(view.recent, length, proxy) if view.has_proxy else Effect(math.nan, math.inf)
    if not (gained.up and longer.up and slope.above(view.z())):
        return []
    share = explained(slope, view.now, view.start, length)
    limits = explained_range(view.recent, view.now, view.start, length, seed=seed)
    if limits is None or share < view.thresholds.explains or limits[0] < view.thresholds.explains / 2:
        return []
    level, cause, fix = _meaning(view)
    interval = f"90 % interval {limits[0]:.0%} to {limits[1]:.0%}"
    what = (
        f"Length explains {share:.0%} of the training reward's gain ({interval}): answers grew by "
        f"{with_bounds(longer, view.level)} tokens, and of one prompt's answers a longer one is worth "
        f"{slope.slope:+.2g} a token."
    )
    shown = examples(view.now, lengths_of(view.now)) if level != "info" else ()
    figures = {"share": share, "low": limits[0], "high": limits[1], "slope": slope.slope, "longer": longer.value}
    sure = is_sure(slope, effect(view.recent, length, held_out))
    return [Alert("length", level, view.now.step, what, cause, fix, "", figures, shown, sure)]


def _meaning(view: View) -> tuple[Severity, str, str]:
    """How bad that is, why, and what to do."""
    fix = "Take length out of the reward: {name: shaped, reward: {...}, shape: length_control}."
    if not view.has_held_out:
        return "warning", "Nothing is held out that could tell reasoning from rambling.", fix
    held = effect(view.recent, length, held_out)
    if held.below(view.z()) or (view.spoilt and not held.above(SHOWN)):
        return "alarm", "The reward pays for length, and the held-out reward does not.", fix
    if view.rises or held.above(SHOWN):
        return "info", "The held-out reward rises with it.", ""
    return "warning", "The held-out reward is not shown to rise with it.", fix


def lengths_of(now: Snapshot) -> dict[tuple[int, int], float]:
    """Every answer's length, by prompt and place."""
    return {(i, j): sample.length for i, row in enumerate(now.samples) for j, sample in enumerate(row)}
