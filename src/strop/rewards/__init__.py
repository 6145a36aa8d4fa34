"""Rewards: callables on groups, and the settings that name them in a recipe.

Each settings class is a frozen dataclass with the tag `name`, a `weight` (0 is watched, not
trained on) and a `label` (the logged name; the tag if null). Calling it on groups gives one
`Verdict` a completion, in which a score of `None` means unscorable, never 0.
"""

from __future__ import annotations

from strop.rewards.answers import Choice, Exact, Number, verify_choice, verify_exact, verify_number
from strop.rewards.citations import Citations, verify_citations
from strop.rewards.code.reward import Code
from strop.rewards.custom import Custom, load_function
from strop.rewards.extract import after_think
from strop.rewards.gym import ReasoningGym
from strop.rewards.instructions import Instructions, verify_instructions
from strop.rewards.judge import JudgeReward
from strop.rewards.language import Language, verify_language
from strop.rewards.math import MathAnswer, verify_math
from strop.rewards.model import RewardModel
from strop.rewards.only import Only
from strop.rewards.plain import Plain
from strop.rewards.process import ImplicitProcessReward, ProcessReward
from strop.rewards.protocol import (
    NamedReward,
    OnGroups,
    check_rewards,
    label_of,
    lift,
    load_rewards,
    on_groups,
    reward_metrics,
    score,
)
from strop.rewards.repetition import LengthRange, Repetition, verify_length_range, verify_repetition
from strop.rewards.shape import (
    JsonSchema,
    Length,
    Overlong,
    Regex,
    Tags,
    verify_json,
    verify_length,
    verify_regex,
    verify_tags,
)
from strop.rewards.shaping import Clip, LengthControl, Shaped, Sigmoid

RewardSettings = Plain | Shaped | Only
"""What a recipe's `rewards` may hold, told apart by `name`; a new reward joins `plain.Plain`."""

__all__ = [
    "Choice",
    "Citations",
    "Clip",
    "Code",
    "Custom",
    "Exact",
    "ImplicitProcessReward",
    "Instructions",
    "JsonSchema",
    "JudgeReward",
    "Language",
    "Length",
    "LengthControl",
    "LengthRange",
    "MathAnswer",
    "NamedReward",
    "Number",
    "OnGroups",
    "Only",
    "Overlong",
    "Plain",
    "ProcessReward",
    "ReasoningGym",
    "Regex",
    "Repetition",
    "RewardModel",
    "RewardSettings",
    "Shaped",
    "Sigmoid",
    "Tags",
    "after_think",
    "check_rewards",
    "label_of",
    "lift",
    "load_function",
    "load_rewards",
    "on_groups",
    "reward_metrics",
    "score",
    "verify_choice",
    "verify_citations",
    "verify_exact",
    "verify_instructions",
    "verify_json",
    "verify_language",
    "verify_length",
    "verify_length_range",
    "verify_math",
    "verify_number",
    "verify_regex",
    "verify_repetition",
    "verify_tags",
]
