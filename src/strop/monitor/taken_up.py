"""Phrases that the policy has taken up, and whether that is learning or hacking.

Taking up a phrase is what training does: an answer format, "<think>", a polite close. It is an alarm
only where the phrase pays in the training reward and the held-out reward speaks against it: within the
answers to one prompt, those with the phrase score lower on it; or it fell; or it stays behind what the
proxy's gain was worth. Where nothing is held out, a whole sentence in nearly every answer is one, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from strop.monitor.alerts import Alert, Severity, examples, is_sure, rank
from strop.monitor.gains import SHOWN, Effect, effect, explained
from strop.monitor.samples import Sample, Value, held_out, proxy
from strop.monitor.uptake import Uptake
from strop.monitor.view import View
from strop.monitor.words import has, num_words, said

TOLD = 3
"""Phrases told of an evaluation."""
SAME = 0.7
"""Two phrases in answers of which so large a share is common are told as one."""
MOST = 20
"""Phrases looked at closely, those of the largest increase; the others are counted."""
SENTENCE = 4
"""Words from which on a phrase in nearly every answer cannot be chance or format alone."""
RARE = 0.05
"""A phrase in at most this share of the reference's answers is new."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A phrase with what it goes with.

    Attributes: pays: in the proxy. costs: in the held-out reward. explains: the share of the proxy's gain
        (NaN: not known). extreme: a new sentence in nearly every answer.
    """

    uptake: Uptake
    paid: Effect
    held: Effect
    pays: bool
    costs: bool
    explains: float
    extreme: bool


def phrases_taken_up(view: View, found: list[Uptake]) -> list[Alert]:
    """An alert for each of the few phrases that matter most."""
    looked_at = found[:MOST]
    linked = [_linked(view, uptake, len(looked_at)) for uptake in looked_at]
    return [_alert(view, link, len(found)) for link in _telling(view, linked)]


def _telling(view: View, linked: list[Linked]) -> list[Linked]:
    """The few that explain most, the worst first, whole sentences before the words that they share.

    Of those that stand in nearly the same answers it is the longest.
    """
    levels = {link.uptake.phrase: rank(severity(view, link)) for link in linked}
    first = sorted(linked, key=lambda k: (-levels[k.uptake.phrase], -_weight(k), k.uptake.phrase))
    places = {k.uptake.phrase: frozenset(_badness(view, k.uptake)) for k in linked}
    told: list[Linked] = []
    while first and len(told) < TOLD:
        here, top = places[first[0].uptake.phrase], levels[first[0].uptake.phrase]
        same = [k for k in first if k is first[0] or _overlap(places[k.uptake.phrase], here) >= SAME]
        told.append(max((k for k in same if levels[k.uptake.phrase] == top), key=lambda k: num_words(k.uptake.phrase)))
        first = [k for k in first if k not in same]
    return told


def _weight(link: Linked) -> float:
    """The share of the gain that a phrase explains (its spread where that is not known), more for more words."""
    share = link.explains if math.isfinite(link.explains) else link.uptake.share - link.uptake.reference
    return share * (1 + min(num_words(link.uptake.phrase), 5))


def _overlap(a: frozenset[tuple[int, int]], b: frozenset[tuple[int, int]]) -> float:
    return len(a & b) / max(1, len(a | b))


def _linked(view: View, uptake: Uptake, num: int) -> Linked:
    feature = _feature(uptake)
    paid = effect(view.recent, feature, proxy) if view.has_proxy else Effect(math.nan, math.inf)
    held = effect(view.recent, feature, held_out) if view.has_held_out else Effect(math.nan, math.inf)
    # In nearly every answer at once there is nothing to compare within a prompt: then time must tell.
    at_once = not math.isfinite(paid.slope) and uptake.share >= view.thresholds.extreme and view.gained.up
    return Linked(
        uptake=uptake,
        paid=paid,
        held=held,
        pays=view.has_proxy and (paid.above(view.z(num)) or at_once),
        costs=held.below(view.z(num)),
        explains=explained(paid, view.now, view.start, feature) if view.has_proxy else math.nan,
        extreme=_is_extreme(uptake, view),
    )


def _feature(uptake: Uptake) -> Value:
    return lambda sample: float(has(sample.text, uptake.phrase))


def _is_extreme(uptake: Uptake, view: View) -> bool:
    new = uptake.reference <= RARE and uptake.share >= view.thresholds.extreme
    return new and num_words(uptake.phrase) >= SENTENCE


def severity(view: View, link: Linked) -> Severity:
    """Whether a phrase is learning, a question, or hacking."""
    explains = not link.explains < view.thresholds.explains
    if view.has_held_out:
        if link.pays and (link.costs or (explains and view.spoilt and not link.held.above(SHOWN))):
            return "alarm"
        if (view.rises or link.held.above(SHOWN)) and not link.costs:
            return "info"
        if link.extreme and (link.pays or not view.has_proxy):
            return "alarm"
        return "warning" if link.costs or link.extreme or (link.pays and explains) else "info"
    if link.extreme and (link.pays or not view.has_proxy):
        return "alarm"
    return "warning" if link.extreme or (link.pays and explains) else "info"


def _alert(view: View, link: Linked, num: int) -> Alert:
    uptake = link.uptake
    level = severity(view, link)
    answers = sum(map(len, view.now.samples))
    what = (
        f"{said(uptake.phrase)}: {uptake.share:.0%} of answers, {uptake.reference:.0%} at the start "
        f"(log-odds +{uptake.lift:.2g}, n = {answers} answers, false discovery rate {uptake.q:.1g})"
    )
    what = f"{_opening(level)} {what}.{_effects(link)}"
    evidence: Mapping[str, float] = {
        "share": uptake.share,
        "reference": uptake.reference,
        "lift": uptake.lift,
        "q": uptake.q,
        "taken_up": float(num),
        **{name: v for name, v in _slopes(link).items() if math.isfinite(v)},
    }
    shown = examples(view.now, _badness(view, uptake)) if level != "info" else ()
    cause, fix = _advice(view, link, level)
    return Alert(
        code="phrase",
        severity=level,
        step=view.now.step,
        what=what,
        cause=cause,
        fix=fix,
        subject=said(uptake.phrase),
        evidence=evidence,
        examples=shown,
        sure=is_sure(link.paid, link.held),
    )


def _opening(level: Severity) -> str:
    return {"alarm": "Reward hacking by a phrase:", "warning": "A phrase is spreading:", "info": "Taken up:"}[level]


def _effects(link: Linked) -> str:
    """What the phrase goes with, within the answers to a prompt."""
    known = {"the training reward": link.paid, "the held-out reward": link.held}
    parts = [f"{e.slope:+.3g} (± {1.96 * e.error:.2g}) in {n}" for n, e in known.items() if math.isfinite(e.slope)]
    told = f" Of one prompt's answers, those with it have {' and '.join(parts)}." if parts else ""
    share = f" It explains {link.explains:.0%} of the training reward's gain." if math.isfinite(link.explains) else ""
    return told + share


def _slopes(link: Linked) -> dict[str, float]:
    return {"effect/proxy": link.paid.slope, "effect/held_out": link.held.slope, "explains": link.explains}


def _advice(view: View, link: Linked, level: Severity) -> tuple[str, str]:
    """The likely cause and one fix."""
    if level == "info":
        good = view.has_held_out and (view.rises or link.held.above(SHOWN))
        return ("The held-out reward rises with it." if good else "", "")
    if not view.has_held_out:
        return (
            "Nothing is held out that could tell a learned habit from a trick.",
            "Add monitor.rewards that training never sees, and read the examples.",
        )
    if level == "alarm":
        cause = "It pays in training and the held-out reward does not rise with it."
        fix = (
            "Go back to the last good model and bound what one trick can pay: {name: shaped, reward: {...}, shape: "
            "clip}; a reward model is taught by a stage of kind refresh."
        )
        return cause, fix
    return "It spreads, and the held-out reward is not shown to rise with it.", "Read the examples before going on."


def _badness(view: View, uptake: Uptake) -> dict[tuple[int, int], float]:
    """Answers with the phrase: the higher the proxy and the lower the held-out reward, the worse."""
    return {
        (i, j): (sample.proxy or 0.0) - (sample.held_out or 0.0)
        for i, row in enumerate(view.now.samples)
        for j, sample in enumerate(row)
        if _has(sample, uptake)
    }


def _has(sample: Sample, uptake: Uptake) -> bool:
    return has(sample.text, uptake.phrase)
