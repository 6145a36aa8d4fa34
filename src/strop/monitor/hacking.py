"""The training reward rises while the held-out reward falls, or stays behind."""

from __future__ import annotations

import numpy as np

from strop.evaluate.ranks import ranks
from strop.monitor.alerts import Alert, Example, examples
from strop.monitor.gains import LENIENT, Relation, worth
from strop.monitor.samples import Snapshot, held_out, proxy
from strop.monitor.view import View, with_bounds

ROLLBACK = "Stop here and take the model of step {step} (on_alarm: rollback does it)"


def unrelated(start: Snapshot) -> list[Alert]:
    """A training reward that does not predict the held-out one even before training: said once, at the start."""
    several = any(len(row) > 1 for row in start.samples)
    if not (several and start.has(proxy) and start.has(held_out)) or worth(start) > 0:
        return []
    what = (
        "Before training, answers that the training rewards score higher are not shown to be better by the "
        "held-out rewards."
    )
    cause = (
        "They may measure different things; then a held-out reward that stays level means nothing, and only a fall "
        "counts."
    )
    fix = "If the training rewards are to bring what the held-out ones measure, look at a few scored answers first."
    return [Alert("unrelated", "info", start.step, what, cause, fix)]


def held_out_falls(view: View) -> list[Alert]:
    """The held-out reward is shown to be below where it stood, and the proxy is not.

    Without a proxy (preference training) what is trained on rises by itself, and a fall is enough.
    """
    fallen, hacked = view.fallen, view.hacked
    if fallen is None:
        return []
    if not view.has_proxy:
        return [_falls(view, fallen, f"what is trained on went on from step {fallen.step}")]
    if hacked is None:
        return [_both(view, fallen)]
    return [_falls(view, hacked, f"the training reward changed by {with_bounds(hacked.proxy, LENIENT)}")]


def held_out_lags(view: View) -> list[Alert]:
    """The proxy's gain is worth less than half of what it was worth at the start."""
    lagging = view.lagging
    if lagging is None or view.fallen is not None:
        return []
    what = (
        f"The held-out reward does not follow the training reward: since step {lagging.step} the latter rose by "
        f"{with_bounds(lagging.proxy, LENIENT)}, which by the answers at the start is worth "
        f"{view.value * lagging.proxy.value:+.3g}; the held-out reward changed by "
        f"{with_bounds(lagging.held_out, view.level)}."
    )
    cause = "The policy may be finding what the training rewards overlook."
    fix = "Read the examples, and mend the reward that pays for them."
    return [Alert("held_out_lags", "warning", view.now.step, what, cause, fix, "", _evidence(lagging), _worst(view))]


def _falls(view: View, fallen: Relation, meanwhile: str) -> Alert:
    what = (
        f"Reward hacking: the held-out reward fell by {with_bounds(fallen.held_out, view.level)} since step "
        f"{fallen.step}, while {meanwhile}."
    )
    cause = "The policy has learned what pays in training and is worse by the measure it is not trained on."
    fix = ROLLBACK.format(step=fallen.step) + ", then mend the training reward or raise the KL's weight."
    return Alert("held_out_falls", "alarm", view.now.step, what, cause, fix, "", _evidence(fallen), _worst(view))


def _both(view: View, fallen: Relation) -> Alert:
    what = (
        f"The held-out reward fell by {with_bounds(fallen.held_out, view.level)} since step {fallen.step}, and the "
        f"training reward with it, by {with_bounds(fallen.proxy, LENIENT)}."
    )
    cause = "Training has become unstable; this is not reward hacking."
    fix = "Lower optimizer.lr, or take the model of step " + f"{fallen.step}."
    return Alert("both_fall", "warning", view.now.step, what, cause, fix, "", _evidence(fallen), _worst(view))


def _evidence(found: Relation) -> dict[str, float]:
    changes = {"proxy": found.proxy, "held_out": found.held_out}
    out = {f"{name}/{end}": float(getattr(c, end)) for name, c in changes.items() for end in ("value", "low", "high")}
    finite = {name: value for name, value in out.items() if np.isfinite(value)}
    return {"since_step": float(found.step), **finite, "n": float(found.held_out.n)}


def _worst(view: View) -> tuple[Example, ...]:
    """The answers that the proxy ranks highest above where the held-out reward ranks them."""
    now = view.now
    rows = [(i, j, s) for i, row in enumerate(now.samples) for j, s in enumerate(row) if s.held_out is not None]
    if not rows:
        return ()
    by_proxy = ranks([0.0 if s.proxy is None else s.proxy for *_, s in rows])
    by_held_out = ranks([float(s.held_out or 0.0) for *_, s in rows])
    gap = by_proxy - by_held_out
    return examples(now, {(i, j): float(g) for (i, j, _), g in zip(rows, gap, strict=True)})
