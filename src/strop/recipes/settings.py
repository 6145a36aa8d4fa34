"""What a recipe may say: frozen dataclasses, read by `config` from YAML.

A recipe is a list of named stages in order. `@name` in a model, data or reward path stands for
the artifact of an earlier stage. A recipe of one stage may be written flat, without `stages`.

The stage classes stand in `kinds`, one file each; this one puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from strop.data.templates import Template
from strop.recipes.kinds.average import AverageStage
from strop.recipes.kinds.best import BestStage
from strop.recipes.kinds.calibrate import CalibrateStage
from strop.recipes.kinds.evaluate import EvaluateStage
from strop.recipes.kinds.label import LabelStage
from strop.recipes.kinds.online import OnlineStage
from strop.recipes.kinds.ppo import PPOStage
from strop.recipes.kinds.preference import PreferenceStage
from strop.recipes.kinds.process import ProcessStage
from strop.recipes.kinds.refresh import RefreshStage
from strop.recipes.kinds.revise import ReviseStage
from strop.recipes.kinds.reward import RewardStage
from strop.recipes.kinds.rl import RLStage
from strop.recipes.kinds.sample import SampleStage
from strop.recipes.kinds.score import ScoreStage
from strop.recipes.kinds.search import SearchStage
from strop.recipes.kinds.select import SelectStage
from strop.recipes.kinds.sft import SFTStage
from strop.recipes.kinds.ship import ShipStage
from strop.recipes.kinds.steps import StepsStage
from strop.recipes.kinds.unpaired import UnpairedStage
from strop.recipes.parts import Data, Sampling, Training

Stage = (
    SFTStage
    | PreferenceStage
    | UnpairedStage
    | RewardStage
    | RefreshStage
    | ProcessStage
    | RLStage
    | PPOStage
    | OnlineStage
    | SampleStage
    | ScoreStage
    | SelectStage
    | LabelStage
    | ReviseStage
    | StepsStage
    | SearchStage
    | AverageStage
    | BestStage
    | CalibrateStage
    | EvaluateStage
    | ShipStage
)
TrainingStage = (
    SFTStage | PreferenceStage | UnpairedStage | RewardStage | ProcessStage | RLStage | PPOStage | OnlineStage
)
"""Stages that make optimizer steps."""
OnPolicyStage = RLStage | PPOStage | OnlineStage
"""Those of them that sample what they train on: their data are prompts, none of which is held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the stages of a run share.

    Attributes:
        model: the first stages' model where they name none: a folder or hub name, or
            `world:base` (random weights of the embedded world's shape).
        template: how conversations are written for a model whose tokenizer has no chat template (null:
            ChatML); with it plain prompts become a user's turn.
        runs: folder that run directories are made in.
        threads: CPU threads; null leaves one a physical core.
        device: auto, cpu or cuda. precision: auto, fp32 or bf16.
        reuse: take a finished stage of another run in `runs` whose content hash is the same.
    """

    name: str
    description: str = ""
    seed: int = 0
    model: str | None = None
    template: Template | None = None
    runs: str = "runs"
    threads: int | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    reuse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Shared):
    """A run: stages in order, and what they share. What `Written` is once it is expanded."""

    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Stages that are gone through several times; `expand` writes them out as `name-1`, `name-2`, ...

    In a round `@x` is what stage x of the block left: in this round where x stands earlier in the block, else
    in the round before. `@x*` in data are all rounds' so far. Behind the block `@x` is the last round's.

    Attributes:
        times: rounds.
        first: what `@x` stands for where there is no round before; without it the recipe's model, or no data.
    """

    kind: Literal["repeat"] = "repeat"
    name: str = "rounds"
    times: int
    first: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Written(Shared):
    """A recipe as it is written; `expand` makes the `Recipe` of it that is run.

    Attributes:
        optional: stages that are left out where they have no data; `name.key`, where that setting is unset.
        evaluation: with `data`, an evaluation of the model before the first stage that trains, and of each that a
            stage leaves, compared with the one it started from.
    """

    optional: tuple[str, ...] = ()
    evaluation: EvaluateStage = EvaluateStage()
    stages: tuple[Stage | Repeat, ...] = ()


__all__ = [
    "AverageStage",
    "BestStage",
    "CalibrateStage",
    "Data",
    "EvaluateStage",
    "LabelStage",
    "OnPolicyStage",
    "OnlineStage",
    "PPOStage",
    "PreferenceStage",
    "ProcessStage",
    "RLStage",
    "Recipe",
    "RefreshStage",
    "Repeat",
    "ReviseStage",
    "RewardStage",
    "SFTStage",
    "SampleStage",
    "Sampling",
    "ScoreStage",
    "SearchStage",
    "SelectStage",
    "ShipStage",
    "Stage",
    "StepsStage",
    "Training",
    "TrainingStage",
    "UnpairedStage",
    "Written",
]
