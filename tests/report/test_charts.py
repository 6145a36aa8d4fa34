import csv
import io
import math
import re
from urllib.parse import unquote
from xml.etree import ElementTree

from strop.report.bars import Bar, Interval, interval_chart, stacked_bars
from strop.report.charts import Mark, Series, line_chart
from strop.report.frame import HEIGHT, WIDTH
from strop.report.tables import Table

EVIL = "\"><script>alert(1)</script>&'<img src=x onerror=alert(1)>"


def numbers_in(chart):
    """Every coordinate a path has."""
    paths = [p.get("d") for p in ElementTree.fromstring(str(chart.svg)).iter("path")]
    return [[tuple(map(float, pair.split())) for pair in re.split("[ML]", d)[1:]] for d in paths if "L" in d]


def test_csv_and_table_are_the_data_at_full_precision():
    points = [(t, 1 / (t + 3)) for t in range(40)]
    table = line_chart("Loss", "", [Series("loss", points)], limit=400).table
    rows = list(csv.reader(io.StringIO(unquote(table.csv_uri.split(",", 1)[1]))))
    assert rows[0] == ["step", "loss"]
    assert [(int(t), float(v)) for t, v in rows[1:]] == points
    assert table.rows == tuple((t, v) for t, v in points)


def test_a_thinned_chart_holds_measured_values_only():
    points = [(t, math.sin(t * 1.7) + (9 if t == 1234 else 0)) for t in range(3000)]
    chart = line_chart("Loss", "", [Series("loss", points)], limit=400)
    assert len(chart.table.rows) <= 400 and set(chart.table.rows) <= set(points)
    assert (1234, points[1234][1]) in chart.table.rows
    assert "of 3,000 steps" in " ".join(chart.notes)


def test_curves_stay_inside_the_picture_and_follow_the_axes():
    chart = line_chart("Loss", "", [Series("loss", [(0, 1.0), (10, 0.0), (20, 4.0)])], limit=400)
    (curve,) = numbers_in(chart)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in curve)
    (x0, y0), (x1, y1), (x2, y2) = curve
    assert x1 - x0 == x2 - x1 and y1 > y0 > y2
    assert math.isclose((y1 - y0) * 4, y1 - y2, abs_tol=0.5)


def test_values_that_are_not_finite_are_gaps_and_said():
    points = [(t, math.nan if t == 5 else float(t % 3)) for t in range(10)]
    chart = line_chart("Loss", "", [Series("loss", points)], limit=400)
    assert "Not finite at 1 step (5)" in chart.warning
    assert [len(piece) for piece in numbers_in(chart)] == [5, 4]
    assert "nan" not in str(chart.svg)


def test_strange_series_still_draw():
    for points in (
        [(3, 1.0)],
        [(0, math.inf)],
        [(0, 1e308), (1, -1e308)],
        [(0, 5e-324), (1, 0.0)],
        [(-5, 1.0), (9, 1.0)],
    ):
        svg = str(line_chart("x", "", [Series("x", points)], limit=400).svg)
        assert "nan" not in svg and "inf" not in svg.replace("infinite", "")
        ElementTree.fromstring(svg)


def test_marks_stand_at_their_step_and_only_inside():
    chart = line_chart(
        "x", "", [Series("x", [(0, 1.0), (100, 2.0)])], limit=400, marks=[Mark(50, 2), Mark(500, 3), Mark(20, 1)]
    )
    assert [m.number for m in chart.marks] == [1, 2]


def test_the_label_says_ends_and_extremes():
    label = ElementTree.fromstring(
        str(line_chart("Loss", "", [Series("loss", [(0, 2.0), (4, 0.5), (9, 1.0)])], limit=400).svg)
    ).get("aria-label")
    assert label == "Loss by step. loss: 2 at step 0, 1 at step 9; lowest 0.5000 at step 4, highest 2 at step 0."


def test_text_in_pictures_is_escaped():
    pictures = [
        line_chart(EVIL, EVIL, [Series(EVIL, [(0, 1.0), (1, 2.0)])], limit=400, stem=EVIL),
        interval_chart(EVIL, [Interval(EVIL, 1.0, 0.5, 1.5, 10)]),
        stacked_bars(EVIL, [Bar(EVIL, [(EVIL, 3.0)])]),
    ]
    for chart in pictures:
        tree = ElementTree.fromstring(str(chart.svg))
        assert {e.tag for e in tree.iter()} <= {"svg", "g", "path", "text", "circle", "rect"}
        assert tree.get("aria-label").startswith(EVIL[:9])
        assert re.fullmatch(r"[a-z0-9-]+\.csv", chart.filename)
        assert re.fullmatch(r"data:text/csv;charset=utf-8,[A-Za-z0-9%.,_-]+", chart.table.csv_uri)
        assert "<script" not in chart.table.body and "<img" not in chart.table.body


def test_a_spreadsheet_runs_no_formula():
    assert Table(("step", "=1+1"), (("@SUM(A1)", -2.5),)).csv == "step,'=1+1\n'@SUM(A1),-2.5\n"


def test_bars_draw_few_phases_and_list_all():
    parts = [(f"phase {i}", float(i + 1)) for i in range(9)]
    chart = stacked_bars("Time", [Bar("sft", parts), Bar("dpo", [("phase 8", 2.0), ("other", 1.0)])])
    assert chart.legend == ("phase 8", "phase 7", "phase 6", "phase 5", "phase 4", "phase 3", "phase 2", "other")
    assert chart.table.rows[0] == ("sft", *(s for _, s in parts), None)
    widths = [
        float(r.get("width")) for r in ElementTree.fromstring(str(chart.svg)).iter("rect") if "fill" in r.get("class")
    ]
    first_bar = widths[:8]
    assert math.isclose((first_bar[0] + 1) / (first_bar[-1] + 1), 9 / 3, rel_tol=0.03)  # 'other' holds 1 + 2


def test_an_interval_without_ends_is_a_point():
    svg = str(interval_chart("reward", [Interval("a", 0.5, None, None, None), Interval("b", 0.7, 0.6, 0.8, 9)]).svg)
    assert svg.count("whisker") == 1 and svg.count("<circle") == 2 and "no interval known" in svg


def test_no_tick_stands_at_a_step_that_cannot_be():
    chart = line_chart("Loss", "", [Series("loss", [(0, 0.5)])], limit=100)
    assert ">−1</text>" not in chart.svg and ">1</text>" in chart.svg


def test_the_last_values_of_many_curves_say_that_there_are_more():
    curves = [
        Series(name, [(0, value), (1, value)]) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0))
    ]
    assert line_chart("Loss", "", curves, limit=9).last == "1 / 2 / 3 / …"
    assert line_chart("Loss", "", curves[:2], limit=9).last == "1 / 2"
