"""Rewards: callables on groups, and the settings that name them in a recipe.

Each settings class is a frozen dataclass with the tag `name`, a `weight` (0 is watched, not
trained on) and a `label` (the logged name; the tag if null). Calling it on groups gives one
`Verdict` a completion, in which a score of `None` means unscorable, never 0.
"""

from __future__ import annotations

from strop.rewards.answers import Choice, Exact, Number, verify_choice, verify_exact, verify_number
from strop.rewards.custom import Custom, load_function
from strop.rewards.extract import after_think
from strop.rewards.model import RewardModel
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

RewardSettings = (
    Exact
    | Number
    | Choice
    | Regex
    | Tags
    | Length
    | Overlong
    | JsonSchema
    | Custom
    | RewardModel
    | ProcessReward
    | ImplicitProcessReward
)
"""What a recipe's `rewards` may hold, told apart by `name`."""

__all__ = [
    "Choice",
    "Custom",
    "Exact",
    "ImplicitProcessReward",
    "JsonSchema",
    "Length",
    "NamedReward",
    "Number",
    "OnGroups",
    "Overlong",
    "ProcessReward",
    "Regex",
    "RewardModel",
    "RewardSettings",
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
    "verify_exact",
    "verify_json",
    "verify_length",
    "verify_number",
    "verify_regex",
    "verify_tags",
]
