"""What the stages of reward models share: comparisons as tokens, what a finished model makes of them, its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from strop.data.encoded import EncodedGroup
from strop.data.whole import WholeChat
from strop.evaluate.calibration import Scored, fit_temperature, length_slope, reward_measures
from strop.evaluate.calibration import comparisons as pairs_of
from strop.evaluate.reliability import reliability, write_reliability
from strop.evaluate.statistics import Measure
from strop.model.scoring import Scorer
from strop.recipes.context import Context
from strop.recipes.inputs import load_groups, rows_of
from strop.recipes.settings import Data
from strop.recipes.stages.columns import with_numbers
from strop.rewards.scale import Figures, figures_of
from strop.types import Group

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_SCORED = 512
"""Rows that a model's figures are taken from where none were held out or named for it."""


class Comparisons(WholeChat):
    """Pairs and rankings as whole texts, with the numbers of their rows that the objective reads.

    Attributes: columns: names of row columns to take along, of `margin` and `probability`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        system: str | None = None,
        *,
        columns: Iterable[str] = (),
        pairs_only: bool = False,
    ) -> None:
        super().__init__(tokenizer, system)
        self.columns = sorted(columns)
        self.pairs_only = pairs_only

    def encode_many(self, groups: Sequence[Group], max_length: int) -> list[EncodedGroup | str]:
        """Every comparison's ids, or why it is dropped: too long, twice the same answer, no number in a column."""
        found = super().encode_many(groups, max_length)
        return [e if isinstance(e, str) else self._compared(g, e) for g, e in zip(groups, found, strict=True)]

    def _compared(self, group: Group, encoded: EncodedGroup) -> EncodedGroup | str:
        if self.pairs_only and len(encoded.sequences) != 2:
            return f"{len(encoded.sequences)} answers where the objective compares two (all_pairs ranks more)"
        if max(Counter(s.ids for s in encoded.sequences).values()) > 1:
            return "identical tokens"
        return with_numbers(group, encoded, self.columns)


def padding(tokenizer: PreTrainedTokenizerBase, chat: WholeChat) -> int | None:
    """A special token that ends no text, to pad with: stock classifiers read the last token that is not padding."""
    ends = {*chat.stop_ids, *chat.tail_ids[-1:]}
    likely = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids]
    return next((int(i) for i in likely if i is not None and i not in ends), None)


def length_balanced(groups: Sequence[EncodedGroup], seed: int) -> list[EncodedGroup]:
    """Pairs, those of the rarer kind repeated until as often the first is the longer as the shorter one.

    Pairs of equal length stand once. Where one kind is missing there is nothing to balance with.
    """
    kinds: dict[int, list[EncodedGroup]] = {-1: [], 0: [], 1: []}
    for group in groups:
        first, second = (len(s.ids) for s in group.sequences)
        kinds[(first > second) - (first < second)].append(group)
    rarer, commoner = sorted((kinds[-1], kinds[1]), key=len)
    if not rarer:
        return list(groups)
    order = np.random.default_rng([seed, 2]).permutation(len(rarer)).tolist()
    again = [rarer[order[i % len(rarer)]] for i in range(len(commoner) - len(rarer))]
    return [*groups, *again]


# A finished model.


def scored(scorer: Scorer, groups: Sequence[EncodedGroup], max_tokens: int) -> list[Scored]:
    """What the model gives each completion, with its length in tokens and the pair's label."""
    return [
        Scored(tuple(row), tuple(len(s.ids) for s in group.sequences), group.columns.get("probability", 1.0))
        for group, row in zip(groups, scorer.score_groups(groups, max_tokens), strict=True)
    ]


def answers_of(data: Data, chat: WholeChat, max_length: int, context: Context) -> list[EncodedGroup]:
    """Answers to take a model's figures from: any number a prompt, whole.

    Raises: ValueError if none can be used.
    """
    plain = WholeChat(chat.tokenizer, data.system)
    found = plain.encode_many([g for g in load_groups(data, context).groups if g.completions], max_length)
    good = [e for e in found if isinstance(e, EncodedGroup)]
    for reason, count in Counter(e for e in found if isinstance(e, str)).items():
        context.event("drop", f"{rows_of(count)} of normalize dropped: {reason}")
    if not good:
        raise ValueError(f"{context.name}.normalize: no row of {data.path} can be used")
    return good


def figures(
    scorer: Scorer,
    compared: Sequence[EncodedGroup],
    answers: Sequence[EncodedGroup],
    fitted_on: str,
    max_tokens: int,
    context: Context,
) -> tuple[Mapping[str, Measure], Figures]:
    """A finished model's closing figures on comparisons, and what stands beside its weights.

    Args: answers: what mean, deviation and slope are taken from; none takes the comparisons'.
    """
    context.phase("evaluating")
    judged = scored(scorer, compared, max_tokens)
    rows = scored(scorer, answers, max_tokens) if answers else judged
    pairs = pairs_of(judged)
    known = figures_of(
        [row.scores for row in rows],
        length_slope=length_slope(rows),
        temperature=fit_temperature(pairs.delta, pairs.label, pairs.weight),
        fitted_on=fitted_on,
    )
    curves = {"as trained": reliability(pairs.delta, pairs.label)}
    curves[f"at temperature {known.temperature:.3g}"] = reliability(pairs.delta, pairs.label, known.temperature)
    write_reliability(context.stage_dir, curves)
    measures = reward_measures(judged, seed=context.recipe.seed)
    told = ", ".join(f"{name} {measures[name].value:.3g}" for name in ("accuracy", "ece", "nll", "temperature"))
    context.event("note", f"on {rows_of(len(judged))} compared: {told}; scores {known.mean:.3g} +- {known.std:.3g}")
    return measures, known
