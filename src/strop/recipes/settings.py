"""What a recipe may say: frozen dataclasses, read by `config` from YAML.

A recipe is a list of named stages in order. `@name` in a model, data or reward path stands for
the artifact of an earlier stage. A recipe of one stage may be written flat, without `stages`.

The stage classes stand in `kinds`, one file each; this one puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from strop.recipes.kinds.average import AverageStage
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
    | CalibrateStage
    | EvaluateStage
)
TrainingStage = (
    SFTStage | PreferenceStage | UnpairedStage | RewardStage | ProcessStage | RLStage | PPOStage | OnlineStage
)
"""Stages that make optimizer steps."""
OnPolicyStage = RLStage | PPOStage | OnlineStage
"""Those of them that sample what they train on: their data are prompts, none of which is held out."""


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


__all__ = [
    "AverageStage",
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
    "ReviseStage",
    "RewardStage",
    "SFTStage",
    "SampleStage",
    "Sampling",
    "ScoreStage",
    "SearchStage",
    "SelectStage",
    "Stage",
    "StepsStage",
    "Training",
    "TrainingStage",
    "UnpairedStage",
]
