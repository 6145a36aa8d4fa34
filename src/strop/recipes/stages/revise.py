"""The revise stage: answers criticised and revised by principles, written chunk by chunk, every depth kept.

Everything is written to revisions.jsonl, a line a prompt, as it comes; a stage that was stopped goes
on behind the last whole chunk. The files that are trained on are made of that one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from strop.evaluate.sampled import as_line
from strop.evaluate.statistics import Measure, measure
from strop.judges import Backend
from strop.judges.inprocess import InProcess
from strop.recipes.constitution import load_constitution
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import Loaded, load_groups
from strop.recipes.settings import ReviseStage
from strop.recipes.stages.chunks import FILE, bare, in_chunks
from strop.recipes.stages.labelled import CAPPED, counted_by
from strop.recipes.stages.score import answered
from strop.rollout.revise import Revising, fault_of, revised_group
from strop.types import Group

REVISIONS = "revisions.jsonl"
KEY = "revisions"
"""The column of that file's rows that holds each answer's chain."""
FEW = 8
"""A critic that answers none of so many in a row has failed; its silence is not written down."""


def run(stage: ReviseStage, context: Context) -> StageResult:
    """Run the stage to its end.

    Raises: ValueError if no revision is left, with the reasons, or if the critic answers nothing at all.
    """
    context.phase("loading")
    assert stage.data is not None
    data = answered(load_groups(stage.data, context), context)
    groups = [group for group in data.groups if group.completions]
    constitution = load_constitution(stage.constitution)
    revising = Revising(
        ask=critic_of(stage, context),
        principles=constitution.principles,
        depth=stage.depth,
        critique=stage.critique,
        temperature=stage.temperature,
        max_tokens=stage.max_tokens,
        seed=context.seed,
    )
    told = f"{constitution.name}, {len(constitution.principles)} principles"
    context.begin({"data": data.said, "critic": critic_name(stage, context), "constitution": told})

    def work(chunk: Sequence[Group], first: int) -> tuple[list[Group], dict[str, float]]:
        chains = revising(chunk, first)
        made = [replace(g, row={**g.row, KEY: row}) for g, row in zip(chunk, chains, strict=True)]
        _check_answered(stage, made, whole=len(chunk) == len(groups))
        return made, {"revise/changed": _changed(made, stage.depth)}

    context.phase("revising")
    began = time.perf_counter()
    done = in_chunks(groups, stage.save_every, work, context, REVISIONS)
    seconds = time.perf_counter() - began
    keep = stage.keep or stage.depth
    by_depth = [rows_of_depth(done, depth, stage) for depth in range(1, stage.depth + 1)]
    rows, refused = by_depth[keep - 1]
    for reason, count in refused.items():
        context.event("drop", f"{count} x {reason}")
    if not rows:
        why = "; ".join(f"{count} x {reason}" for reason, count in refused.most_common(3))
        raise ValueError(f"{stage.name}: no revision is left of {len(done)} prompts ({why})")
    for depth, (found, _) in enumerate(by_depth, 1):
        _write(found, context, f"depth-{depth}.jsonl")
    _write(rows, context, FILE)
    context.samples(0, rows[:3])
    return StageResult(
        metrics=revise_measures(done, by_depth, context.recipe.seed),
        artifacts={"samples": FILE},
        phases={"revising": seconds},
        data=_account(data, rows, refused),
    )


def critic_of(stage: ReviseStage, context: Context) -> Backend:
    """The critic that is named, or the stage's model."""
    return stage.critic or InProcess(path=context.model, device=context.recipe.device)


def critic_name(stage: ReviseStage, context: Context) -> str:
    """Who criticises, in words."""
    if stage.critic is None:
        return f"{context.model} itself"
    known = [getattr(stage.critic, key, None) for key in ("model", "path", "function")]
    return f"{stage.critic.name}, {next((k for k in known if k), '')}".rstrip(", ")


def rows_of_depth(done: Sequence[Group], depth: int, stage: ReviseStage) -> tuple[list[Group], Counter[str]]:
    """The revisions at a depth as rows to train on, and how many answers were refused, by reason."""
    rows, refused = [], Counter[str]()
    for group in done:
        bared = replace(group, row={key: value for key, value in group.row.items() if key != KEY})
        for completion, chain in zip(group.completions, group.row[KEY], strict=True):
            fault = fault_of(chain, completion.text, depth, _no_refusal(group, stage))
            if fault:
                refused[counted_by(fault)] += 1
            else:
                rows.append(revised_group(bared, completion, chain, depth))
    return rows, refused


def _no_refusal(group: Group, stage: ReviseStage) -> str:
    """Why a refusal of this prompt would be of no use; empty where it may be right."""
    if stage.refusals == "drop":
        return "revisions that refuse"
    benign = stage.refusals == "drop_benign" and bool(group.row.get(stage.benign))
    return "revisions that refuse a harmless prompt" if benign else ""


def _check_answered(stage: ReviseStage, made: Sequence[Group], *, whole: bool) -> None:
    """Raises ValueError if the critic's cap is reached, or it answers none of many, before that is written down."""
    chains = [chain for group in made for chain in group.row[KEY]]
    failed = [str(record["failed"]) for chain in chains for record in chain if "failed" in record]
    capped = next((reason for reason in failed if CAPPED in reason), None)
    none = bool(failed) and len(failed) == len(chains) and (len(chains) >= FEW or whole)
    if capped or none:
        raise ValueError(
            f"{stage.name}.critic: it left {len(failed)} of {len(chains)} answers without a revision: "
            f"{capped or failed[0]}; mend that and start the run again, which goes on from here"
        )


def revise_measures(
    done: Sequence[Group], by_depth: Sequence[tuple[Sequence[Group], Counter[str]]], seed: int
) -> dict[str, Measure]:
    """How many answers each depth has a revision of, and the words before and after."""
    before = [[float(len(c.text.split())) for c in group.completions] for group in done]
    figures = {"before/words": measure(before, share=False, seed=seed)}
    for depth, (rows, _) in enumerate(by_depth, 1):
        origins = Counter((row.origin, row.prompt) for row in rows)
        kept = [[float(i < origins[g.origin, g.prompt]) for i in range(len(g.completions))] for g in done]
        figures[f"depth_{depth}/kept"] = measure(kept, share=True, seed=seed)
        words = [[float(len(row.completions[0].text.split()))] for row in rows]
        figures[f"depth_{depth}/words"] = measure(words, share=False, seed=seed)
    return figures


def _changed(made: Sequence[Group], depth: int) -> float:
    """The share of answers whose last revision has other words."""
    pairs = [(c.text, chain) for g in made for c, chain in zip(g.completions, g.row[KEY], strict=True)]
    changed = [
        len(chain) == depth and str(chain[-1].get("text", text)).split() != text.split() for text, chain in pairs
    ]
    return sum(changed) / len(pairs)


def _write(rows: Sequence[Group], context: Context, name: str) -> None:
    with (context.stage_dir / name).open("w", encoding="utf-8") as file:
        file.writelines(as_line(bare(row)) for row in rows)


def _account(data: Loaded, rows: Sequence[Group], refused: Counter[str]) -> dict[str, Any]:
    """The rows' account; what was refused are answers, as the reasons say."""
    return {**data.summary, "kept": len(rows), "dropped": dict(Counter(data.summary["dropped"]) + refused)}
