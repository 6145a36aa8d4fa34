"""Scored groups without group credit: all that were scored, as they were sampled."""

from __future__ import annotations

from strop.rollout.scored import scored
from strop.types import Completion, Group


def completion(score: float | None, finish: str = "stop") -> Completion:
    return Completion("ab", token_ids=(5, 6), logprobs=(-1.0, -0.5), finish=finish, score=score)  # type: ignore[arg-type]


def test_each_scored_completion_carries_its_score_and_its_tokens() -> None:
    group = Group("q", (completion(0.5), completion(None), completion(0.5, "length")), prompt_ids=(1, 2), origin="f:1")
    silent = Group("q", (completion(None),), prompt_ids=(1,))
    got = scored([group, silent])
    (encoded,) = got.groups
    assert (encoded.prompt_ids, encoded.origin) == ((1, 2), "f:1")
    assert [s.columns for s in encoded.sequences] == [{"old_logprobs": (-1.0, -0.5), "rewards": 0.5}] * 2
    assert [s.ids for s in encoded.sequences] == [(5, 6)] * 2 and all(all(s.trained) for s in encoded.sequences)
    assert [s.truncated for s in encoded.sequences] == [False, True]
    assert got.samples == (group, silent)


def test_equal_scores_are_trained_on_too() -> None:
    """A critic tells them apart by what it expected; a group could not."""
    group = Group("q", (completion(1.0), completion(1.0)), prompt_ids=(1,))
    assert len(scored([group]).groups[0].sequences) == 2
