"""A stage's arithmetic in floating-point operations, by phase, and how long it takes at a measured rate. No torch.

A weight costs 2 operations a token forward and 4 backward (2 where it is frozen under an adapter), 2 more where
activations are made again; a pair of tokens that attend to each other 4 of the queries' width a layer, forward
(Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping

from strop.recipes.kinds.ppo import SHARED
from strop.recipes.methods import asks_before, holds_reference
from strop.recipes.planning.counts import Counts
from strop.recipes.planning.loads import Load
from strop.recipes.planning.memory import KEPT
from strop.recipes.settings import OnPolicyStage, PPOStage, RLStage, TrainingStage


def forward(counts: Counts, tokens: float, read: float, attended: float) -> float:
    """Operations of a forward pass. Args: read: positions of the vocabulary head; attended: pairs of tokens."""
    trunk = 2.0 * counts.active * tokens + 4.0 * counts.layers * counts.query * attended
    return trunk + 2.0 * counts.embedding * read


def step_work(
    stage: TrainingStage, counts: Counts, load: Load, *, scalar: bool, critic: Counts | None = None
) -> dict[str, float]:
    """Operations of one step by phase: sampling, annotating, training.

    Args: scalar: whether the model ends in one number. critic: PPO's own one; None for one like the policy.
    """
    value = forward(critic or counts, load.step_tokens, 0.0, load.step_attended)
    read = 0.0 if scalar else load.step_read
    once = forward(counts, load.step_tokens, read, load.step_attended)
    times = 2.0 if stage.adapter is not None else 3.0
    times += 1.0 if stage.training.gradient_checkpointing else 0.0
    again = 0.0 if read * counts.vocabulary <= KEPT * load.micro_batches else 2.0 * counts.embedding * read
    passes = stage.passes if isinstance(stage, RLStage | PPOStage) else 1
    found = {"training": passes * (times * once + again)}
    if isinstance(stage, PPOStage) and stage.critic != SHARED:
        found["training"] += passes * times * value
    asked = once if holds_reference(stage) else 0.0
    asked += value if isinstance(stage, PPOStage) else 0.0
    if asked:
        found["annotating"] = asked
    if isinstance(stage, OnPolicyStage):
        prompts = load.sampled / stage.num_generations
        found["sampling"] = decoding(counts, prompts, load.sampled, load.prompt, load.completion)
    return found


def decoding(counts: Counts, prompts: float, answers: float, prompt: int, completion: int) -> float:
    """Operations of sampling: each prompt once, and each answer token by token to its largest length."""
    a_row = completion * (prompt + completion / 2)
    prefill = forward(counts, prompts * prompt, prompts, prompts * prompt**2 / 2)
    return prefill + forward(counts, answers * completion, answers * completion, answers * a_row)


def before_work(stage: TrainingStage, counts: Counts, load: Load) -> float:
    """Operations before the first step: a reference that is asked about every row once."""
    once = forward(counts, load.step_tokens, load.step_read, load.step_attended)
    return (load.steps or 0) * once if asks_before(stage) else 0.0


def seconds_of(work: Mapping[str, float], rates: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase. Args: rates: operations a second by phase; a phase without one runs as training does."""
    return {name: amount / rates.get(name, rates["training"]) for name, amount in work.items()}
