"""reasoning-gym: any of its generators as prompts (`gym:NAME`), with its own scorer as a reward.

The library is never imported here but in a child process (`worker`), which is killed when a scorer
hangs and in which no scorer evaluates an answer as code.
"""

from __future__ import annotations

from strop.rewards.gym.entries import GYM
from strop.rewards.gym.settings import ReasoningGym
from strop.rewards.gym.source import check_gym, fingerprint, resolve_gym, sized

__all__ = ["GYM", "ReasoningGym", "check_gym", "fingerprint", "resolve_gym", "sized"]
