"""Evaluation tables: decimals that agree along a row, n in the head where it is one, and the headline."""

from strop.report.evaluation import block_of, common_headline, evaluation_of, hero_of, row_of
from strop.report.records import Figure, StageRun
from strop.report.text import decimals_of, fixed


def stage(name, against="", **metrics):
    inputs = {"against": against} if against else {}
    return StageRun(
        name, "evaluate", metrics={k.replace("delta_", "delta/"): v for k, v in metrics.items()}, inputs=inputs
    )


def test_a_row_has_the_decimals_of_its_largest_value():
    assert row_of("share", [Figure(0.035, 0.01, 0.06), Figure(0.78, 0.7, 0.9)]).decimals == 3
    assert row_of("length", [Figure(8.2, 8.0, 8.4), Figure(143.0)]).decimals == 0
    assert row_of("steps", [Figure(12.0), Figure(7.0)]).decimals == 0
    assert decimals_of([0.0041]) == 5 and decimals_of([24.1, 8.2]) == 1 and decimals_of([]) == 3


def test_fixed_numbers_have_signs_and_no_minus_zero():
    assert [fixed(v, 3) for v in (0.1234, -0.00004, -2.0, 1234.5)] == ["0.123", "0.000", "−2.000", "1,234.500"]
    assert [fixed(v, 2, plus=True) for v in (0.5, 0.001, -0.5, 0.0)] == ["+0.50", "0.00", "−0.50", "0.00"]
    assert fixed(None, 2) == "–" and fixed(float("nan"), 2) == "nan"


def test_the_n_of_most_figures_stands_in_the_head():
    rows = [row_of("a", [Figure(0.5, n=9), Figure(0.5, n=9)]), row_of("b", [Figure(0.5, n=9), Figure(0.5, n=7)])]
    assert block_of(rows).n == (9, 9)


def test_differences_are_of_the_stages_that_have_them_and_say_against_what():
    change = Figure(0.1, 0.05, 0.15, 9)
    found = evaluation_of(
        [stage("a", accuracy=Figure(0.1)), stage("b", "@a", accuracy=Figure(0.2), delta_accuracy=change)]
    )
    assert found.against == (("b", "a"),)
    assert [(row.name, row.figures) for row in found.paired.rows] == [("accuracy", (change,))]


def test_the_headline_is_what_most_stages_have():
    stages = [stage("a", accuracy=Figure(0.1)), stage("b", accuracy=Figure(0.2), reward=Figure(1.0))]
    assert common_headline(stages) == "accuracy"
    chart = hero_of(stages)
    assert [row[:2] for row in chart.table.rows] == [("a", 0.1), ("b", 0.2)]


def test_of_many_stages_the_first_and_the_latest_are_drawn():
    chart = hero_of([stage(f"eval-{i}", accuracy=Figure(0.1)) for i in range(30)])
    assert [row[0] for row in chart.table.rows] == ["eval-0", *(f"eval-{i}" for i in range(19, 30))]
