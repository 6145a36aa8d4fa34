"""What the tests of programs share: the tiers that hold here, and one way to score a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from strop.rewards.code import Code
from strop.rewards.code.isolation import report
from strop.types import Completion, Group, Verdict


@pytest.fixture(params=["A", "B"])
def tier(request: pytest.FixtureRequest) -> str:
    """Each tier that holds on this machine."""
    found = report(request.param)
    if not found.holds:
        pytest.skip(f"tier {request.param} does not hold here: {found.broken[0]}")
    return str(request.param)


@pytest.fixture
def verdicts(tier: str) -> Callable[..., list[Verdict]]:
    """Scores programs in a tier: `verdicts([(program, row), ...], timeout_s=1)`."""

    def score(pairs: Sequence[tuple[str, Mapping[str, Any]]], timeout_s: float = 1.0) -> list[Verdict]:
        groups = [Group(str(row.get("prompt", "")), (Completion(code),), dict(row)) for code, row in pairs]
        return [v for (v,) in Code(tier=tier, timeout_s=timeout_s)(groups)]  # type: ignore[arg-type]

    return score
