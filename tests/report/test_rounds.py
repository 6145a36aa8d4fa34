"""Rounds of a repeated block: one axis, one step after the other, and what is no round."""

from strop.report.charts import Series, line_chart
from strop.report.page import LADDER
from strop.report.records import Run, StageRun
from strop.report.rounds import trained
from strop.report.training import training_of


def run_of(names, kind="preference", steps=3):
    stages = tuple(StageRun(name, kind) for name in names)
    curves = {name: {"loss": tuple((t, float(i)) for t in range(steps))} for i, name in enumerate(names, start=1)}
    return Run("r", stages=stages, curves=curves)


def test_rounds_stand_one_after_the_other():
    sft, dpo = (run_of([f"{n}-1", f"{n}-2"], kind) for n, kind in (("sft", "sft"), ("dpo", "preference")))
    order = (sft.stages[0], dpo.stages[0], sft.stages[1], dpo.stages[1])
    blocks = trained(Run("r", stages=order, curves={**sft.curves, **dpo.curves}))
    assert [(b.name, b.kind, b.rounds) for b in blocks] == [("sft", "sft", (0, 3)), ("dpo", "preference", (0, 3))]
    assert blocks[1].series["loss"] == ((0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0))


def test_a_single_number_a_gap_and_another_kind_are_no_rounds():
    assert [b.name for b in trained(run_of(["dpo-1"]))] == ["dpo-1"]
    assert [b.name for b in trained(run_of(["dpo-1", "dpo-3"]))] == ["dpo-1", "dpo-3"]
    assert [b.name for b in trained(run_of(["dpo", "dpo-1", "dpo-2"]))] == ["dpo", "dpo-1", "dpo-2"]
    mixed = (StageRun("a-1", "sft"), StageRun("a-2", "rl"))
    run = Run("r", stages=mixed, curves={s.name: {"loss": ((0, 1.0),)} for s in mixed})
    assert [b.name for b in trained(run)] == ["a-1", "a-2"]


def test_a_skipped_round_has_no_place_on_the_axis():
    run = run_of(["dpo-1", "dpo-2"])
    skipped = Run("r", stages=(*run.stages, StageRun("dpo-3", "preference", "skipped")), curves=run.curves)
    assert [b.rounds for b in trained(skipped)] == [(0, 3)]


def test_no_line_crosses_into_another_round_and_the_table_says_which():
    points = [(t, float(t)) for t in range(6)]
    chart = line_chart("Loss", "", [Series("loss", points)], limit=50, rounds=(0, 3))
    assert str(chart.svg).count('class="line') == 2 and str(chart.svg).count('class="round"') == 2
    assert chart.table.header == ("step", "round", "loss")
    assert [row[1] for row in chart.table.rows] == [1, 1, 1, 2, 2, 2]


def test_twenty_rounds_make_one_stage_of_plots():
    run = run_of([f"dpo-{i}" for i in range(1, 21)], steps=100)
    (block,) = trained(run)
    found = training_of(run, block, (), LADDER[0])
    assert len(found.stages) == 20 and [c.title for c in found.charts] == ["Loss"]
    assert len(found.charts[0].table.rows) <= 400
