"""Instructions on punctuation."""

from __future__ import annotations

import re

from strop.rewards.instructions.held import Held

_COMMA = re.compile("[,،、，﹐﹑､︐⸴⹁߸፣᠂꓾]")


def no_comma(text: str) -> Held:
    """There is no comma, of any script."""
    found = len(_COMMA.findall(text))
    return Held(not found, f"{found} commas, none wanted" if found else "no comma")
