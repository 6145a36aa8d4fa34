"""A plan for a terminal, and as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strop.recipes.planning.counts import Counts
from strop.recipes.planning.fits import Verdict
from strop.recipes.planning.place import GIB, MIB
from strop.recipes.planning.plan import StagePlan
from strop.recipes.validate import size
from strop.recipes.words import duration

WORDS = {
    "process": "process (interpreter, torch, libraries)",
    "allocator": "allocator (freed blocks that nothing fits)",
    "kv cache": "keys, values and logits while sampling",
    "logits": "logits",
}


def as_text(plans: Sequence[StagePlan]) -> str:
    """Stage by stage: the model, what is held at the fullest moment, time, and where it fits."""
    lines: list[str] = []
    for plan in plans:
        lines += ["", *_stage(plan)]
    if len(plans) > 1:
        largest = max(plans, key=lambda p: p.peak.total)
        lines += ["", f"the fullest stage is {largest.name}: {size(largest.peak.total)}"]
        times = [t for plan in plans if plan.time is not None and (t := plan.time.stage) is not None]
        if times:
            lines.append(f"{len(times)} of {len(plans)} stages, whose time is known, take about {duration(sum(times))}")
    return "\n".join(lines[1:]) + "\n"


def _stage(plan: StagePlan) -> list[str]:
    start = f" from {plan.model}" if plan.model is not None else ""
    lines = [f"{plan.name} ({plan.kind}){start}"]
    if plan.counts is not None:
        lines.append(f"  model   {_model(plan.counts)}")
    if plan.load is not None:
        load = plan.load
        lines.append(
            f"  step    {load.step_tokens:,.0f} tokens in {load.micro_batches} micro-batches of at most "
            f"{load.tokens:,}; {load.steps or 'unknown'} steps"
        )
    lines += [f"  note    {note}" for note in plan.notes]
    lines.append(f"  memory  {size(plan.peak.total)} at most, in {plan.peak.name}:")
    parts = sorted(plan.peak.parts.items(), key=lambda part: -part[1])
    lines += [f"          {size(amount):>9}  {WORDS.get(name, name)}" for name, amount in parts if amount >= MIB / 2]
    lines += _time(plan)
    return lines + [f"  {line}" for verdict in plan.verdicts for line in _verdict(verdict)]


def _model(counts: Counts) -> str:
    tied = "" if counts.head else ", embedding tied to the head"
    active = "" if counts.active >= 0.9 * counts.matrices else f", {counts.active:,} a token in its layers"
    return f"{counts.parameters:,} parameters: {counts.layers} layers of {counts.width}{active}{tied}"


def _time(plan: StagePlan) -> list[str]:
    if plan.time is None:
        work, each = sum(plan.flops.values()), "a step" if plan.load is not None else "at most"
        return [f"  work    {work:.2g} operations {each}"] if work else []
    if not plan.time.step:
        assert plan.time.stage is not None
        return [f"  time    {duration(plan.time.stage)} at most, {plan.time.said}"]
    by_phase = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in plan.time.step.items())
    total = sum(plan.time.step.values())
    whole = "" if plan.time.stage is None else f", {duration(plan.time.stage)} in all"
    return [f"  time    {total:.3g} s a step ({by_phase}){whole}, {plan.time.said}"]


def _verdict(verdict: Verdict) -> list[str]:
    begin = f"{verdict.cards!s:>9}  "
    if verdict.fits:
        more = "; strop run takes one of them" if verdict.cards.num > 1 else ""
        return [f"{begin}fits: {size(verdict.needed)} a card{more}"]
    said = f"{begin}does not fit: {size(verdict.needed)} a card"
    if verdict.changes and verdict.would_fit:
        first, *rest = verdict.changes
        then = f", then {', '.join(rest)}" if rest else ""
        lines = [f"{said}; first set {first}{then}: {size(verdict.after)}"]
    else:
        lines = [f"{said}; no setting helps enough: take a smaller model"]
    if verdict.cards.num > 1 and verdict.sharded <= verdict.cards.gib * GIB:
        lines.append(f"{'':9}  (an engine that shards states would need {size(verdict.sharded)} a card)")
    return lines


def to_json(plans: Sequence[StagePlan]) -> list[dict[str, Any]]:
    """Plain values; bytes, seconds, operations."""
    return [_plain(plan) for plan in plans]


def _plain(plan: StagePlan) -> dict[str, Any]:
    counts, load, time = plan.counts, plan.load, plan.time
    return {
        "name": plan.name,
        "kind": plan.kind,
        "model": plan.model,
        "parameters": None if counts is None else counts.parameters,
        "exact": None if counts is None else counts.exact,
        "steps": None if load is None else load.steps,
        "step_tokens": None if load is None else load.step_tokens,
        "micro_batch_tokens": None if load is None else load.tokens,
        "micro_batches": None if load is None else load.micro_batches,
        "peak_memory_mb": plan.peak.total / MIB,
        "peak_phase": plan.peak.name,
        "bytes": dict(plan.peak.parts),
        "phases": {phase.name: phase.total for phase in sorted(plan.phases, key=lambda p: p.total)},
        "measured_peak_bytes": plan.measured,
        "flops_a_step": dict(plan.flops),
        "seconds_a_step": None if time is None else dict(time.step),
        "seconds": None if time is None else time.stage,
        "cards": [_card(verdict) for verdict in plan.verdicts],
        "notes": list(plan.notes),
    }


def _card(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "gb": verdict.cards.gib,
        "cards": verdict.cards.num,
        "fits": verdict.fits,
        "bytes_a_card": verdict.needed,
        "sharded_bytes_a_card": verdict.sharded,
        "first": verdict.changes[0] if verdict.changes else None,
        "changes": list(verdict.changes),
        "fits_with_changes": verdict.would_fit,
        "bytes_with_changes": verdict.after,
    }
