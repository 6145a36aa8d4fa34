"""Which rewards of an evaluation are what is wanted: those that count for something, in the order they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from strop.report.records import Sampled
from strop.report.settings import flat_of


def goals_of(config: str, samples: Mapping[str, Sequence[Sampled]]) -> dict[str, tuple[str, ...]]:
    """By stage, the rewards that its answers were scored by, but for those that the config weighs 0 or less."""
    named = {stage: _names(groups) for stage, groups in samples.items() if groups}
    if not any(named.values()):
        return {}
    weights = _weights(flat_of(config))
    return {
        stage: tuple(name for name in names if weights.get((stage, name), 1.0) > 0) for stage, names in named.items()
    }


def _names(groups: Sequence[Sampled]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for answer in group.answers for name in answer.rewards))


def _weights(flat: Mapping[str, str]) -> dict[tuple[str, str], float]:
    """By stage and reward; a reward goes by its label, else by its name."""
    found: dict[tuple[str, str], float] = {}
    for key, text in flat.items():
        parts = key.split(".")
        if parts[0] == "stages" and len(parts) == 5 and parts[2] == "rewards" and parts[4] == "weight":
            above = key.removesuffix("weight")
            label = flat.get(f"{above}label", "")
            name = label if label not in ("", "null") else flat.get(f"{above}name", "")
            found[parts[1], name] = _number(text)
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0
