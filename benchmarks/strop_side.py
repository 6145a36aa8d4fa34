"""Our side: strop's own loop, one optimizer step a command.

    python benchmarks/strop_side.py CELL FOLDER COLUMN STEPS

A step is collecting (in RL: sampling, scoring, credit), annotating, packing, forward, backward
and optimizer, as `strop.train.loop.train` runs them. Reference log-probs of fixed data are taken
before the first step, as a recipe's stage does and as TRL does at its best. COLUMN is not used:
what we do does not depend on what we are held against.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from agreement import NAMES
from cells import Cell, Row, cell_named, num_tokens, reward, rows
from models import scorer_folder
from strop.credit import GroupRelative
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.source import Collected, Fixed, Source
from strop.model.forward import LanguageModel, Model
from strop.model.head import load_scalar
from strop.model.load import load, load_tokenizer
from strop.objectives import DPO, GRPO, ORPO, SFT, BradleyTerry, Objective, SimPO
from strop.recipes.stages.common import micro_batch_tokens
from strop.rollout.rollouts import Rollouts
from strop.rollout.sampler import Sampled, sample
from strop.rollout.select import Credited
from strop.train.annotate import Reference
from strop.train.learner import Learner
from strop.train.loop import Packing, Passes, Update, train
from strop.train.memory import keep_freed_pages
from strop.train.optim import AdamW, Constant
from strop.types import Completion, Group
from worker import Channel

OBJECTIVES: dict[str, Objective] = {
    "DPO": DPO(),
    "ORPO": ORPO(),
    "SimPO": SimPO(gamma=0.5),
    "RM": BradleyTerry(label_smoothing=0.0, center_rewards_coefficient=0.0),
    "GRPO": GRPO(),
    "SFT": SFT(),
}
"""Each with the settings that TRL's trainer of the same name has in these cells."""


def main(cell: Cell, folder: str, num_steps: int) -> None:
    """Builds the loop as a recipe's stage does, and takes one step of it for every command."""
    channel = Channel()
    keep_freed_pages()
    data = [rows(cell, step) for step in range(num_steps)]
    updates = sampling(cell, folder, data) if cell.samples else fixed(cell, folder, data)
    first: dict[str, float] = {}

    def step() -> dict[str, Any]:
        update = next(updates)
        if update.step == 0:
            first.update({name: number for name, number in update.metrics.items() if name in NAMES})
        tokens, sampling_s = num_tokens(cell, data[update.step]), update.seconds.get("sampling", 0.0)
        return {"tokens": tokens, "rollout_s": sampling_s, "first": first}

    channel.serve(step)


def fixed(cell: Cell, folder: str, data: Sequence[Sequence[Row]]) -> Iterator[Update]:
    """The loop over rows that are there from the start."""
    model: Model
    groups: Sequence[EncodedGroup] = [encoded(row) for batch in data for row in batch]
    if cell.kind == "RM":
        model = load_scalar(str(scorer_folder(folder)), reads="last", trainable=True)
    else:
        model = language_model = load(folder, trainable=True)
        if "ref_logprobs" in OBJECTIVES[cell.kind].needs:
            groups = with_reference(language_model, groups)
    return loop(cell, model, Fixed(groups, cell.groups, 0, shuffle=False), len(data))


def sampling(cell: Cell, folder: str, data: Sequence[Sequence[Row]]) -> Iterator[Update]:
    """The loop over completions that the policy samples."""
    model = load(folder, trainable=True)
    return loop(cell, model, sampled(cell, data, model.module, load_tokenizer(folder)), len(data))


def loop(cell: Cell, model: Model, source: Source, num_steps: int) -> Iterator[Update]:
    """`strop.train.loop.train` with one learner, packed as the stages pack."""
    objective = OBJECTIVES[cell.kind]
    splittable = all(reduction.unit != "group" for reduction in objective.reductions)
    return train(
        [Learner(model, objective, AdamW(lr=1e-6)(model.module), Constant(), num_steps)],
        source,
        steps=num_steps,
        packing=Packing(micro_batch_tokens(model.device), model.device, splittable, read_last=cell.kind == "RM"),
        passes=Passes(),
    )


def encoded(row: Row) -> EncodedGroup:
    """A row's token ids as the packer takes them."""
    return EncodedGroup(row.prompt, tuple(EncodedSequence(ids, (True,) * len(ids)) for ids in row.completions))


def with_reference(model: LanguageModel, groups: Sequence[EncodedGroup]) -> Sequence[EncodedGroup]:
    """The groups with the reference's log-probs, taken before step 0 from the policy as it starts."""
    reference = Reference(
        model, "start", model.precision_name, None, 1.0, micro_batch_tokens(model.device), model.device
    )
    return reference(groups)


def sampled(cell: Cell, data: Sequence[Sequence[Row]], module: Any, tokenizer: Any) -> Source:
    """The steps' prompts, sampled from the policy as it is then, scored and given credit."""

    def draw(prompts: Sequence[tuple[int, ...]], step: int, first_index: int) -> list[list[Sampled]]:
        return sample(
            module, prompts, num_samples=cell.num_completions, max_new_tokens=cell.response, temperature=1.0,
            seed=0, step=step, stop_ids=frozenset({tokenizer.eos_token_id}), first_index=first_index,
        )  # fmt: skip

    def source(step: int) -> Collected:
        prompts = [row.prompt for row in data[step]]
        rollouts = Rollouts(
            [Group("")] * len(prompts), prompts, draw, tokenizer.decode, score, Credited(GroupRelative()),
            batch_size=len(prompts), num_generations=cell.num_completions, seed=0,
        )  # fmt: skip
        return rollouts(step)

    return source


def score(groups: Sequence[Group]) -> list[Group]:
    """The benchmark's reward on every completion."""

    def scored(completion: Completion) -> Completion:
        value = reward(list(completion.token_ids or ()))
        return replace(completion, score=value, rewards={"even": value})

    return [replace(group, completions=tuple(map(scored, group.completions))) for group in groups]


if __name__ == "__main__":
    main(cell_named(sys.argv[1]), sys.argv[2], int(sys.argv[4]))
