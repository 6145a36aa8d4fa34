"""Whether both sides compute the same: metrics of the first step, taken before any weight has changed.

A speed beside a peer means nothing if the peer solves another problem. The gradient's norm is the
telling one: at the reference DPO's and KTO's losses are the same number whatever the data.
"""

from __future__ import annotations

from collections.abc import Mapping

from cells import Cell

NAMES = ("loss", "grad_norm", "log_odds_ratio", "logps/chosen", "logps/rejected", "objective/entropy")
"""Metrics that either side reports of its first step."""

EXACT, BF16, SAMPLED = 2e-3, 0.1, 0.02
"""Largest relative difference: fp32 on both sides; bf16 autocast beside fp32; means over different samples."""


def compared(cell: Cell, column: str) -> dict[str, float]:
    """The metrics that must agree, and their largest relative difference.

    ORPO's likelihood term spans prompt and completion in TRL and the completion alone in ours (as
    the paper has it), so its loss cannot agree: its parts do. Packed SFT trains on other rows a
    step; GRPO's first loss is zero whatever was sampled; PPO's is of other samples.
    """
    if cell.kind == "GRPO" or (cell.kind == "SFT" and column == "best"):
        return {}
    if cell.kind == "PPO":
        return {"objective/entropy": SAMPLED}
    names = ("log_odds_ratio", "logps/chosen", "logps/rejected") if cell.kind == "ORPO" else ("loss", "grad_norm")
    return dict.fromkeys(names, EXACT if column == "best" else BF16)


def check(cell: Cell, column: str, peer: Mapping[str, float], ours: Mapping[str, float]) -> dict[str, list[float]]:
    """Name -> [peer's, ours] of what must agree.

    Raises: RuntimeError listing the metrics that differ, or that a side has not reported.
    """
    wanted = compared(cell, column)
    wrong = [
        f"{name}: TRL {peer.get(name)}, strop {ours.get(name)}"
        for name, tolerance in wanted.items()
        if name not in peer or name not in ours or abs(peer[name] - ours[name]) > tolerance * abs(peer[name])
    ]
    if wrong:
        raise RuntimeError(f"{cell.name} against TRL {column}: the first step differs, so no speed is given: {wrong}")
    return {name: [peer[name], ours[name]] for name in wanted}
