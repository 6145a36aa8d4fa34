"""Caps on calls and money that hold: what may be spent is set aside before a request is sent.

One budget a backend (equal settings share it) and process, from the process's start. Every attempt counts
as a call, retries too. Of the money the most that a request can cost is set aside, and what it did cost
is booked when the reply says so; a reply that was cut off may have been billed, so its share stays booked.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


class OverBudget(Exception):
    """A request that would go over a cap, which was not sent."""


@dataclass(slots=True)
class Budget:
    """What may be spent, and what is."""

    max_calls: int | None
    max_spend: float | None
    calls: int = 0
    spent: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, cost: float) -> None:
        """Sets a call and its highest cost aside.

        Raises: OverBudget, with nothing set aside.
        """
        with self._lock:
            if self.max_calls is not None and self.calls + 1 > self.max_calls:
                raise OverBudget(f"the cap of max_calls={self.max_calls} is reached ({self.calls} calls made)")
            if self.max_spend is not None and self.spent + cost > self.max_spend:
                raise OverBudget(
                    f"the cap of max_spend={self.max_spend:g} would be passed: {self.spent:.6g} is booked and this "
                    f"call may cost {cost:.6g}"
                )
            self.calls += 1
            self.spent += cost

    def settle(self, reserved: float, cost: float) -> None:
        """Books what a call did cost in place of what was set aside."""
        with self._lock:
            self.spent += cost - reserved


_budgets: dict[str, Budget] = {}
_lock = threading.Lock()


def budget_of(key: str, max_calls: int | None, max_spend: float | None) -> Budget:
    """The budget of a backend by its settings as a text."""
    with _lock:
        return _budgets.setdefault(key, Budget(max_calls, max_spend))
