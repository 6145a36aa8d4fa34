"""`strop judge`: rows of several shapes, settings, what is printed, on human labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from strop.cli import app
from strop.recipes.judging import judge_file
from strop.recipes.sources import RecipeError

LLMBAR = Path(__file__).parents[3] / "shared" / "data" / "llmbar" / "Natural.json"
JUDGES = """
def longer(task, inputs):
    a, b = inputs["responses"]
    return "tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B"
def first(task, inputs):
    return "A"
def silent(task, inputs):
    raise ValueError("no idea")
"""


@pytest.fixture
def judge(tmp_path: Path) -> Any:
    (tmp_path / "judges.py").write_text(JUDGES)
    return lambda name: f"backend.function={tmp_path}/judges.py:{name}"


@pytest.fixture
def gold(tmp_path: Path) -> str:
    rows = [{"prompt": "q", "chosen": "long" * (i % 3), "rejected": "ab"} for i in range(12)]
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_preferences_of_the_user(judge: Any, gold: str) -> None:
    quality = judge_file(gold, [judge("longer")])
    assert quality.figures["accuracy"].n == 12 - len(quality.dropped) * 4
    assert quality.figures["flip_rate"].value == 0 and quality.usage.calls == 2 * len(quality.comparisons)
    assert {c.probability for c in quality.comparisons} == {0.0, 1.0}, "the better one is not always the first"


def test_a_judge_of_places_is_at_chance_and_flips_always(judge: Any, gold: str) -> None:
    found = judge_file(gold, [judge("first")]).figures
    assert found["accuracy"].value == 0.5 and found["flip_rate"].value == 1 and found["position_bias"].value == 1


def test_settings_reach_the_judge_and_the_rows(judge: Any, gold: str) -> None:
    assert len(judge_file(gold, [judge("longer"), "data.limit=3", "tie_margin=0.1"]).comparisons) <= 3
    with pytest.raises(RecipeError, match="tie_margn: unknown; did you mean tie_margin"):
        judge_file(gold, [judge("longer"), "tie_margn=0.1"])
    with pytest.raises(RecipeError, match="a setting is key=value"):
        judge_file(gold, ["longer"])
    with pytest.raises(RecipeError, match="backend"):
        judge_file(gold, [])


def test_a_judge_that_says_nothing_is_an_error(judge: Any, gold: str) -> None:
    with pytest.raises(ValueError, match=r"answered none of \d+ comparisons; the first: .*no idea"):
        judge_file(gold, [judge("silent")])


def test_rows_without_two_answers_are_refused(judge: Any, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "q"}\n')
    with pytest.raises(ValueError, match="prompt_only"):
        judge_file(str(tmp_path / "p.jsonl"), [judge("longer")])


def test_the_command(judge: Any, gold: str) -> None:
    shown = CliRunner().invoke(app, ["judge", gold, judge("longer")])
    assert shown.exit_code == 0 and "95 % interval" in shown.output and "accuracy" in shown.output
    told = json.loads(CliRunner().invoke(app, ["judge", gold, judge("longer"), "--json"]).output)
    assert set(told["figures"]["kappa"]) == {"value", "low", "high", "n"} and told["usage"]["calls"] > 0


def test_human_labels_of_llmbar(judge: Any) -> None:
    if not LLMBAR.is_file():
        pytest.skip("the shared data are not on this machine")
    found = judge_file(str(LLMBAR), [judge("longer")]).figures
    assert found["accuracy"].n == 100 and found["accuracy"].value == pytest.approx(0.565, abs=0.01)
    assert found["accuracy/longer"].value > 0.9 > 0.1 > found["accuracy/shorter"].value, "it counts words"
