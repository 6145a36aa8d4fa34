"""What a recipe may say: frozen dataclasses, one a stage kind, read by `config` from YAML.

A recipe is a list of named stages in order. `@name` in a model, data or reward path stands for
the artifact of an earlier stage. A recipe of one stage may be written flat, without `stages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from strop.credit import GroupRelative, LeaveOneOut
from strop.objectives import DPO, GRPO, IPO, SFT, Hinge, IPOSum
from strop.rewards import RewardSettings
from strop.train.optim import AdamW, Constant, Cosine, Linear, Muon

PreferenceObjective = DPO | IPO | IPOSum | Hinge
PolicyObjective = GRPO
Advantage = GroupRelative | LeaveOneOut
Optimizer = AdamW | Muon
Schedule = Linear | Cosine | Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where rows come from.

    Attributes:
        path: a file (.jsonl, .json, .csv, .parquet, each also .gz), a folder, several, a
            `datasets` path, `@stage`, or `world:NAME` for the embedded world.
        kind: the row shape; detected and said when null.
        columns: our column name -> the file's.
        split: of a `datasets` path.
        limit: read at most this many good rows.
        system: a system turn put before every conversation that has none.
        shuffle: take rows in a new order each pass; false takes them as they stand in the file.
    """

    path: str | tuple[str, ...]
    kind: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    limit: int | None = None
    system: str | None = None
    shuffle: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a stage steps, packs and saves.

    Attributes:
        steps: optimizer steps; null takes `epochs` passes over the data.
        batch_size: groups (rows, pairs, prompts) an optimizer step.
        micro_batch_tokens: packed tokens a forward holds at most; null chooses by device.
        max_length: prompt and completion tokens a sequence may have.
        max_grad_norm: gradients are clipped to this norm; 0 turns clipping off.
        save_every, keep: checkpoint each so many steps (0: only when interrupted), keeping the
            last few; the finished model is always saved.
        eval_every: evaluate on held-out rows each so many steps, besides at the start and the end
            (0: only then).
        eval_fraction: share of rows held out when no `eval_data` is given.
        log_every: steps between metric lines on the terminal; the file has every step.
        nonfinite_limit: stop after so many skipped steps in a row.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    steps: int | None = None
    epochs: float = 1.0
    batch_size: int = 32
    micro_batch_tokens: int | None = None
    max_length: int = 2048
    max_grad_norm: float = 1.0
    save_every: int = 100
    keep: int = 2
    eval_every: int = 0
    eval_fraction: float = 0.0
    log_every: int = 10
    nonfinite_limit: int = 5
    gradient_checkpointing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn. top_k and top_p are for evaluation and `strop sample` only.

    Attributes: temperature 0 is greedy; stop: strings that end a completion (kept in it);
        rows: how many completions are decoded side by side, null for the device's choice.
    """

    temperature: float = 1.0
    max_completion_length: int = 256
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    top_p: float | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTStage:
    """Supervised fine-tuning on every assistant turn."""

    kind: Literal["sft"] = "sft"
    name: str = "sft"
    model: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    objective: SFT = SFT()
    optimizer: Optimizer = AdamW(lr=1e-5)
    schedule: Schedule = Cosine(warmup=0.03, final=0.1)
    training: Training = Training()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceStage:
    """Offline preference optimisation on pairs, best first."""

    kind: Literal["preference"] = "preference"
    name: str = "preference"
    model: str | None = None
    reference: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    objective: PreferenceObjective = DPO()
    optimizer: Optimizer = AdamW(lr=5e-7)
    schedule: Schedule = Linear(warmup=0.1)
    training: Training = Training()


@dataclass(frozen=True, slots=True, kw_only=True)
class RLStage:
    """Sampled groups, scored by rewards: GRPO and its relatives.

    Attributes:
        num_generations: completions a prompt (G).
        passes: times each rollout is trained on; minibatches: optimizer steps a pass.
        mask_truncated: leave completions cut by the length limit out of loss and baseline.
    """

    kind: Literal["rl"] = "rl"
    name: str = "rl"
    model: str | None = None
    reference: str | None = None
    data: Data | None = None
    eval_data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    num_generations: int = 8
    passes: int = 1
    minibatches: int = 1
    mask_truncated: bool = False
    sampling: Sampling = Sampling()
    advantage: Advantage = GroupRelative()
    objective: PolicyObjective = GRPO()
    optimizer: Optimizer = AdamW(lr=1e-6)
    schedule: Schedule = Constant(warmup=0.0)
    training: Training = Training(max_length=4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateStage:
    """Samples on held-out prompts, scored by rewards; every figure with n and an interval.

    Without rewards nothing is sampled: on pairs and rankings it is measured how often the better side
    is the likelier (against a baseline: became so), on texts and prompts with answers the loss.

    Attributes:
        num_samples: completions a prompt; more than one also gives pass@k and maj@k.
        baseline: a model to compare with on the same prompts, paired.
    """

    kind: Literal["evaluate"] = "evaluate"
    name: str = "evaluate"
    model: str | None = None
    baseline: str | None = None
    data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    num_samples: int = 1
    sampling: Sampling = Sampling(temperature=0.0)


Stage = SFTStage | PreferenceStage | RLStage | EvaluateStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A run: stages in order, and what they share.

    Attributes:
        model: the first stages' model where they name none: a folder or hub name, or
            `world:base` (random weights of the embedded world's shape).
        runs: folder that run directories are made in.
        threads: CPU threads; null leaves one a physical core.
        device: auto, cpu or cuda. precision: auto, fp32 or bf16.
        reuse: take a finished stage of another run in `runs` whose content hash is the same.
    """

    name: str
    description: str = ""
    seed: int = 0
    model: str | None = None
    runs: str = "runs"
    threads: int | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    reuse: bool = False
    stages: tuple[Stage, ...] = ()
