"""Math answers: one box, read strictly, compared exactly; see `answer`."""

from __future__ import annotations

from strop.rewards.math.answer import MathAnswer, verify_math

__all__ = ["MathAnswer", "verify_math"]
