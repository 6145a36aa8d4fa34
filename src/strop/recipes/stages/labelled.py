"""What comes of comparisons: pairs to train on, what was refused, and figures.

Each prompt's row has a list of records: the places `first` and `second`, `probability` (None where the
labeller abstained), `margin`, `tie`, `reason`, and what `people` said of the same two, if they did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from strop.evaluate.agreement import Judged, agreement_measures
from strop.evaluate.statistics import Measure, measure
from strop.recipes.settings import LabelStage
from strop.rollout.rules import length_of
from strop.types import Group

KEY = "comparisons"
"""The column of a row that holds the records."""
CAPPED = "the cap of max_"
"""In the reason of a question that was not sent because the budget is spent."""
SAME = "two answers with the same words"
TIE = "a tie"


def pairs_of(done: Sequence[Group], stage: LabelStage) -> tuple[list[Group], Counter[str]]:
    """Pairs to train on, better first, and how many comparisons were refused, by reason."""
    pairs, refused = [], Counter[str]()
    for group in done:
        if not group.row[KEY]:
            refused["prompts whose answers all stand alike, or have no scores"] += 1
        for record in group.row[KEY]:
            if record["probability"] is None:
                refused[counted_by(record["reason"])] += 1
            elif record["tie"] and stage.ties == "drop":
                refused[TIE] += 1
            else:
                assert stage.labeller is not None
                pairs.append(_pair(group, record, stage.labeller.name))
    return pairs, refused


def _pair(group: Group, record: Mapping[str, Any], by: str) -> Group:
    """One comparison as a pair whose first answer is the better one, with P(first better) at least one half."""
    first, second, probability = record["first"], record["second"], record["probability"]
    if probability < 0.5:
        first, second, probability = second, first, 1 - probability
    told = {key: value for key, value in record.items() if key not in ("probability", "margin", "people")}
    row = {key: value for key, value in group.row.items() if key != KEY}
    row |= {"probability": probability, "margin": record["margin"], "labelled": {"by": by, **told}}
    return replace(group, completions=(group.completions[first], group.completions[second]), row=row)


def counted_by(reason: str) -> str:
    """A reason to count by: its beginning, without the numbers that differ from call to call."""
    return "".join("#" if c.isdigit() else c for c in reason[:80])


def label_measures(done: Sequence[Group], pairs: Sequence[Group], seed: int) -> dict[str, Measure]:
    """What was said, in figures, and how far people agree.

    Returns: `ties` and `abstained`, shares of what was asked; the pairs' mean `probability` and `margin`, and how
        often the better answer is the longer (`longer_preferred`); of a judge `judge/position_bias` and
        `judge/flip_rate`; and `agreement/...` where rows tell what people said.
    """
    records = [group.row[KEY] for group in done]

    def share(of: Any) -> Measure:
        return measure([[of(r) for r in row if r["reason"] != SAME] for row in records], share=True, seed=seed)

    figures = {
        "ties": share(lambda r: None if r["probability"] is None else float(r["tie"])),
        "abstained": share(lambda r: float(r["probability"] is None)),
        "probability": measure([[p.row["probability"]] for p in pairs], share=True, seed=seed),
        "margin": measure([[p.row["margin"]] for p in pairs], share=False, seed=seed),
        "longer_preferred": measure([[_longer(p)] for p in pairs], share=True, seed=seed),
    }
    if any("forward" in r for row in records for r in row):
        figures["judge/position_bias"] = share(_position_bias)
        figures["judge/flip_rate"] = share(lambda r: r.get("flipped"))
    agreed = agreement_measures(list(_judged(done)), seed=seed)
    return {**figures, **{f"agreement/{name}": figure for name, figure in agreed.items()}}


def _position_bias(record: Mapping[str, Any]) -> float | None:
    both = record.get("forward"), record.get("backward")
    return None if both[0] is None or both[1] is None else abs(both[0] - both[1])


def _longer(pair: Group) -> float | None:
    """1 if the better answer has more words, 0 if fewer."""
    apart = length_of(pair.completions[0]) - length_of(pair.completions[1])
    return None if apart == 0 or pair.row["labelled"].get("tie") else float(apart > 0)


def _judged(done: Sequence[Group]) -> list[Judged]:
    return [
        Judged(
            prompt=number,
            probability=record["probability"],
            people=tuple(record.get("people", ())),
            lengths=(length_of(group.completions[record["first"]]), length_of(group.completions[record["second"]])),
            tie=bool(record.get("tie")),
        )
        for number, group in enumerate(done)
        for record in group.row[KEY]
        if record["reason"] != SAME
    ]
