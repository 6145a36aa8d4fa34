"""Programs as answers: run in a sandbox, one input at a time, and compared outside of it."""

from __future__ import annotations

from strop.rewards.code.reward import Code
from strop.rewards.code.tasks import tests_of

__all__ = ["Code", "tests_of"]
