"""The select stage: which scored answers become rows that are trained on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from strop.evaluate.sampled import as_line
from strop.evaluate.statistics import Measure, measure
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import Loaded, load_groups
from strop.recipes.settings import SelectStage
from strop.recipes.stages.chunks import FILE, bare
from strop.recipes.stages.score import answered
from strop.rollout.choose import kept
from strop.types import Group


def run(stage: SelectStage, context: Context) -> StageResult:
    """Run the stage to its end.

    Raises: ValueError if nothing is left, with the reasons.
    """
    context.phase("loading")
    assert stage.data is not None
    data = answered(load_groups(stage.data, context), context)
    groups = [g for g in data.groups if g.completions]
    began = time.perf_counter()
    rows, refused = kept(groups, stage.keep)
    for reason, count in refused.items():
        context.event("drop", f"{count} {reason}")
    if not rows:
        told = "; ".join(f"{count} {reason}" for reason, count in refused.most_common())
        raise ValueError(f"{stage.name}.keep: nothing is left of {len(groups)} prompts ({told}); keep more")
    with (context.stage_dir / FILE).open("w", encoding="utf-8") as file:
        file.writelines(as_line(bare(row)) for row in rows)
    context.begin({"data": data.said, "kept": _said(rows)})
    context.samples(0, rows[:3])
    return StageResult(
        metrics=select_measures(groups, rows, context.recipe.seed),
        artifacts={"samples": FILE},
        phases={"selecting": time.perf_counter() - began},
        data=_account(data, rows, refused),
    )


def select_measures(groups: Sequence[Group], rows: Sequence[Group], seed: int) -> dict[str, Measure]:
    """The mean score of what is kept, and of all under before/; the share of prompts of which something is kept."""
    scores, before = ([[c.score for c in g.completions] for g in some] for some in (rows, groups))
    origins = {(row.origin, row.prompt) for row in rows}
    share = [[float((g.origin, g.prompt) in origins)] for g in groups]
    figures = {"kept/prompts": measure(share, share=True, seed=seed)}
    if any(value is not None for row in before for value in row):
        figures = {"score": measure(scores, seed=seed), "before/score": measure(before, seed=seed), **figures}
    return figures


def _account(data: Loaded, rows: Sequence[Group], refused: Counter[str]) -> Mapping[str, Any]:
    """The rows' account; what was refused are answers or prompts, as the reasons say."""
    dropped = Counter(data.summary["dropped"]) + refused
    return {**data.summary, "kept": len(rows), "dropped": dict(dropped)}


def _said(rows: Sequence[Group]) -> str:
    sizes = sorted({len(row.completions) for row in rows})
    each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"{len(rows)} rows of {each} {'answer' if sizes == [1] else 'answers'}"
