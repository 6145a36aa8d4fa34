"""Figures of sampled answers, on answers made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from strop.evaluate.sampled import Evaluation, Wanted, evaluate_samples, write_groups
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
    figures = evaluation([("4", 1.0)], [("5", 0.0)], [("6", 1.0)], [("x", None)]).measures(seed=0)
    assert figures["exact"] == wilson(2, 3)
    assert figures["unscorable/exact"] == Measure(1.0, None, None, 4)
    assert figures["completions/mean_length"] == Measure(1.0, None, None, 4)  # a length is no share
    assert figures["completions/clipped_ratio"] == wilson(0, 4)
    assert not any(name.startswith(("pass@", "maj@")) for name in figures)


def test_several_answers_give_pass_at_k_and_the_majority() -> None:
    rows = [("7", 1.0), ("7", 1.0), ("8", 0.0), ("9", 0.0)], [("1", 0.0), ("1", 0.0), ("1", 0.0), ("2", 1.0)]
    figures = evaluation(*map(list, rows)).measures(seed=0)
    assert {name for name in figures if "@" in name} == {"pass@1/exact", "pass@2/exact", "pass@4/exact", "maj@4/exact"}
    assert figures["pass@1/exact"].value == figures["exact"].value == (0.5 + 0.25) / 2
    assert figures["pass@2/exact"] == measure_pass_at_k([[1, 1, 0, 0], [0, 0, 0, 1]], 2)
    assert figures["pass@2/exact"].value == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert (figures["pass@4/exact"].value, figures["maj@4/exact"].value) == (1.0, 0.5)


def test_a_prompt_without_a_judgement_is_no_lost_vote() -> None:
    """A row without a gold answer: what says nothing there is not known to be wrong."""
    rows = [("7", 1.0), ("7", 1.0)], [("", None), ("", None)], [("", 0.0), ("8", 0.0)], [("", None), ("9", 0.0)]
    figures = evaluation(*map(list, rows)).measures(seed=0)
    assert figures["maj@2/exact"] == figures["pass@2/exact"] == wilson(1, 2)


def test_real_valued_rewards_have_no_pass_at_k() -> None:
    figures = evaluation([("a", 0.5), ("b", 1.0)], [("c", 0.0), ("d", 0.0)]).measures(seed=0)
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


def test_every_figure_has_a_paired_difference() -> None:
    """pass@k, maj@k, length and style too; style that neither side has is left out."""
    ours = evaluation([("4", 1.0), ("4", 1.0)], [("- 5", 0.0), ("6", 1.0)], [("1", 0.0), ("1", 0.0)])
    theirs = evaluation([("5", 0.0), ("4", 1.0)], [("55 5", 0.0), ("6", 1.0)], [("1", 0.0), ("2", 0.0)])
    mine, other, both = ours.measures(seed=0), theirs.measures(seed=0), ours.against(theirs, seed=0)
    for name in ("exact", "pass@1/exact", "pass@2/exact", "maj@2/exact", "completions/mean_length", "style/words"):
        assert both[f"delta/{name}"].value == pytest.approx(mine[name].value - other[name].value), name
        assert both[f"delta/{name}"].n == 3
    assert both["delta/maj@2/exact"].value == pytest.approx((1 - 0.5) / 3)  # 0.5 where one of two answers is right
    assert both["delta/style/list_items"].value == pytest.approx(0.5 / 3) and "delta/style/headings" not in both
    assert "style/list_items" in mine and "style/list_items" not in other
    parts = [both[f"win_rate/exact/{name}"].value for name in ("wins", "ties", "losses")]
    assert parts == pytest.approx([0.75 / 3, 2 / 3, 0.25 / 3])
    assert "win_rate/exact/length_controlled" not in both  # a verifier's


def test_a_graded_reward_is_also_compared_at_equal_length() -> None:
    rows = [[("a" * (1 + i % 3), i % 5 / 4)] for i in range(40)]
    there = [[("a" * (1 + i % 2), i % 4 / 3)] for i in range(40)]
    ours, theirs = evaluation(*rows), evaluation(*there)
    both, back = ours.against(theirs, seed=0), theirs.against(ours, seed=0)
    name = "win_rate/exact/length_controlled"
    assert both[name].n == 40 and both[name].value + back[name].value == pytest.approx(1)


def test_a_rate_that_equal_lengths_do_not_tell_is_left_out() -> None:
    ours = evaluation(*([("aaa", i % 5 / 4)] for i in range(40)))
    theirs = evaluation(*([("aa", i % 3 / 4)] for i in range(40)))
    both = ours.against(theirs, seed=0)
    assert both["win_rate/exact"].n == 40 and "win_rate/exact/length_controlled" not in both


def test_answers_are_the_same_where_the_reward_reads_the_same() -> None:
    """Two ways of writing 12 outvote one of 13; by their words all three differ."""
    said = [("It is 12.", 1.0), ("12 apples", 1.0), ("13", 0.0), ("14", 0.0)]
    whole = evaluation(said)
    read = replace(whole, wanted=Wanted(answers={"exact": "number"}))
    assert whole.measures(seed=0)["maj@4/exact"].value == 0.5
    assert read.measures(seed=0)["maj@4/exact"].value == 1.0


def test_rewards_are_told_for_each_value_of_a_column() -> None:
    made = evaluation([("a", 1.0)], [("b", 0.0)], [("c", 1.0)], [("d", None)])
    levels = ("easy", "hard", "hard", "hard")
    groups = tuple(replace(g, row={"level": level}) for g, level in zip(made.groups, levels, strict=True))
    figures = replace(made, groups=groups, wanted=Wanted(by="level")).measures(seed=0)
    assert figures["exact/level=easy"] == wilson(1, 1) and figures["exact/level=hard"] == wilson(1, 2)


def test_a_reward_that_is_not_for_a_row_is_not_unscorable_there() -> None:
    made = evaluation([("a", 1.0)], [("b", None)])
    bare = replace(made.groups[0], completions=(answer("x"),))
    figures = replace(made, groups=(*made.groups, bare)).measures(seed=0)
    assert figures["exact"] == wilson(1, 1) and figures["unscorable/exact"] == Measure(1.0, None, None, 2)


def test_lengths_are_known_from_the_file_as_well(tmp_path: Path) -> None:
    cut = Completion("abc", token_ids=(1,) * 7, finish="length", rewards={"exact": 0.0})
    made = Evaluation((Group("q", (cut, answer("four", exact=1.0))),))
    write_groups(tmp_path / "samples.jsonl", made.groups)
    read = Evaluation((group_from_json(json.loads((tmp_path / "samples.jsonl").read_text())),))
    for found in (made, read):
        figures = found.measures(seed=0)
        values = [figures[f"completions/{n}"].value for n in ("mean_length", "min_length", "max_length")]
        assert values == [5.5, 4.0, 7.0] and figures["completions/mean_terminated_length"].value == 4.0
    given = Evaluation((Group("q", (Completion("by people"),)),)).measures(seed=0)
    assert not any(name.startswith("completions/") for name in given) and given["style/words"].value == 2
