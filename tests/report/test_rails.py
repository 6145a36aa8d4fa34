"""The graph beside the list of models: who takes whose lane over."""

from strop.report.lineage import Node, licences_of, lineage, uses_of
from strop.report.rails import rail_svg, rails
from strop.report.records import Licence, Run, StageRun


def node(name, parent=""):
    return Node(name, "sft", parent, "", StageRun(name, "sft"), ())


def lanes(*nodes):
    return [(r.lane, r.above, r.passing, r.below) for r in rails(nodes)]


def test_a_chain_keeps_one_lane():
    assert lanes(node("a"), node("b", "a"), node("c", "b")) == [
        (0, None, (), True), (0, 0, (), True), (0, 0, (), False),
    ]  # fmt: skip


def test_the_last_child_takes_the_lane_over_and_the_others_branch_off():
    found = lanes(node("sft"), node("reward", "sft"), node("ppo", "sft"))
    assert found == [(0, None, (), True), (1, 0, (0,), False), (0, 0, (), False)]


def test_a_lane_is_free_again_behind_its_last_row():
    found = lanes(node("base"), node("rm", "base"), node("sft", "base"), node("judge", "sft"), node("dpo", "sft"))
    assert [lane for lane, *_ in found] == [0, 1, 0, 1, 0]


def test_the_piece_reaches_both_edges_of_its_row():
    first, branch, last = rails([node("sft"), node("reward", "sft"), node("ppo", "sft")])
    assert 'y2="100%"' in rail_svg(first, "model") and 'y2="100%"' in rail_svg(branch, "model")
    assert 'y2="100%"' not in rail_svg(last, "model") and 'class="node data"' in rail_svg(last, "data")


def test_a_stage_says_what_else_it_read():
    inputs = {"model": "@sft", "rewards.0.path": "@reward", "data": "a.jsonl, @label-1", "reference": "hub/base"}
    uses = uses_of(StageRun("ppo", "ppo", inputs=inputs), "sft")
    assert [(u.role, *u.names) for u in uses] == [
        ("reward", "reward"), ("data", "a.jsonl", "label-1"), ("reference", "hub/base"),
    ]  # fmt: skip


def test_data_that_is_made_stands_below_what_made_it():
    stages = (
        StageRun("sft", "sft", artifacts={"model": "m"}, inputs={"model": "hub/base"}),
        StageRun("sample", "sample", artifacts={"samples": "s"}, inputs={"model": "@sft", "data": "p.jsonl"}),
        StageRun("label", "label", artifacts={"samples": "s"}, inputs={"data": "@sample"}),
    )
    nodes = lineage(Run("r", stages=stages))
    assert [(n.name, n.parent, n.shape) for n in nodes] == [
        ("hub/base", "", "base"), ("sft", "hub/base", "model"), ("sample", "sft", "data"), ("label", "sample", "data"),
    ]  # fmt: skip


def test_every_source_has_a_licence_or_an_unknown_one():
    stages = (StageRun("sft", "sft", inputs={"model": "hub/base", "data": "a.jsonl, b.jsonl", "among": "@x"}),)
    run = Run("r", stages=stages, licences={"hub/base": Licence("hub/base", "mit", "LICENSE")})
    found = licences_of(run, lineage(run))
    assert [(one.name, one.licence) for one in found] == [
        ("hub/base", "mit"),
        ("a.jsonl", "unknown"),
        ("b.jsonl", "unknown"),
    ]


def test_what_comes_from_nothing_known_has_no_line_above():
    skipped = Node("dpo-2", "preference", "", "", StageRun("dpo-2", "preference", "skipped"), ())
    _, _, last = rails([node("a"), node("b", "a"), skipped])
    assert last.above is None and skipped.shape == "skipped"
