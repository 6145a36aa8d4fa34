"""What a stage's steps hold: rows as tokens, packed as the stage packs them. Imports torch.

The rows are the stage's own where they can be read and written as tokens; the first ones stand for all. Where an
earlier stage is to make them, or no file is named, rows of the largest allowed length stand in, and it is said.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from strop.batch import Batch, Step
from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.formats import load_dataset
from strop.data.mixed import load_prompts
from strop.data.pack import pack
from strop.data.source import rows
from strop.data.templates import give_template
from strop.model.load import load_tokenizer
from strop.recipes import artifacts, validate
from strop.recipes.arithmetic import num_held_out, num_steps
from strop.recipes.settings import (
    Data,
    OnlineStage,
    OnPolicyStage,
    PPOStage,
    Recipe,
    RLStage,
    Stage,
    TrainingStage,
)
from strop.types import Group

MOST_ROWS = 512
"""Rows that are read as tokens."""
MOST_STEPS = 16
"""Steps that are packed to see what they hold."""
ENOUGH = 1 << 20
"""Packed tokens after which no further step is looked at."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the steps of a training stage hold.

    Attributes:
        tokens, read: packed tokens of the fullest micro-batch, and positions of it whose last hidden state is read.
            Of several one counts as full, though rows may leave room: with other rows it is, and so more rows,
            longer ones or larger groups never seem to take less.
        later, later_read: the same of the fullest that is no step's first, and finds gradients there; 0 for none.
        micro_batches: of a step, at most. steps: of the stage; None where its rows are not known.
        step_tokens, step_read, step_attended: of a step on average: packed tokens, positions read, and pairs of
            tokens that attend to each other.
        prompt, completion: tokens of the longest. sampled: completions that a step draws.
        said: where the numbers come from.
    """

    tokens: int
    read: int
    later: int
    later_read: int
    micro_batches: int
    steps: int | None
    step_tokens: float
    step_read: float
    step_attended: float
    prompt: int
    completion: int
    sampled: int
    said: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Some groups as tokens, how many there are in all, and where they come from."""

    groups: Sequence[EncodedGroup]
    count: int
    said: str


@dataclass(slots=True)
class Reader:
    """Reads the data of a recipe's stages, each file once.

    Attributes: world: where the embedded world is written. groups, tokens, loads: what is known so far, by what was
        asked.
    """

    recipe: Recipe
    world: Path
    groups: dict[str, Sequence[Group]] = field(default_factory=dict)
    tokens: dict[str, Rows] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)

    def rows(self, stage: Stage, data: Data | None, folder: Path | None, max_length: int) -> Rows:
        """The rows of a data setting, or a stand-in of the largest length that is allowed.

        Raises: ValueError if a file that is named cannot be read.
        """
        key = f"{stage.kind} {data} {folder} {max_length}"
        if key not in self.tokens:
            self.tokens[key] = self._rows(stage, data, folder, max_length)
        return self.tokens[key]

    def load(self, stage: TrainingStage, folder: Path | None, budget: int, *, scalar: bool) -> Load:
        """What the stage's steps hold; see `load_of`."""
        training = replace(stage.training, gradient_checkpointing=False, micro_batch_tokens=budget)
        same: TrainingStage = replace(stage, adapter=None, training=training)
        if isinstance(same, OnPolicyStage):
            same = replace(same, sampling=replace(same.sampling, rows=None))
        key = str(same)
        if key not in self.loads:
            limit = training.max_length
            if isinstance(stage, OnPolicyStage):
                limit = max(1, limit - stage.sampling.max_completion_length)
            found = self.rows(stage, stage.data, folder, limit)
            seed = artifacts.stage_seed(self.recipe.seed, stage.name)
            self.loads[key] = load_of(stage, found, seed, budget, scalar=scalar)
        return self.loads[key]

    def _rows(self, stage: Stage, data: Data | None, folder: Path | None, max_length: int) -> Rows:
        answers = max(1, stage.answers[0])
        if data is None or any(path.startswith("@") for path in artifacts.paths_of(data)):
            made = () if data is None else (path for path in artifacts.paths_of(data) if path.startswith("@"))
            why = "no data yet" if data is None else f"{', '.join(made)} still to be made"
            return Rows([stand_in(max_length, answers)], 0, f"{why}: reckoned with rows of {max_length} tokens")
        if str(data) not in self.groups:
            read = load_prompts if artifacts.wants_prompts(stage) else load_dataset
            self.groups[str(data)] = validate.load(data, self.world, self.recipe.seed, read).groups
        groups = self.groups[str(data)]
        if folder is None or not (folder / "tokenizer.json").is_file():
            said = f"no tokenizer.json: reckoned with rows of {max_length} tokens"
            return Rows([stand_in(max_length, answers)], len(groups), said)
        found = _encoded(stage, groups[:MOST_ROWS], _chat(self.recipe, data, folder), max_length)
        more = f"the first {MOST_ROWS} of {len(groups)}" if len(groups) > MOST_ROWS else f"{len(groups)}"
        return Rows(found, len(groups), f"lengths are those of {more} rows")


def _chat(recipe: Recipe, data: Data, folder: Path) -> Chat:
    tokenizer = load_tokenizer(str(folder))
    if recipe.template is not None:
        give_template(tokenizer, recipe.template)
    return Chat(tokenizer, data.system)


def _encoded(stage: Stage, groups: Sequence[Group], chat: Chat, max_length: int) -> Sequence[EncodedGroup]:
    """Prompts alone where the stage samples its answers, else whole rows."""
    if not isinstance(stage, TrainingStage) or isinstance(stage, OnPolicyStage):
        prompts = [chat.encode_prompt(group.prompt, group.row) for group in groups]
        return [EncodedGroup(ids[:max_length], ()) for ids in prompts if ids] or [stand_in(max_length, 1)]
    found = [e for e in chat.encode_many(groups, max_length) if isinstance(e, EncodedGroup)]
    return found or [stand_in(max_length, max(1, stage.answers[0]))]


def stand_in(max_length: int, answers: int) -> EncodedGroup:
    """A prompt of half the length, and answers of the other half."""
    half = max(1, max_length // 2)
    draw = random.Random(0)
    return EncodedGroup(
        sequence_of(draw, half).ids, tuple(sequence_of(draw, max(1, max_length - half)) for _ in range(answers))
    )


def sequence_of(draw: random.Random, length: int) -> EncodedSequence:
    """An answer of so many tokens, like no other."""
    start = draw.randrange(1 << 30)
    return EncodedSequence(tuple(range(start, start + length)), (True,) * length)


def load_of(stage: TrainingStage, found: Rows, seed: int, budget: int, *, scalar: bool) -> Load:
    """What the stage's steps hold, from its first ones.

    Args: budget: packed tokens a micro-batch. scalar: a head of one number reads each sequence's last token.
    """
    training, groups = stage.training, found.groups
    steps = training.steps
    if steps is None and found.count:
        steps = num_steps(max(1, found.count - _held_out(stage, found.count)), training)
    parts = stage.minibatches if isinstance(stage, RLStage | PPOStage) else 1
    splittable = all(r.unit != "group" for r in stage.objective.reductions)
    trained: list[list[EncodedGroup]] = []
    packed: list[Step] = []
    seen = 0
    for step in range(min(steps or 1, MOST_STEPS if len(groups) > 1 else 1)):  # of one row all steps are alike
        if seen >= ENOUGH:
            break
        taken = [groups[i] for i in rows(step, num_rows=len(groups), batch_size=training.batch_size, seed=seed)]
        part = taken[: -(-training.batch_size // parts)]
        trained.append(_answered(stage, part, step) if isinstance(stage, OnPolicyStage) else part)
        packed.append(pack(trained[-1], max_tokens=budget, splittable=splittable, read_last=scalar))
        seen += sum(len(batch.input_ids) for batch in packed[-1].batches)
    batches = [batch for step in packed for batch in step.batches]
    totals = [sum(len(batch.input_ids) for batch in step.batches) for step in packed]
    a_step, share = parts / len(packed), _share_read(batches, scalar)
    single = max(len(batch.input_ids) for batch in batches)
    tokens = max(single, min(budget, max(totals)))
    later = max(0, min(tokens, max(totals) - tokens))
    return Load(
        tokens=tokens,
        read=round(share * tokens),
        later=later,
        later_read=round(share * later),
        micro_batches=max(len(step.batches) for step in packed),
        steps=steps,
        step_tokens=a_step * sum(totals),
        step_read=a_step * sum(_read(batch, scalar) for batch in batches),
        step_attended=a_step * sum(_attended(group) for part in trained for group in part),
        prompt=max(len(group.prompt_ids) for group in groups),
        completion=_completion(stage, groups),
        sampled=training.batch_size * generations(stage),
        said=found.said,
    )


def _share_read(batches: Sequence[Batch], scalar: bool) -> float:
    """Positions read of the packed tokens."""
    return sum(_read(batch, scalar) for batch in batches) / max(1, sum(len(batch.input_ids) for batch in batches))


def _held_out(stage: TrainingStage, count: int) -> int:
    if isinstance(stage, OnPolicyStage) or stage.eval_data is not None or not count:
        return 0
    return num_held_out(count, stage.training)


def _read(batch: Batch, scalar: bool) -> int:
    return batch.num_sequences if scalar else batch.num_tokens


def _answered(stage: OnPolicyStage, prompts: Sequence[EncodedGroup], step: int) -> list[EncodedGroup]:
    """Prompts with answers of the largest length, which is what memory must hold."""
    draw = random.Random(step)
    trained = 2 if isinstance(stage, OnlineStage) else stage.num_generations
    length = stage.sampling.max_completion_length
    return [EncodedGroup(g.prompt_ids, tuple(sequence_of(draw, length) for _ in range(trained))) for g in prompts]


def generations(stage: Stage) -> int:
    """Completions that a stage draws for a prompt in a step."""
    return stage.num_generations if isinstance(stage, OnPolicyStage) else 0


def _attended(group: EncodedGroup) -> float:
    """Pairs of tokens that attend to each other in one group: the prompt's, and each answer's with it and itself."""
    prompt = len(group.prompt_ids)
    return prompt**2 / 2 + sum(len(s.ids) * (prompt + len(s.ids) / 2) for s in group.sequences)


def _completion(stage: TrainingStage, groups: Sequence[EncodedGroup]) -> int:
    if isinstance(stage, OnPolicyStage):
        return stage.sampling.max_completion_length
    return max(len(s.ids) for group in groups for s in group.sequences)
