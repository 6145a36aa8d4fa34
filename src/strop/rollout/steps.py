"""Monte-Carlo step labels: how often solutions come out right that go on from where a step ends.

From the end of every step but the last, n continuations are sampled and judged by their outcome, the
last step's label is the solution's own outcome. A label says what a step is worth to this model, not
whether it is right: a wrong step from which the model recovers is labelled by how often it does.

A prefix is prefilled once for its n continuations, and sampled once however many solutions begin
with it. It is the tokens that were sampled, never the text tokenised again.

Left out: search for the first error by halving, and a second judge to filter the labels by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from strop.data.steps import cut, step_ends
from strop.rollout.rollouts import Sampler, Score
from strop.types import Completion, Group

Label = bool | float | None
Prefix = tuple[int, ...]
Labels = Literal["soft", "hard"]


@dataclass(frozen=True, slots=True)
class MonteCarlo:
    """Labels the steps of sampled solutions.

    Attributes:
        sample: gives each prefix its continuations.
        score: judges continuations by their outcome, as it judged the solutions.
        separator: ends a step.
        labels: "soft" is the share of continuations that came out right, "hard" whether any did.
        right_above: a score above this is right.
    """

    sample: Sampler
    decode: Callable[[Sequence[int]], str]
    score: Score
    separator: str
    labels: Labels = "soft"
    right_above: float = 0.5

    def __call__(self, groups: Sequence[Group], step: int) -> list[Group]:
        """The groups with the steps of every completion and their labels.

        Args: groups: sampled and scored, with the ids of prompts and completions. step: of the random numbers.
        Wang et al. 2024 (Math-Shepherd), arXiv:2312.08935, eqs. 3 (hard) and 4 (soft).
        """
        cuts = [[self._cut(c) for c in group.completions] for group in groups]
        wanted = [(g, prefix) for g, row in enumerate(cuts) for _, prefixes in row for prefix in prefixes]
        estimates = self._estimates(groups, list(dict.fromkeys(wanted)), step)
        return [
            replace(
                group,
                completions=tuple(
                    replace(
                        c, steps=steps, step_labels=(*(estimates[g, p] for p in prefixes), *self._outcome(c, steps))
                    )
                    for c, (steps, prefixes) in zip(group.completions, row, strict=True)
                ),
            )
            for g, (group, row) in enumerate(zip(groups, cuts, strict=True))
        ]

    def _cut(self, completion: Completion) -> tuple[tuple[str, ...], list[Prefix]]:
        """A solution's steps, and its tokens up to the end of each but the last."""
        assert completion.token_ids is not None
        steps = cut(completion.text, self.separator)
        ends = step_ends(completion.token_ids, steps, self.decode)
        return steps, [completion.token_ids[: end + 1] for end in ends[:-1]]

    def _estimates(
        self, groups: Sequence[Group], prefixes: Sequence[tuple[int, Prefix]], step: int
    ) -> dict[tuple[int, Prefix], Label]:
        """What the continuations of each prefix (of a group's prompt) say of it."""
        prompts = [_prompt_ids(groups[g]) + prefix for g, prefix in prefixes]
        rows = self.sample(prompts, step, 0) if prompts else []
        whole: dict[int, list[Completion]] = {g: [] for g, _ in prefixes}
        for (g, prefix), row in zip(prefixes, rows, strict=True):
            whole[g] += [Completion(self.decode(ids := prefix + s.ids), token_ids=ids, finish=s.finish) for s in row]
        asked = [replace(groups[g], completions=tuple(completions)) for g, completions in whole.items()]
        judged = {g: iter(scored.completions) for g, scored in zip(whole, self.score(asked), strict=True)}
        return {
            (g, prefix): self._label([next(judged[g]).score for _ in row])
            for (g, prefix), row in zip(prefixes, rows, strict=True)
        }

    def _label(self, scores: Sequence[float | None]) -> Label:
        """The share of right outcomes, or whether there is one; None where none could be judged."""
        right = [score > self.right_above for score in scores if score is not None]
        if not right:
            return None
        return any(right) if self.labels == "hard" else sum(right) / len(right)

    def _outcome(self, completion: Completion, steps: Sequence[str]) -> tuple[Label, ...]:
        """The last step's label; nothing for an empty solution."""
        return (None if completion.score is None else completion.score > self.right_above,) if steps else ()


def _prompt_ids(group: Group) -> Prefix:
    assert group.prompt_ids is not None
    return group.prompt_ids
