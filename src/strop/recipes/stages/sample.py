"""The sample stage: answers of a model to prompts, written chunk by chunk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from strop.evaluate.statistics import Measure, measure
from strop.recipes.context import Context, StageResult
from strop.recipes.inputs import drawn, load_groups, prompts_of
from strop.recipes.settings import SampleStage
from strop.recipes.stages.chunks import FILE, in_chunks
from strop.recipes.stages.common import num_positions, open_frozen, sampler
from strop.types import Completion, Group


def run(stage: SampleStage, context: Context) -> StageResult:
    """Run the stage to its end."""
    context.phase("loading")
    assert stage.data is not None
    data = load_groups(stage.data, context)
    model, chat = open_frozen(context.model, stage.data, context)
    prompts = prompts_of(data.groups, chat, num_positions(model) - stage.sampling.max_completion_length, context)
    prompts = drawn(prompts, stage.num_prompts, context.seed)
    draw = sampler(model, chat, stage.sampling, context.seed, stage.num_samples)

    def work(groups: Sequence[Group], first: int) -> tuple[list[Group], dict[str, float]]:
        began = time.perf_counter()
        sampled = draw(prompts.ids[first : first + len(groups)], 0, first * stage.num_samples)
        made = [
            replace(
                group, completions=tuple(Completion(chat.decode(s.ids), token_ids=s.ids, finish=s.finish) for s in row)
            )
            for group, row in zip(groups, sampled, strict=True)
        ]
        num_tokens = sum(len(s.ids) for row in sampled for s in row)
        return made, {**_means(made), "tokens_per_s": num_tokens / max(time.perf_counter() - began, 1e-9)}

    context.begin({"model": context.model, "prompts": f"{len(prompts.groups)} x {stage.num_samples} answers"})
    context.phase("sampling")
    began = time.perf_counter()
    groups = in_chunks(prompts.groups, stage.save_every, work, context)
    context.samples(0, groups[:3])
    return StageResult(
        metrics=sample_measures(groups, context.recipe.seed),
        artifacts={"samples": FILE},
        phases={"sampling": time.perf_counter() - began},
        data={**data.without(prompts.dropped).summary, "kept": len(groups)},
    )


def sample_measures(groups: Sequence[Group], seed: int) -> dict[str, Measure]:
    """Lengths in tokens, the share cut by the length limit, and the share of a prompt's answers that differ."""
    lengths = [[float(len(c.token_ids or ())) for c in group.completions] for group in groups]
    cut = [[float(c.finish == "length") for c in group.completions] for group in groups]
    distinct = [[len({c.text for c in group.completions}) / len(group.completions)] for group in groups]
    return {
        "completions/mean_length": measure(lengths, share=False, seed=seed),
        "completions/clipped_ratio": measure(cut, share=True, seed=seed),
        "completions/distinct": measure(distinct, share=True, seed=seed),
    }


def _means(groups: Sequence[Group]) -> dict[str, float]:
    completions = [c for group in groups for c in group.completions]
    return {
        "completions/mean_length": sum(len(c.token_ids or ()) for c in completions) / len(completions),
        "completions/clipped_ratio": sum(c.finish == "length" for c in completions) / len(completions),
    }
