"""IFEval's verifiable instructions: one small pure function a type, and the reward over a row's list of them."""

from __future__ import annotations

from strop.rewards.instructions.held import Held
from strop.rewards.instructions.settings import Instructions, verify_instructions, verify_loosely
from strop.rewards.instructions.table import INSTRUCTIONS, holds

__all__ = ["INSTRUCTIONS", "Held", "Instructions", "holds", "verify_instructions", "verify_loosely"]
