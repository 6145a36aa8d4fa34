"""Win rates: which metrics are of one comparison, and the bar that says who won."""

from xml.etree import ElementTree

import pytest

from strop.report.evaluation import evaluation_of
from strop.report.records import Figure, StageRun
from strop.report.wins import win_table, wins_chart, wins_of

JUDGED = {
    "win_rate/judge": Figure(0.625, 0.5, 0.75, 80),
    "win_rate/judge/wins": Figure(0.5, 0.4, 0.6, 80),
    "win_rate/judge/ties": Figure(0.25, 0.2, 0.3, 80),
    "win_rate/judge/losses": Figure(0.25, 0.2, 0.3, 80),
    "win_rate/judge/flip_rate": Figure(0.1, 0.05, 0.15, 80),
    "win_rate/judge/length_controlled": Figure(0.55, 0.4, 0.7, 80),
}


def stage(**metrics):
    return StageRun("eval", "evaluate", metrics=metrics)


def test_the_figures_of_a_comparison_stand_together_and_the_others_alone():
    found = evaluation_of([stage(accuracy=Figure(0.5), **JUDGED, **{"win_rate/rule": Figure(1.0)})])
    assert [row.name for row in found.plain.rows] == ["accuracy"]
    assert [(w.by, list(w.figures)) for w in found.wins.rows] == [
        ("judge", ["win_rate", "length_controlled", "wins", "ties", "losses", "flip_rate"]),
        ("rule", ["win_rate"]),
    ]
    assert [words for _, words in found.wins.columns][:2] == ["win rate", "at equal length"]


@pytest.mark.parametrize("name", ["wins/judge", "judge/wins", "win_rate/judge/wins"])
def test_the_place_of_the_word_does_not_matter(name):
    (found,) = wins_of(stage(**{name: Figure(0.5)}))
    assert (found.by, list(found.figures)) == ("judge", ["wins"])


@pytest.mark.parametrize("name", ["accuracy", "rewards/first/mean", "longer", "completions/mean_length"])
def test_other_metrics_are_none_of_them(name):
    assert wins_of(stage(**{name: Figure(0.5)})) == []


def test_the_bar_is_cut_in_proportion_and_says_so():
    chart = wins_chart(wins_of(stage(**JUDGED)))
    widths = [float(r.get("width")) for r in ElementTree.fromstring(str(chart.svg)).iter("rect")]
    assert (widths[0] + 1) / (widths[1] + 1) == pytest.approx(2.0) and widths[1] == pytest.approx(widths[2])
    assert "wins 0.500, ties 0.250, losses 0.250" in chart.svg
    header, (row,) = chart.table.header, chart.table.rows
    assert row[header.index("flip_rate")] == 0.1 and row[header.index("win_rate n")] == 80


def test_without_wins_ties_and_losses_there_is_no_bar():
    assert wins_chart(wins_of(stage(**{"win_rate/x": Figure(0.5)}))) is None
    assert win_table([]).columns == ()


def test_rewards_that_count_for_nothing_are_in_the_table_only():
    parts = {
        f"win_rate/{by}{end}": Figure(0.3) for by in ("gold", "style") for end in ("", "/wins", "/ties", "/losses")
    }
    metrics = {"gold": Figure(1.0), "style": Figure(1.0), **parts}
    found = wins_of(StageRun("eval", "evaluate", metrics=metrics, rewards=("gold",)))
    assert [(w.by, w.aside) for w in found] == [("gold", False), ("style", True)]
    assert "eval by gold" in wins_chart(found).svg and "eval by style" not in wins_chart(found).svg
    assert len(wins_chart(found).table.rows) == 2
