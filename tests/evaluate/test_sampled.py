"""Figures of sampled answers, on answers made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strop.evaluate.sampled import Evaluation, evaluate_samples, write_groups
from strop.evaluate.statistics import Measure, measure_pass_at_k, wilson
from strop.rollout.sampler import Sampled
from strop.types import Completion, Group, group_from_json


def answer(text: str, **rewards: float | None) -> Completion:
    return Completion(
        text,
        rewards=rewards,
        score=rewards.get("exact"),
        finish="stop",
        token_ids=(1,) * len(text),
        logprobs=(0.0,) * len(text),
    )


def evaluation(*rows: list[tuple[str, float | None]]) -> Evaluation:
    groups = [
        Group(f"q{i}", tuple(answer(text, exact=value) for text, value in row), prompt_ids=(1, 2), origin=f"f:{i}")
        for i, row in enumerate(rows)
    ]
    return Evaluation(tuple(groups), {})


def test_one_answer_a_prompt_gives_the_share_with_wilsons_interval() -> None:
    figures = evaluation([("4", 1.0)], [("5", 0.0)], [("6", 1.0)], [("x", None)]).measures(1, seed=0)
    assert figures["exact"] == wilson(2, 3)
    assert figures["unscorable/exact"] == Measure(1.0, None, None, 4)
    assert figures["completions/mean_length"] == Measure(1.0, None, None, 4)  # a length is no share
    assert figures["completions/clipped_ratio"] == wilson(0, 4)
    assert not any(name.startswith(("pass@", "maj@")) for name in figures)


def test_several_answers_give_pass_at_k_and_the_majority() -> None:
    rows = [("7", 1.0), ("7", 1.0), ("8", 0.0), ("9", 0.0)], [("1", 0.0), ("1", 0.0), ("1", 0.0), ("2", 1.0)]
    figures = evaluation(*map(list, rows)).measures(4, seed=0)
    assert {name for name in figures if "@" in name} == {"pass@1/exact", "pass@2/exact", "pass@4/exact", "maj@4/exact"}
    assert figures["pass@1/exact"].value == figures["exact"].value == (0.5 + 0.25) / 2
    assert figures["pass@2/exact"] == measure_pass_at_k([[1, 1, 0, 0], [0, 0, 0, 1]], 2)
    assert figures["pass@2/exact"].value == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert (figures["pass@4/exact"].value, figures["maj@4/exact"].value) == (1.0, 0.5)


def test_real_valued_rewards_have_no_pass_at_k() -> None:
    figures = evaluation([("a", 0.5), ("b", 1.0)], [("c", 0.0), ("d", 0.0)]).measures(2, seed=0)
    assert figures["exact"].value == 0.375 and not any("@" in name for name in figures)


def test_comparisons_are_paired_and_antisymmetric() -> None:
    ours = evaluation([("a", 1.0)], [("b", 0.0)], [("c", 1.0)], [("d", None)])
    theirs = evaluation([("a", 0.0)], [("b", 0.0)], [("c", 1.0)], [("d", 1.0)])
    there, back = ours.against(theirs, seed=0), theirs.against(ours, seed=0)
    assert (there["delta/exact"].value, there["delta/exact"].n) == (pytest.approx(1 / 3), 3)
    assert back["delta/exact"].value == pytest.approx(-there["delta/exact"].value)
    assert there["win_rate/exact"].value == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert there["win_rate/exact"].value + back["win_rate/exact"].value == pytest.approx(1.0)
    assert ours.against(ours, seed=0)["win_rate/exact"].value == 0.5


def test_samples_are_groups_a_line_without_tokens(tmp_path: Path) -> None:
    made = evaluation([("4", 1.0)], [("é\n", 0.0)])
    write_groups(tmp_path / "samples.jsonl", made.groups)
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 2 and "prompt_ids" not in rows[0] and "token_ids" not in rows[0]["completions"][0]
    group = group_from_json(rows[1])
    assert (group.prompt, group.origin, group.completions[0].text) == ("q1", "f:1", "é\n")
    assert group.completions[0].rewards == {"exact": 0.0} and group.completions[0].finish == "stop"


def test_prompts_are_sampled_once_and_scored_with_their_rows() -> None:
    asked: list[object] = []

    def sample(prompts: object, step: int, first_index: int) -> list[list[Sampled]]:
        asked.append((prompts, step, first_index))
        return [[Sampled((5, 6), (-1.0, -2.0), "length")], [Sampled((7,), (-0.5,), "stop")]]

    phases: list[str] = []
    found = evaluate_samples(
        [Group("a", row={"answer": "1"}), Group("b")],
        [(1,), (2, 3)],
        sample,
        lambda ids: "-".join(map(str, ids)),
        lambda groups: groups,
        phases.append,
    )
    assert asked == [([(1,), (2, 3)], 0, 0)] and phases == ["sampling", "scoring"]
    assert [g.completions[0].text for g in found.groups] == ["5-6", "7"]
    assert found.groups[0].row == {"answer": "1"} and found.groups[0].completions[0].finish == "length"
    assert found.only({""}).groups == found.groups and found.only({"elsewhere"}).groups == ()
