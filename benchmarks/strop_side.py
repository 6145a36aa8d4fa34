"""Our side: strop's own loop, one optimizer step a command.

    python benchmarks/strop_side.py CELL FOLDER COLUMN STEPS

A step is collecting (in RL: sampling, scoring), annotating (credit, KTO's baseline, PPO's values),
packing, forward, backward and optimizer, as `strop.train.loop.train` runs them and put together as
the stages of a recipe do. Reference log-probs of fixed data are taken before the first step, as
there and as by TRL at its best. COLUMN is not used: what we do does not depend on what we are held
against.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from agreement import NAMES
from cells import PPO_EPOCHS, Cell, Row, cell_named, desirable, num_tokens, reward, rows
from models import scorer_folder, word
from strop.credit import GroupRelative
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.source import Collected, Fixed, Source
from strop.model.forward import LanguageModel, Model
from strop.model.head import ScalarModel, load_scalar
from strop.model.load import load, load_tokenizer
from strop.objectives import DPO, GRPO, KTO, ORPO, PPO, SFT, BradleyTerry, ClippedValue, Objective, SimPO
from strop.recipes.stages.common import micro_batch_tokens
from strop.rewards import score as scored_by
from strop.rewards.model import RewardModel
from strop.rollout.rollouts import Rollouts, Score
from strop.rollout.sampler import Sampled, sample
from strop.rollout.select import Credited, Scored, Select
from strop.token_credit import GAE
from strop.train.annotate import Reference
from strop.train.control import FixedKL, KLControl
from strop.train.crediting import PPOCredit, Values
from strop.train.kl_baseline import KLBaseline, mismatched, numbered
from strop.train.learner import Learner
from strop.train.loop import Annotate, Packing, Passes, Update, train
from strop.train.memory import keep_freed_pages
from strop.train.optim import AdamW, Constant
from strop.types import Completion, Group
from worker import Channel

OBJECTIVES: dict[str, Objective] = {
    "DPO": DPO(),
    "ORPO": ORPO(),
    "SimPO": SimPO(gamma=0.5),
    "RM": BradleyTerry(label_smoothing=0.0, center_rewards_coefficient=0.0),
    "KTO": KTO(),
    "KTO unpaired": KTO(),
    "GRPO": GRPO(),
    "PPO": PPO(),
    "SFT": SFT(),
}
"""Each with the settings that TRL's trainer of the same name has in these cells."""


def main(cell: Cell, folder: str, num_steps: int) -> None:
    """Builds the loop as a recipe's stage does, and takes one step of it for every command."""
    channel = Channel()
    keep_freed_pages()
    data = [rows(cell, step) for step in range(num_steps)]
    updates = BUILD.get(cell.kind, fixed)(cell, folder, data)
    first: dict[str, float] = {}

    def step() -> dict[str, Any]:
        update = next(updates)
        if update.step == 0:
            first.update({name: number for name, number in update.metrics.items() if name in NAMES})
        tokens, sampling_s = num_tokens(cell, data[update.step]), update.seconds.get("sampling", 0.0)
        return {"tokens": tokens, "rollout_s": sampling_s, "first": first}

    channel.serve(step)


# Fixed rows.


def fixed(cell: Cell, folder: str, data: Sequence[Sequence[Row]]) -> Iterator[Update]:
    """SFT and the preference methods."""
    model = load(folder, trainable=True)
    groups = encoded(cell, data)
    if "ref_logprobs" in OBJECTIVES[cell.kind].needs:
        groups = reference_of(model)(groups)
    return loop(cell, [learner(cell, model, len(data))], Fixed(groups, cell.groups, 0, shuffle=False), len(data))


def kto(cell: Cell, folder: str, data: Sequence[Sequence[Row]]) -> Iterator[Update]:
    """KTO: the reference of each row, and of each prompt with another row's completions."""
    model = load(folder, trainable=True)
    groups = encoded(cell, data)
    reference = reference_of(model)
    others = mismatched(groups, max_length=cell.prompt + cell.response, seed=0)
    drift = dict(enumerate(reference(others)))
    baseline = KLBaseline(model, drift, micro_batch_tokens(model.device), model.device)
    source = Fixed(reference(numbered(groups)), cell.groups, 0, shuffle=False)
    return loop(cell, [learner(cell, model, len(data))], source, len(data), annotations=(baseline,))


def reward_model(cell: Cell, folder: str, data: Sequence[Sequence[Row]]) -> Iterator[Update]:
    """A reward model, from the random head that both sides load."""
    model = load_scalar(str(scorer_folder(folder)), reads="last", trainable=True)
    source = Fixed(encoded(cell, data), cell.groups, 0, shuffle=False)
    return loop(cell, [learner(cell, model, len(data))], source, len(data))


def encoded(cell: Cell, data: Sequence[Sequence[Row]]) -> Sequence[EncodedGroup]:
    """The rows' token ids as the packer takes them, with KTO's labels."""

    def sequence(ids: tuple[int, ...], number: int, place: int) -> EncodedSequence:
        labels = {"labels": float(desirable(cell, number, place))} if OBJECTIVES[cell.kind].needs >= {"labels"} else {}
        return EncodedSequence(ids, (True,) * len(ids), labels)

    return [
        EncodedGroup(row.prompt, tuple(sequence(ids, number, place) for place, ids in enumerate(row.completions)))
        for batch in data
        for number, row in enumerate(batch)
    ]


# Sampled completions.


def grpo(cell: Cell, folder: str, data: Sequence[Sequence[Row]]) -> Iterator[Update]:
    """GRPO on the cell's prompts."""
    model = load(folder, trainable=True)
    source = sampled(cell, folder, data, model, even_share, Credited(GroupRelative()))
    return loop(cell, [learner(cell, model, len(data))], source, len(data))


def ppo(cell: Cell, folder: str, data: Sequence[Sequence[Row]]) -> Iterator[Update]:
    """PPO with a critic of its own, a reference, and a reward model, as TRL has them."""
    model = load(folder, trainable=True)
    critic = load_scalar(str(scorer_folder(folder)), reads="before", trainable=True)
    judge = RewardModel(path=str(scorer_folder(folder)), normalize=False)
    source = sampled(cell, folder, data, model, partial(scored_by, rewards=(judge,)), Scored())
    credit = PPOCredit(GAE(), KLControl(FixedKL()), reward_clip=None, missing_eos_penalty=0.0)
    values = Values(partial(values_of, critic), micro_batch_tokens(model.device), model.device)
    teacher = learner(cell, critic, len(data) * PPO_EPOCHS, ClippedValue())
    teacher.label = "critic"
    return loop(
        cell,
        [learner(cell, model, len(data) * PPO_EPOCHS), teacher],
        source,
        len(data),
        annotations=(reference_of(load(folder, trainable=True)), values, credit),
        num_passes=PPO_EPOCHS,
    )


def values_of(critic: ScalarModel, batch: Any) -> Any:
    """The critic's values of a batch, [N]."""
    return critic(batch).values


def sampled(
    cell: Cell, folder: str, data: Sequence[Sequence[Row]], model: LanguageModel, score: Score, select: Select
) -> Source:
    """The steps' prompts, sampled from the policy as it is then, and scored."""
    tokenizer = load_tokenizer(folder)

    def draw(prompts: Sequence[tuple[int, ...]], step: int, first_index: int) -> list[list[Sampled]]:
        return sample(
            model.module, prompts, num_samples=cell.num_completions, max_new_tokens=cell.response, temperature=1.0,
            seed=0, step=step, stop_ids=frozenset({tokenizer.eos_token_id}), first_index=first_index,
        )  # fmt: skip

    def source(step: int) -> Collected:
        prompts = [row.prompt for row in data[step]]
        rollouts = Rollouts(
            [Group(" ".join(map(word, ids))) for ids in prompts], prompts, draw, tokenizer.decode, score, select,
            batch_size=len(prompts), num_generations=cell.num_completions, seed=0,
        )  # fmt: skip
        return rollouts(step)

    return source


def even_share(groups: Sequence[Group]) -> list[Group]:
    """The benchmark's reward on every completion."""

    def scored_one(completion: Completion) -> Completion:
        value = reward(list(completion.token_ids or ()))
        return replace(completion, score=value, rewards={"even": value})

    return [replace(group, completions=tuple(map(scored_one, group.completions))) for group in groups]


# Both.


BUILD = {"RM": reward_model, "KTO": kto, "KTO unpaired": kto, "GRPO": grpo, "PPO": ppo}
"""The kinds that are more than `fixed`."""


def learner(cell: Cell, model: Model, num_updates: int, objective: Objective | None = None) -> Learner:
    """A learner of the cell's objective, or of another."""
    return Learner(model, objective or OBJECTIVES[cell.kind], AdamW(lr=1e-6)(model.module), Constant(), num_updates)


def loop(
    cell: Cell,
    learners: Sequence[Learner],
    source: Source,
    num_steps: int,
    annotations: Sequence[Annotate] = (),
    num_passes: int = 1,
) -> Iterator[Update]:
    """`strop.train.loop.train`, packed as the stages pack."""
    model, reductions = learners[0].model, learners[0].objective.reductions
    splittable = all(reduction.unit != "group" for reduction in reductions)
    packing = Packing(micro_batch_tokens(model.device), model.device, splittable, read_last=cell.kind == "RM")
    return train(learners, source, steps=num_steps, annotations=annotations, packing=packing, passes=Passes(num_passes))


def reference_of(model: LanguageModel) -> Reference:
    """The reference that a model is: for fixed data the policy as it starts."""
    tokens = micro_batch_tokens(model.device)
    return Reference(model, "start", model.precision_name, None, 1.0, tokens, model.device)


if __name__ == "__main__":
    main(cell_named(sys.argv[1]), sys.argv[2], int(sys.argv[4]))
