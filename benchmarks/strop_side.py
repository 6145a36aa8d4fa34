"""Our side: strop's own loop, one optimizer step a command.

    python benchmarks/strop_side.py CELL FOLDER COLUMN STEPS

A step is collecting (for GRPO: sampling, scoring, credit), annotating, packing, forward, backward
and optimizer, as `strop.train.loop.train` runs them. Reference log-probs come from a cache that is
filled before the first step, as TRL's are at its best. COLUMN is not used: what we do does not
depend on what we are held against.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cells import NUM_GENERATIONS, Cell, Row, cell_named, num_tokens, reward, rows
from strop.credit import GroupRelative
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.source import Collected, Fixed, Source
from strop.model.load import load, load_tokenizer
from strop.objectives import DPO, GRPO, SFT, Objective
from strop.rollout.rollouts import Rollouts
from strop.rollout.sampler import Sampled, sample
from strop.train.annotate import Reference
from strop.train.learner import Learner
from strop.train.loop import Annotate, Packing, Passes, train
from strop.train.optim import AdamW, Constant
from strop.train.refcache import ReferenceCache
from strop.types import Completion, Group
from worker import Channel, keep_memory

OBJECTIVES: dict[str, Objective] = {"DPO": DPO(), "GRPO": GRPO(), "SFT": SFT()}
MICRO_BATCH_TOKENS = 8_192


def main(cell: Cell, folder: str, num_steps: int) -> None:
    """Builds the loop and takes one step of it for every command."""
    channel = Channel()
    keep_memory()
    model = load(folder, device="cpu", seed=0)
    objective = OBJECTIVES[cell.kind]
    learner = Learner(model, objective, AdamW(lr=1e-6)(model.module), Constant(), num_steps)
    packing = Packing(MICRO_BATCH_TOKENS, "cpu", splittable=cell.kind != "DPO")
    data = [rows(cell, step) for step in range(num_steps)]
    with tempfile.TemporaryDirectory() as scratch:
        source, annotate = given(cell, data), plain
        if cell.kind == "GRPO":
            source = sampled(cell, data, model.module, load_tokenizer(folder))
        if cell.kind == "DPO":
            annotate = cached_reference(model, source, num_steps, Path(scratch))
        steps = train(learner, source, steps=num_steps, annotate=annotate, packing=packing, passes=Passes())

        def step() -> dict[str, Any]:
            update = next(steps)
            return {"tokens": num_tokens(cell, data[update.step]), "rollout_s": update.seconds.get("sampling", 0.0)}

        channel.serve(step)


def given(cell: Cell, data: Sequence[Sequence[Row]]) -> Source:
    """The steps' rows as a fixed dataset, in order."""
    groups = [
        EncodedGroup(row.prompt, tuple(EncodedSequence(ids, (True,) * len(ids)) for ids in row.completions))
        for batch in data
        for row in batch
    ]
    return Fixed(groups, cell.groups, seed=0, shuffle=False)


def sampled(cell: Cell, data: Sequence[Sequence[Row]], module: Any, tokenizer: Any) -> Source:
    """The steps' prompts, sampled from the policy as it is then, scored and given credit."""

    def draw(prompts: Sequence[tuple[int, ...]], step: int, first_index: int) -> list[list[Sampled]]:
        return sample(
            module, prompts, num_samples=NUM_GENERATIONS, max_new_tokens=cell.response, temperature=1.0,
            seed=0, step=step, stop_ids=frozenset({tokenizer.eos_token_id}), first_index=first_index,
        )  # fmt: skip

    def source(step: int) -> Collected:
        prompts = [row.prompt for row in data[step]]
        rollouts = Rollouts(
            [Group("")] * len(prompts), prompts, draw, tokenizer.decode, score, GroupRelative(),
            batch_size=len(prompts), num_generations=NUM_GENERATIONS, seed=0,
        )  # fmt: skip
        return rollouts(step)

    return source


def score(groups: Sequence[Group]) -> list[Group]:
    """The benchmark's reward on every completion."""

    def scored(completion: Completion) -> Completion:
        value = reward(list(completion.token_ids or ()))
        return replace(completion, score=value, rewards={"even": value})

    return [replace(group, completions=tuple(map(scored, group.completions))) for group in groups]


def plain(groups: Sequence[EncodedGroup]) -> Sequence[EncodedGroup]:
    """No annotation."""
    return groups


def cached_reference(model: Any, source: Source, num_steps: int, scratch: Path) -> Annotate:
    """The policy as it starts is the reference; its log-probs of all rows are in the cache when this returns."""
    cache = ReferenceCache(scratch / "reference", "start", print)
    reference = Reference(model, "start", cache, 1.0, MICRO_BATCH_TOKENS, "cpu")
    for step in range(num_steps):
        reference(source(step).groups)
    return reference


if __name__ == "__main__":
    main(cell_named(sys.argv[1]), sys.argv[2], int(sys.argv[4]))
