"""Judges and critics: who is asked (`backends`), what they are asked (`compare`, `rank`, `rate`), what they said.

A judge never decides by the text of what it judges: material is made inert and quoted, and a verdict is one strict
object with the question's own code. What cannot be had is None, an abstention, never a score.
"""

from __future__ import annotations

from strop.judges.backends import BackendSettings
from strop.judges.compare import Compare, Comparison, Pair, figures
from strop.judges.endpoint import Endpoint
from strop.judges.function import Function
from strop.judges.inprocess import InProcess
from strop.judges.protocol import Backend, Reply, Request
from strop.judges.rank import Listed, Rank, Ranking
from strop.judges.rate import Item, Rate, Rating
from strop.judges.usage import Usage, usage_of

__all__ = [
    "Backend",
    "BackendSettings",
    "Compare",
    "Comparison",
    "Endpoint",
    "Function",
    "InProcess",
    "Item",
    "Listed",
    "Pair",
    "Rank",
    "Ranking",
    "Rate",
    "Rating",
    "Reply",
    "Request",
    "Usage",
    "figures",
    "usage_of",
]
