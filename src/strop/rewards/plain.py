"""The rewards that stand by themselves, all of which `shaping.Shaped` can take; a new one joins the union here."""

from __future__ import annotations

from strop.rewards.answers import Choice, Exact, Number
from strop.rewards.citations import Citations
from strop.rewards.code.reward import Code
from strop.rewards.custom import Custom
from strop.rewards.gym import ReasoningGym
from strop.rewards.instructions import Instructions
from strop.rewards.judge import JudgeReward
from strop.rewards.language import Language
from strop.rewards.math import MathAnswer
from strop.rewards.model import RewardModel
from strop.rewards.process import ImplicitProcessReward, ProcessReward
from strop.rewards.repetition import LengthRange, Repetition
from strop.rewards.shape import JsonSchema, Length, Overlong, Regex, Tags

Plain = (
    Exact
    | Number
    | MathAnswer
    | Choice
    | Regex
    | Tags
    | Length
    | Overlong
    | JsonSchema
    | Instructions
    | Language
    | Citations
    | Repetition
    | LengthRange
    | ReasoningGym
    | JudgeReward
    | Code
    | Custom
    | RewardModel
    | ProcessReward
    | ImplicitProcessReward
)
